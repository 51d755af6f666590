//! The frames as bytes.

use super::{
    Failure, FailureKind, FileSpec, FromAgent, Hello, Login, Outcome, Request, TerminalSize, ToAgent, Trailer,
};
use crate::decode::put_frame;
use crate::fields::{Fields, put_bytes, put_count};
use crate::{MAGIC, VERSION, WireError};

mod kind {
    pub(super) const REQUEST: u8 = 1;
    pub(super) const FILE: u8 = 2;
    pub(super) const STDIN: u8 = 3;
    pub(super) const STDIN_END: u8 = 4;
    pub(super) const SIGNAL: u8 = 5;
    pub(super) const RESIZE: u8 = 6;
    pub(super) const HEARTBEAT: u8 = 7;
    pub(super) const DONE: u8 = 8;

    pub(super) const HELLO: u8 = 64;
    pub(super) const STARTED: u8 = 65;
    pub(super) const STDOUT: u8 = 66;
    pub(super) const STDERR: u8 = 67;
    pub(super) const WINDOW: u8 = 68;
    pub(super) const AGENT_HEARTBEAT: u8 = 69;
    pub(super) const TRAILER: u8 = 70;
    pub(super) const FAILURE: u8 = 71;
    pub(super) const NOTICE: u8 = 72;
}

impl ToAgent<'_> {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Request(request) => put_frame(out, kind::REQUEST, |out| put_request(out, request)),
            Self::File(data) => put_frame(out, kind::FILE, |out| out.extend_from_slice(data)),
            Self::Stdin(data) => put_frame(out, kind::STDIN, |out| out.extend_from_slice(data)),
            Self::StdinEnd => put_frame(out, kind::STDIN_END, |_| ()),
            Self::Signal(number) => put_frame(out, kind::SIGNAL, |out| out.push(*number)),
            Self::Resize(size) => put_frame(out, kind::RESIZE, |out| put_size(out, *size)),
            Self::Heartbeat => put_frame(out, kind::HEARTBEAT, |_| ()),
            Self::Done => put_frame(out, kind::DONE, |_| ()),
        }
    }
}

impl<'a> ToAgent<'a> {
    /// Decodes a frame from its kind and payload.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, WireError> {
        Ok(match kind {
            kind::REQUEST => Self::Request(Box::new(get_request(payload)?)),
            kind::FILE => Self::File(payload),
            kind::STDIN => Self::Stdin(payload),
            kind::STDIN_END => empty("end of stdin", payload, Self::StdinEnd)?,
            kind::SIGNAL => whole("signal", payload, |fields| match fields.u8()? {
                number @ 1..=64 => Ok(Self::Signal(number)),
                _ => Err(fields.invalid("number")),
            })?,
            kind::RESIZE => Self::Resize(whole("resize", payload, get_size)?),
            kind::HEARTBEAT => empty("heartbeat", payload, Self::Heartbeat)?,
            kind::DONE => empty("done", payload, Self::Done)?,
            other => return Err(WireError::UnknownKind(other)),
        })
    }
}

impl FromAgent<'_> {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(Hello { agent_version }) => put_frame(out, kind::HELLO, |out| {
                out.extend_from_slice(&MAGIC);
                out.extend_from_slice(&VERSION.to_be_bytes());
                put_bytes(out, agent_version.as_bytes());
            }),
            Self::Started(pid) => put_frame(out, kind::STARTED, |out| out.extend(pid.to_be_bytes())),
            Self::Stdout(data) => put_frame(out, kind::STDOUT, |out| out.extend_from_slice(data)),
            Self::Stderr(data) => put_frame(out, kind::STDERR, |out| out.extend_from_slice(data)),
            Self::Window(bytes) => put_frame(out, kind::WINDOW, |out| out.extend(bytes.to_be_bytes())),
            Self::Heartbeat => put_frame(out, kind::AGENT_HEARTBEAT, |_| ()),
            Self::Notice(text) => put_frame(out, kind::NOTICE, |out| out.extend_from_slice(text.as_bytes())),
            Self::Trailer(trailer) => put_frame(out, kind::TRAILER, |out| put_trailer(out, trailer)),
            Self::Failure(Failure { kind, message }) => put_frame(out, kind::FAILURE, |out| {
                out.push(failure_code(*kind));
                put_bytes(out, message.as_bytes());
            }),
        }
    }
}

