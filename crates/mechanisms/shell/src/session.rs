//! A session with a shell. Requests are lines; answers are lines, or bytes up to an unpredictable mark.

use super::checksum::Tool;
use super::quoting::cause;
use crate::error::ShellError;
use bytes::{Bytes, BytesMut};
use postern_files::name::show;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// The loop that reads requests. The first request defines the functions and the mark. A line that does not
/// start with the mark is not a request: otherwise, content left in the stream after a failure would be
/// executed.
pub const LOOP: &str = r#"IFS= read -r l && eval "$l"
while IFS= read -r l; do case $l in "$N "*) eval "${l#* }" ;; esac; done; bye "$@""#;

const SERVER: &str = concat!(local_mounts!(), include_str!("server.sh"));

/// Maximum length of an answer kept in memory, such as a directory listing.
const MOST: usize = 256 * 1024 * 1024;

/// Maximum length of the line after the mark.
const TAIL: usize = 64 * 1024;

/// Bytes of requests that are collected.
const FULL: usize = 256 * 1024;

/// The session ended; the reason.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) String);

/// Output of the shell.
pub type ShellOutput = Result<Bytes, String>;

/// The container's tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tools {
    pub(crate) sum: Option<Tool>,
    pub(crate) tar: bool,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    /// Names of missing tools.
    pub(crate) missing: Vec<String>,
    /// Writable directories.
    pub(crate) writable: Vec<String>,
}

impl Tools {
    /// Parses `hello SUM TAR UID GID| MISSING…| WRITABLE…`.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?.strip_prefix("hello ")?;
        let (fields, words) = text.split_once('|')?;
        let (missing, writable) = words.split_once('|')?;
        let words = |words: &str| -> Vec<String> {
            words.split_ascii_whitespace().map(|word| show(word.as_bytes()).into_owned()).collect()
        };
        let fields: Vec<&str> = fields.split(' ').collect();
        let [sum, tar, user, group] = fields[..] else { return None };
        Some(Self {
            sum: Tool::named(sum),
            tar: tar == "tar",
            user: user.parse().ok(),
            group: group.parse().ok(),
            missing: words(missing),
            writable: words(writable),
        })
    }

    /// Describes an error, with the user that was refused.
    pub(crate) fn explain(&self, attempt: &str, said: &[u8]) -> String {
        let cause = cause(said);
        let who = match (self.user, self.group) {
            (Some(user), Some(group)) => format!(" as uid {user}, gid {group}"),
            _ => String::new(),
        };
        match cause.as_str() {
            "Permission denied" | "Operation not permitted" | "Read-only file system" => {
                let writable = match &self.writable[..] {
                    [] => String::new(),
                    places => format!("; writable here: {}", places.join(", ")),
                };
                format!("{attempt}: {cause}{who}{writable}")
            }
            "Device or resource busy" | "Resource busy" => format!(
                "{attempt}: {cause}; it is a mount point and cannot be replaced, only written to with --inplace"
            ),
            _ => format!("{attempt}: {cause}"),
        }
    }
}

/// What became ready first while sending.
enum Turn {
    Sent,
    Gone,
    Received(Option<ShellOutput>),
}

/// A part of an answer that consists of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Bytes),
    /// The line after the mark.
    End(Bytes),
}

/// A session with a container's shell.
pub struct Session {
    to: mpsc::Sender<Bytes>,
    /// Bytes sent since the last read of this counter.
    pub(crate) sent: Arc<AtomicU64>,
    from: mpsc::Receiver<ShellOutput>,
    outgoing: Vec<u8>,
    buffer: BytesMut,
    pub(crate) mark: String,
    pub(crate) tools: Tools,
}

impl Session {
    /// Required tools that the container lacks.
    pub fn missing(&self) -> &[String] {
        &self.tools.missing
    }

    /// Starts a session with a shell that runs [`LOOP`].
    pub async fn greet(
        to: mpsc::Sender<Bytes>,
        from: mpsc::Receiver<ShellOutput>,
        sum: Option<&str>,
    ) -> Result<Self, ShellError> {
        let nothing = Tools {
            sum: None,
            tar: false,
            user: None,
            group: None,
            missing: Vec::new(),
            writable: Vec::new(),
        };
        let mark = mark()
            .ok_or_else(|| ShellError::Session("this machine provides no random numbers".to_owned()))?;
        let (outgoing, buffer) = (Vec::new(), BytesMut::new());
        let mut session = Self { to, sent: Arc::default(), from, outgoing, buffer, mark, tools: nothing };
        let mut line = Vec::new();
        super::quoting::assign(&mut line, 'a', SERVER.as_bytes());
        let hello = format!("eval \"$a\";hello {} '{}'\n", session.mark, sum.unwrap_or_default());
        line.extend_from_slice(hello.as_bytes());
        session.content(&line);
        let answer = session.line().await.map_err(|Lost(why)| ShellError::Session(why))?;
        session.tools = Tools::parse(&answer).ok_or_else(|| {
            ShellError::Session(format!("unexpected answer of its shell: {}", cause(&answer)))
        })?;
        Ok(session)
    }

