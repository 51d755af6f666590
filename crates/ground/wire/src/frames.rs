//! The frames of both directions.

mod codec;

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A file that is staged for the command and removed when the command has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Its path for the command.
    pub path: Vec<u8>,
    /// Length in bytes; its content follows the request in [`ToAgent::File`] frames, file by file.
    pub size: u64,
}

/// A login to a cloud before the command starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The cloud. `None` means the cloud that the pod is set up for, if the command is that cloud's tool.
    pub provider: Option<String>,
    /// The number of attempts; at least 1.
    pub attempts: u8,
    /// Milliseconds between two attempts.
    pub interval_ms: u64,
}

/// What the agent should run. It is sent as a frame so that no part of it is in an argv or an audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The command and its arguments; never empty.
    pub argv: Vec<Vec<u8>>,
    /// Variables added to the command's environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Secret variables. Their values are redacted from the output in all their encodings.
    pub secret_env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the command also gets the credentials mounted into the pod.
    pub credentials: bool,
    /// The login that comes first, if any.
    pub login: Option<Login>,
    /// The working directory; `None` for the agent's own.
    pub workdir: Option<Vec<u8>>,
    /// Files staged for it.
    pub files: Vec<FileSpec>,
    /// Whether stdin frames will follow. If not, the command's stdin is empty.
    pub stdin: bool,
    /// Allocates a terminal of this size.
    pub terminal: Option<TerminalSize>,
    /// The time limit in milliseconds; 0 for none.
    pub timeout_ms: u64,
    /// The user name that the client claims; the audit line marks it as claimed.
    pub claimed_user: String,
}

/// Frames from the client to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToAgent<'a> {
    /// The first frame.
    Request(Box<Request>),
    /// Content of the files announced in the request, one after the other.
    File(&'a [u8]),
    /// Bytes for the command's stdin, within the granted window.
    Stdin(&'a [u8]),
    /// End of the command's stdin.
    StdinEnd,
    /// A signal for the command's process group.
    Signal(u8),
    /// The new size of the client's terminal.
    Resize(TerminalSize),
    /// The client is alive.
    Heartbeat,
    /// The client has received the trailer; the agent may exit.
    Done,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this code.
    Exited(u8),
    /// It was ended by this signal.
    Signaled(u8),
    /// It reached the time limit of the request and was ended.
    TimedOut,
}

/// Ends the output. Without it, the output is incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// How the command ended.
    pub outcome: Outcome,
    /// Bytes of stdout sent.
    pub stdout_bytes: u64,
    /// Bytes of stderr sent.
    pub stderr_bytes: u64,
    /// BLAKE3 of stdout as sent.
    pub stdout_hash: [u8; 32],
    /// BLAKE3 of stderr as sent.
    pub stderr_hash: [u8; 32],
    /// Processes that the command left behind and that were ended with it.
    pub left_behind: u32,
}

/// Why a command was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No such program.
    NotFound,
    /// The program is not executable.
    PermissionDenied,
    /// The request or its frames are invalid.
    BadRequest,
    /// A file could not be staged.
    File,
    /// The working directory is not usable.
    Workdir,
    /// A mounted credential cannot be used.
    Credential,
    /// The login to a cloud failed.
    Login,
    /// Any other error of the system.
    System,
}

/// The command was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The class.
    pub kind: FailureKind,
    /// What was attempted and why it failed; contains no secret.
    pub message: String,
}

/// The agent's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The agent's release.
    pub agent_version: String,
}

/// Frames from the agent to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent<'a> {
    /// The first frame, sent before anything is read.
    Hello(Hello),
    /// The command is running, with this process id in the pod.
    Started(u32),
    /// Bytes of the command's stdout, or of its terminal if it has one.
    Stdout(&'a [u8]),
    /// Bytes of its stderr.
    Stderr(&'a [u8]),
    /// The client may send this many more bytes of stdin.
    Window(u32),
    /// The agent is alive.
    Heartbeat,
    /// Reports a slow step before the command starts, for users. Contains no secret.
    Notice(&'a str),
    /// The last frame after a command ran.
    Trailer(Trailer),
    /// The last frame when no command ran.
    Failure(Failure),
}