impl<'a> FromAgent<'a> {
    /// Decodes a frame from its kind and payload.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, WireError> {
        Ok(match kind {
            kind::HELLO => Self::Hello(whole("hello", payload, get_hello)?),
            kind::STARTED => Self::Started(whole("started", payload, Fields::u32)?),
            kind::STDOUT => Self::Stdout(payload),
            kind::STDERR => Self::Stderr(payload),
            kind::WINDOW => Self::Window(whole("window", payload, Fields::u32)?),
            kind::AGENT_HEARTBEAT => empty("heartbeat", payload, Self::Heartbeat)?,
            kind::NOTICE => {
                let text = std::str::from_utf8(payload);
                Self::Notice(text.map_err(|_| WireError::Invalid { frame: "notice", field: "text" })?)
            }
            kind::TRAILER => Self::Trailer(whole("trailer", payload, get_trailer)?),
            kind::FAILURE => Self::Failure(whole("failure", payload, |fields| {
                let kind = failure_kind(fields.u8()?).ok_or_else(|| fields.invalid("kind"))?;
                Ok(Failure { kind, message: fields.text("message")? })
            })?),
            other => return Err(WireError::UnknownKind(other)),
        })
    }
}

fn whole<'a, T>(
    frame: &'static str,
    payload: &'a [u8],
    read: impl FnOnce(&mut Fields<'a>) -> Result<T, WireError>,
) -> Result<T, WireError> {
    let mut fields = Fields::new(frame, payload);
    let value = read(&mut fields)?;
    fields.end()?;
    Ok(value)
}

fn empty<T>(frame: &'static str, payload: &[u8], value: T) -> Result<T, WireError> {
    whole(frame, payload, |_| Ok(value))
}

fn put_size(out: &mut Vec<u8>, TerminalSize { rows, columns }: TerminalSize) {
    out.extend_from_slice(&rows.to_be_bytes());
    out.extend_from_slice(&columns.to_be_bytes());
}

fn get_size(fields: &mut Fields<'_>) -> Result<TerminalSize, WireError> {
    Ok(TerminalSize { rows: fields.u16()?, columns: fields.u16()? })
}

