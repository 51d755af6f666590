//! The frames of both directions.

mod codec;

/// A terminal's size in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A file that is staged for the command and removed when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Where it lies for the command.
    pub path: Vec<u8>,
    /// Length in bytes; its content follows the request in [`ToAgent::File`] frames, file after file.
    pub size: u64,
}

/// A login to a cloud that comes before the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The cloud; without it, the one that the pod is set up for, if the command is that cloud's tool.
    pub provider: Option<String>,
    /// How often it is tried; at least once.
    pub attempts: u8,
    /// Milliseconds between two attempts.
    pub interval_ms: u64,
}

/// What the agent is asked to run. It travels as a frame so that no part of it is in an argv or an audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The command and its arguments; never empty.
    pub argv: Vec<Vec<u8>>,
    /// Variables added to the command's environment.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The same, for values that are secret: redacted from the output in all their forms.
    pub secret_env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the command also gets the credentials mounted into the pod.
    pub credentials: bool,
    /// What it is logged in to first; nothing when absent.
    pub login: Option<Login>,
    /// The directory it starts in; the agent's own when absent.
    pub workdir: Option<Vec<u8>>,
    /// Files staged for it.
    pub files: Vec<FileSpec>,
    /// Whether stdin frames will come; otherwise the command reads an empty stdin.
    pub stdin: bool,
    /// Gives the command a terminal of this size.
    pub terminal: Option<TerminalSize>,
    /// Ends the command after this many milliseconds; 0 for never.
    pub timeout_ms: u64,
    /// Who the client says it is; marked as claimed in the audit line.
    pub claimed_user: String,
}

/// What the client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToAgent<'a> {
    /// The first frame.
    Request(Box<Request>),
    /// Content of the files announced in the request, one after the other.
    File(&'a [u8]),
    /// Bytes for the command's stdin, within the window granted.
    Stdin(&'a [u8]),
    /// End of the command's stdin.
    StdinEnd,
    /// A signal number for the command's process group.
    Signal(u8),
    /// The client's terminal has this size now.
    Resize(TerminalSize),
    /// The client is there.
    Heartbeat,
    /// The client has the trailer; the agent may go.
    Done,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this code.
    Exited(u8),
    /// A signal of this number ended it.
    Signaled(u8),
    /// It ran into the time-out of the request and was ended.
    TimedOut,
}

/// Ends the output: only with it is the output whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// How the command ended.
    pub outcome: Outcome,
    /// Bytes of stdout sent.
    pub stdout_bytes: u64,
    /// Bytes of stderr sent.
    pub stderr_bytes: u64,
    /// BLAKE3 over stdout's bytes as sent.
    pub stdout_hash: [u8; 32],
    /// BLAKE3 over stderr's bytes as sent.
    pub stderr_hash: [u8; 32],
    /// Processes that the command left behind and that were ended with it.
    pub left_behind: u32,
}

/// Why a command was never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No such program.
    NotFound,
    /// The program may not be executed.
    PermissionDenied,
    /// The request or its frames are not right.
    BadRequest,
    /// A file could not be staged.
    File,
    /// The working directory does not serve.
    Workdir,
    /// A mounted credential cannot be used.
    Credential,
    /// The login to a cloud failed.
    Login,
    /// Anything else the system refused.
    System,
}

/// The command was never started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The class.
    pub kind: FailureKind,
    /// What was attempted and why it failed; holds no secret.
    pub message: String,
}

/// The agent's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The agent's release.
    pub agent_version: String,
}

/// What the agent sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAgent<'a> {
    /// The first frame, before anything is read.
    Hello(Hello),
    /// The command runs, with this process id in the pod.
    Started(u32),
    /// Bytes of the command's stdout (of its terminal, when it has one).
    Stdout(&'a [u8]),
    /// Bytes of its stderr.
    Stderr(&'a [u8]),
    /// The client may send this many more bytes of stdin.
    Window(u32),
    /// The agent is there.
    Heartbeat,
    /// What takes its time before the command starts; for people, and holds no secret.
    Notice(&'a str),
    /// The last frame of a command that ran.
    Trailer(Trailer),
    /// The last frame when none ran.
    Failure(Failure),
}