    /// Queues requests, one per line.
    pub fn queue(&mut self, requests: &[u8]) {
        for line in requests.split_inclusive(|byte| *byte == b'\n') {
            self.outgoing.extend_from_slice(self.mark.as_bytes());
            self.outgoing.push(b' ');
            self.outgoing.extend_from_slice(line);
        }
    }

    /// Marks the content of the last streaming request as complete.
    pub(crate) fn confirm_stream(&mut self) {
        self.queue(b"\n");
    }

    /// Queues content for the previous request.
    pub(crate) fn content(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Flushes if much is queued.
    pub(crate) async fn flush_if_large(&mut self) -> Result<(), Lost> {
        if self.outgoing.len() >= FULL { self.flush().await } else { Ok(()) }
    }

    /// Sends what is queued. Buffers answers that arrive meanwhile, so that neither side blocks the other.
    pub(crate) async fn flush(&mut self) -> Result<(), Lost> {
        let queue = std::mem::take(&mut self.outgoing);
        for piece in queue.chunks(7 * postern_wire::CHUNK) {
            loop {
                let turn = tokio::select! {
                    permit = self.to.reserve() => match permit {
                        Ok(permit) => {
                            permit.send(Bytes::copy_from_slice(piece));
                            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                            Turn::Sent
                        }
                        Err(_) => Turn::Gone,
                    },
                    received = self.from.recv() => Turn::Received(received),
                };
                match turn {
                    Turn::Sent => break,
                    Turn::Gone => return Err(self.loss_reason().await),
                    Turn::Received(received) => self.take(received)?,
                }
            }
        }
        Ok(())
    }

    /// The reason why the shell stopped reading, which is in its last output.
    async fn loss_reason(&mut self) -> Lost {
        loop {
            let received = self.from.recv().await;
            if let Err(lost) = self.take(received) {
                return lost;
            }
        }
    }

    fn take(&mut self, received: Option<ShellOutput>) -> Result<(), Lost> {
        match received {
            Some(Ok(bytes)) => {
                self.buffer.extend_from_slice(&bytes);
                Ok(())
            }
            Some(Err(why)) => Err(Lost(why)),
            None => Err(Lost("the shell ended".to_owned())),
        }
    }

    async fn fill(&mut self) -> Result<(), Lost> {
        if !self.outgoing.is_empty() {
            self.flush().await?;
        }
        let received = self.from.recv().await;
        self.take(received)
    }

    /// The next line. Cancel-safe.
    pub(crate) async fn line(&mut self) -> Result<Bytes, Lost> {
        let mut seen = 0;
        loop {
            if let Some(line) = self.line_here(seen) {
                return Ok(line);
            }
            seen = self.buffer.len();
            if seen > MOST {
                return Err(Lost("an answer that is too long".to_owned()));
            }
            self.fill().await?;
        }
    }

    /// The next line, if complete; no line ends before `seen`.
    fn line_here(&mut self, seen: usize) -> Option<Bytes> {
        let at = seen + self.buffer[seen..].iter().position(|byte| *byte == b'\n')?;
        Some(self.buffer.split_to(at + 1).freeze().slice(..at))
    }

    /// An answer of one line, `ok …` or `no …`.
    pub(crate) async fn answer(&mut self) -> Result<Result<Bytes, Bytes>, Lost> {
        require_answer(&self.line().await?)
    }

    /// An answer that has already arrived.
    pub(crate) fn answered(&mut self) -> Result<Option<Result<Bytes, Bytes>>, Lost> {
        while let Ok(received) = self.from.try_recv() {
            self.take(Some(received))?;
        }
        self.line_here(0).map(|line| require_answer(&line)).transpose()
    }

    /// Sends a request and waits for the answer; no other answer may be pending.
    pub(crate) async fn ask(&mut self, line: &[u8]) -> Result<Result<Bytes, Bytes>, Lost> {
        self.queue(line);
        self.answer().await
    }

    /// The next part of an answer that consists of bytes.
    pub(crate) async fn piece(&mut self) -> Result<Piece, Lost> {
        let mark = format!("\n/{} ", self.mark);
        loop {
            match end_of(&self.buffer, mark.as_bytes()) {
                Some(0) => {
                    let line = self.buffer.split().freeze();
                    return Ok(Piece::End(line.slice(mark.len()..line.len() - 1)));
                }
                Some(at) => return Ok(Piece::Bytes(self.buffer.split_to(at).freeze())),
                None => {}
            }
            if self.buffer.len() > 2 * TAIL {
                let ready = self.buffer.len() - TAIL;
                return Ok(Piece::Bytes(self.buffer.split_to(ready).freeze()));
            }
            self.fill().await?;
        }
    }

    /// A whole answer that consists of bytes, and whether it is a success.
    pub(crate) async fn whole(&mut self) -> Result<Result<Vec<u8>, Bytes>, Lost> {
        let mut all = Vec::new();
        loop {
            match self.piece().await? {
                Piece::Bytes(bytes) if all.len() + bytes.len() > MOST => {
                    return Err(Lost("an answer without an end".to_owned()));
                }
                Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
                Piece::End(end) => {
                    return Ok(require_answer(&end)?.map(|_| all));
                }
            }
        }
    }
}

/// Parses a line that must be an answer.
fn require_answer(line: &Bytes) -> Result<Result<Bytes, Bytes>, Lost> {
    parse_answer(line).ok_or_else(|| Lost(format!("unexpected answer of the shell: {}", cause(line))))
}

/// Parses `ok …` or `no …`.
pub(crate) fn parse_answer(line: &Bytes) -> Option<Result<Bytes, Bytes>> {
    let rest = |from: usize| line.slice(line.len().min(from)..);
    match line.get(..2)? {
        b"ok" => Some(Ok(rest(3))),
        b"no" => Some(Err(rest(3))),
        _ => None,
    }
}

/// The offset of the mark if the received bytes end with it and its line: nothing follows before the next
/// request.
fn end_of(buffer: &[u8], mark: &[u8]) -> Option<usize> {
    if buffer.last() != Some(&b'\n') || buffer.len() < mark.len() {
        return None;
    }
    let from = buffer.len().saturating_sub(TAIL);
    let found = buffer[from..].windows(mark.len()).rposition(|window| window == mark)?;
    Some(from + found)
}

/// A random string that no file in the container contains by chance.
fn mark() -> Option<String> {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(super::checksum::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::{LOOP, SERVER};
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    /// The shell of a lost connection may end after the next one has hashed the partial file.
    #[test]
    fn a_longer_partial_file_is_never_replaced_by_a_shorter_one() {
        let folder = tempfile::tempdir().unwrap();
        for (kept, own, want) in [(30, 20, 30), (20, 30, 30), (20, 20, 20), (0, 20, 20)] {
            let (partial, temporary) = (folder.path().join("r"), folder.path().join("p"));
            let _ = std::fs::remove_file(&partial);
            if kept > 0 {
                std::fs::write(&partial, vec![b'r'; kept]).unwrap();
            }
            std::fs::write(&temporary, vec![b'p'; own]).unwrap();
            let script = format!("{SERVER}\np=$1 r=$2 o=1 k=1 i=; drop keep");
            let mut command = Command::new("sh");
            command.args(["-c", &script, "sh"]).arg(&temporary).arg(&partial);
            assert!(command.status().unwrap().success());
            assert_eq!(std::fs::metadata(&partial).unwrap().len(), want, "{kept} {own}");
            assert!(!temporary.exists());
        }
    }

    /// When nobody reads the output, as after a client is gone, neither the shell nor its commands stay.
    #[test]
    fn streaming_ends_with_its_client() {
        let folder = tempfile::tempdir().unwrap();
        let big = folder.path().join("big");
        std::fs::write(&big, vec![1; 5_000_000]).unwrap();
        let shells: [&[&str]; 4] = [&["sh"], &["dash"], &["bash", "--posix"], &["busybox", "ash"]];
        for (shell, request) in shells.iter().flat_map(|shell| [(shell, "get 0 100"), (shell, "pack \"$a\"")])
        {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).args(["-c", LOOP]).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.stderr(Stdio::null());
            let mut child = match command.spawn() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && **shell != ["sh"] => continue,
                spawned => spawned.unwrap(),
            };
            let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut first = Vec::new();
            super::super::quoting::assign(&mut first, 'a', super::SERVER.as_bytes());
            first.extend_from_slice(b"eval \"$a\";hello mark ''\n");
            first.extend_from_slice(format!("mark a='{}'\nmark {request}\n", big.display()).as_bytes());
            stdin.write_all(&first).unwrap();
            let mut said = [0; 4096];
            assert!(stdout.read(&mut said).unwrap() > 0);
            let (ended, waited) = std::sync::mpsc::channel();
            drop(stdin);
            std::thread::spawn(move || ended.send(child.wait().unwrap()));
            let status = waited.recv_timeout(std::time::Duration::from_secs(20));
            assert!(status.is_ok_and(|status| status.success()), "{shell:?}: {request}");
            // The processes that had the pipe ended with it.
            std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        }
    }

    #[test]
    fn lines_without_the_mark_are_not_executed() {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", LOOP]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut shell = shell.unwrap();
        let lines =
            b"N=mark; bye() { :; }\necho stray\nmark echo asked\nmar echo stray\nmark\n$N echo stray\n";
        shell.stdin.take().unwrap().write_all(lines).unwrap();
        let output = shell.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "asked\n");
    }
}