fn put_pairs(out: &mut Vec<u8>, pairs: &[(Vec<u8>, Vec<u8>)]) {
    put_count(out, pairs.len());
    for (name, value) in pairs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_request(out: &mut Vec<u8>, request: &Request) {
    let Request {
        argv,
        env,
        secret_env,
        credentials,
        login,
        workdir,
        files,
        stdin,
        terminal,
        timeout_ms,
        claimed_user,
    } = request;
    out.extend_from_slice(&VERSION.to_be_bytes());
    put_count(out, argv.len());
    for argument in argv {
        put_bytes(out, argument);
    }
    put_pairs(out, env);
    put_pairs(out, secret_env);
    out.push(u8::from(*credentials));
    put_login(out, login.as_ref());
    out.push(u8::from(workdir.is_some()));
    put_bytes(out, workdir.as_deref().unwrap_or_default());
    put_count(out, files.len());
    for FileSpec { path, size } in files {
        put_bytes(out, path);
        out.extend_from_slice(&size.to_be_bytes());
    }
    out.push(u8::from(*stdin));
    out.push(u8::from(terminal.is_some()));
    put_size(out, terminal.unwrap_or(TerminalSize { rows: 0, columns: 0 }));
    out.extend_from_slice(&timeout_ms.to_be_bytes());
    put_bytes(out, claimed_user.as_bytes());
}

fn put_login(out: &mut Vec<u8>, login: Option<&Login>) {
    out.push(u8::from(login.is_some()));
    let Some(Login { provider, attempts, interval_ms }) = login else { return };
    out.push(u8::from(provider.is_some()));
    put_bytes(out, provider.as_deref().unwrap_or_default().as_bytes());
    out.push(*attempts);
    out.extend_from_slice(&interval_ms.to_be_bytes());
}

fn get_login(fields: &mut Fields<'_>) -> Result<Option<Login>, WireError> {
    if !fields.flag("login")? {
        return Ok(None);
    }
    let named = fields.flag("login")?;
    let provider = fields.text("login")?;
    let login =
        Login { provider: named.then_some(provider), attempts: fields.u8()?, interval_ms: fields.u64()? };
    if login.attempts == 0 { Err(fields.invalid("login")) } else { Ok(Some(login)) }
}

fn get_request(payload: &[u8]) -> Result<Request, WireError> {
    let mut fields = Fields::new("request", payload);
    let version = fields.u16()?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let argv = fields.list(Fields::bytes)?;
    let env = fields.list(|fields| Ok((fields.bytes()?, fields.bytes()?)))?;
    let secret_env = fields.list(|fields| Ok((fields.bytes()?, fields.bytes()?)))?;
    let credentials = fields.flag("credentials")?;
    let login = get_login(&mut fields)?;
    let has_workdir = fields.flag("workdir")?;
    let workdir = fields.bytes()?;
    let files = fields.list(|fields| Ok(FileSpec { path: fields.bytes()?, size: fields.u64()? }))?;
    let stdin = fields.flag("stdin")?;
    let has_terminal = fields.flag("terminal")?;
    let size = get_size(&mut fields)?;
    let timeout_ms = fields.u64()?;
    let claimed_user = fields.text("user")?;
    if argv.first().is_none_or(Vec::is_empty) {
        return Err(fields.invalid("command"));
    }
    let nul = |bytes: &[u8]| bytes.contains(&0);
    if argv.iter().any(|argument| nul(argument))
        || files.iter().any(|file| nul(&file.path) || file.path.is_empty())
        || nul(&workdir)
    {
        return Err(fields.invalid("path or argument (a NUL byte)"));
    }
    let named = |(name, value): &(Vec<u8>, Vec<u8>)| {
        !name.is_empty() && !name.contains(&b'=') && !nul(name) && !nul(value)
    };
    if !env.iter().chain(&secret_env).all(named) {
        return Err(fields.invalid("environment variable"));
    }
    fields.end()?;
    Ok(Request {
        argv,
        env,
        secret_env,
        credentials,
        login,
        workdir: has_workdir.then_some(workdir),
        files,
        stdin,
        terminal: has_terminal.then_some(size),
        timeout_ms,
        claimed_user,
    })
}

fn get_hello(fields: &mut Fields<'_>) -> Result<Hello, WireError> {
    let magic = fields.take(MAGIC.len())?;
    if magic != MAGIC {
        return Err(WireError::NotAnAgent(String::from_utf8_lossy(magic).into_owned()));
    }
    let version = fields.u16()?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    Ok(Hello { agent_version: fields.text("version")? })
}

fn put_trailer(out: &mut Vec<u8>, trailer: &Trailer) {
    let Trailer { outcome, stdout_bytes, stderr_bytes, stdout_hash, stderr_hash, left_behind } = trailer;
    out.extend_from_slice(&match outcome {
        Outcome::Exited(code) => [0, *code],
        Outcome::Signaled(number) => [1, *number],
        Outcome::TimedOut => [2, 0],
    });
    out.extend_from_slice(&stdout_bytes.to_be_bytes());
    out.extend_from_slice(&stderr_bytes.to_be_bytes());
    out.extend_from_slice(stdout_hash);
    out.extend_from_slice(stderr_hash);
    out.extend_from_slice(&left_behind.to_be_bytes());
}

fn get_trailer(fields: &mut Fields<'_>) -> Result<Trailer, WireError> {
    let outcome = match (fields.u8()?, fields.u8()?) {
        (0, code) => Outcome::Exited(code),
        (1, number) => Outcome::Signaled(number),
        (2, 0) => Outcome::TimedOut,
        _ => return Err(fields.invalid("outcome")),
    };
    Ok(Trailer {
        outcome,
        stdout_bytes: fields.u64()?,
        stderr_bytes: fields.u64()?,
        stdout_hash: fields.hash()?,
        stderr_hash: fields.hash()?,
        left_behind: fields.u32()?,
    })
}

const FAILURES: [FailureKind; 8] = [
    FailureKind::NotFound,
    FailureKind::PermissionDenied,
    FailureKind::BadRequest,
    FailureKind::File,
    FailureKind::Workdir,
    FailureKind::Credential,
    FailureKind::Login,
    FailureKind::System,
];

fn failure_code(kind: FailureKind) -> u8 {
    kind as u8
}

fn failure_kind(code: u8) -> Option<FailureKind> {
    FAILURES.get(usize::from(code)).copied()
}

#[cfg(test)]
mod tests;
