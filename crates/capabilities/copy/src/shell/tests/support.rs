//! Shells of this machine as far ends, with the same client as in a cluster.

use crate::channel::OpenEnd;
use crate::ends::{self, End};
use crate::ledger::{Done, Ledger, Observer, Tally};
use crate::rate_limit::RateLimit;
use crate::relay::{RelayError, relay};
use bytes::Bytes;
use postern_shell::{LOOP, ResumeMarks, Session, TransferMode};
use postern_wire::copy::{
    Compare, Compression, CopyRequest, Delete, Fate, Limits, Owner, ReceiveSpec, SendSpec,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// Shells that a container may have: `sh`, and busybox if it exists.
pub(super) fn shells() -> Vec<Vec<String>> {
    let mut shells = vec![vec!["sh".to_owned()]];
    let paths = std::env::var("PATH").unwrap_or_default();
    let busybox = paths.split(':').map(|path| Path::new(path).join("busybox")).find(|path| path.exists());
    shells.extend(busybox.map(|path| vec![path.to_string_lossy().into_owned(), "sh".to_owned()]));
    shells
}

/// A shell, its transfer mode, and what it executes first.
#[derive(Clone)]
pub(super) struct Far {
    pub(super) shell: Vec<String>,
    pub(super) way: TransferMode,
    /// The tool for hashes; "-" for none.
    pub(super) sum: Option<&'static str>,
    pub(super) first: &'static str,
    /// Bytes sent to the shell.
    pub(super) sent: Arc<AtomicU64>,
    /// Bytes received from the shell.
    pub(super) came: Arc<AtomicU64>,
    pub(super) marks: ResumeMarks,
}

pub(super) const SHELL: TransferMode = TransferMode { tar: false, verify: true };
pub(super) const TAR: TransferMode = TransferMode { tar: true, verify: true };

impl Far {
    pub(super) fn new(shell: &[String], way: TransferMode) -> Self {
        let sum = if way.verify { None } else { Some("-") };
        Self {
            shell: shell.to_vec(),
            way,
            sum,
            first: "",
            sent: Arc::default(),
            came: Arc::default(),
            marks: ResumeMarks::default(),
        }
    }

    /// With the local `sh`.
    pub(super) fn by(way: TransferMode) -> Self {
        Self::new(&shells()[0], way)
    }

    pub(super) async fn open(&self, request: &CopyRequest) -> OpenEnd {
        let mut command = tokio::process::Command::new(&self.shell[0]);
        command.args(&self.shell[1..]).args(["-c", LOOP]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (to, mut requests) = mpsc::channel::<Bytes>(4);
        let (answers, from) = mpsc::channel(16);
        let (sent, came) = (Arc::clone(&self.sent), Arc::clone(&self.came));
        tokio::spawn(async move {
            while let Some(bytes) = requests.recv().await {
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if stdin.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            let _child = child;
            loop {
                let mut buffer = bytes::BytesMut::with_capacity(32 * 1024);
                let read = stdout.read_buf(&mut buffer).await;
                came.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                match read {
                    Ok(1..) if answers.send(Ok(buffer.freeze())).await.is_ok() => {}
                    _ => break,
                }
            }
            let _ = answers.send(Err("the shell ended".to_owned())).await;
        });
        let mut session = Session::greet(to, from, self.sum).await.unwrap();
        assert_eq!(session.missing(), &[] as &[String]);
        session.queue(self.first.as_bytes());
        crate::shell::end(postern_shell::start(session, self.way, self.marks.clone(), request.clone()))
    }
}

pub(super) enum Side {
    Here,
    There(Far),
}

impl Side {
    async fn open(&self, request: &CopyRequest) -> OpenEnd {
        match self {
            Self::Here => ends::open(&End::Local, request, &mut |_| ()).await.unwrap(),
            Self::There(far) => far.open(request).await,
        }
    }
}

pub(super) fn send(sources: &[&Path]) -> SendSpec {
    SendSpec {
        root: None,
        sources: sources.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
        glob: true,
        contents: false,
        rules: Vec::new(),
        dereference: false,
        compression: Compression::Auto,
        limits: Limits::default(),
    }
}

pub(super) fn receive(target: &Path) -> ReceiveSpec {
    ReceiveSpec {
        root: None,
        target: target.as_os_str().as_bytes().to_vec(),
        directory: false,
        named: false,
        parents: false,
        compare: Compare::Verify,
        delta: false,
        update: false,
        delete: Delete::Nothing,
        dry_run: false,
        inplace: false,
        preserve: false,
        owner: Owner::default(),
        unsafe_links: false,
        specials: false,
        clean: false,
        rules: Vec::new(),
        limits: Limits::default(),
    }
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) done: BTreeMap<Vec<u8>, Done>,
    deleted: Vec<Vec<u8>>,
}

impl Observer for Seen {
    fn done(&mut self, done: &Done) {
        self.done.insert(done.path.clone(), done.clone());
    }
    fn deleted(&mut self, path: &[u8]) {
        self.deleted.push(path.to_vec());
    }
    fn progress(&mut self, _: &Tally) {}
    fn notice(&mut self, _: &str) {}
    fn detail(&mut self, _: &str) {}
}

impl Seen {
    pub(super) fn fate(&self, path: &str) -> (Fate, &str) {
        let done =
            self.done.get(path.as_bytes()).unwrap_or_else(|| panic!("{path} in {:?}", self.done.keys()));
        (done.fate, &done.note)
    }
}

/// Runs one copy until it ends.
pub(super) fn copy(
    from: &Side,
    to: &Side,
    send: &SendSpec,
    receive: &ReceiveSpec,
) -> Result<(Tally, Seen), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut seen = Seen::default();
    let tally = runtime.block_on(async {
        let mut ledger = Ledger::new(&mut seen, None);
        let mut source = from.open(&CopyRequest::Send(send.clone())).await;
        let mut destination = to.open(&CopyRequest::Receive(receive.clone())).await;
        let mut limit = RateLimit::new(None);
        let relayed = {
            let books = RefCell::new(&mut ledger);
            let flow = crate::flow_control::FlowControl::default();
            let relayed = relay(&mut source, &mut destination, &books, &mut limit, &flow);
            tokio::time::timeout(Duration::from_secs(120), relayed).await.unwrap()
        };
        source.close().await;
        destination.close().await;
        match relayed {
            Ok(()) => Ok(ledger.close().0),
            Err(RelayError::Fatal(_, why)) => Err(why),
            Err(RelayError::Lost(_, why)) => Err(format!("lost: {why}")),
        }
    });
    tally.map(|tally| (tally, seen))
}

pub(super) fn random(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count.div_ceil(8)).flat_map(|_| next()).take(count).collect()
}

/// A tree with one of each type that these ways preserve.
pub(super) fn torture(root: &Path) {
    let name = |bytes: &[u8]| root.join(OsString::from_vec(bytes.to_vec()));
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for (path, content) in [
        (&b"a/zero"[..], Vec::new()),
        (b"a/small", b"hello".to_vec()),
        (b"a/random", random(2_500_001)),
        (b" -rf", b"1".to_vec()),
        (b"new\nline \x1b[2J\n", b"2".to_vec()),
        (b"not \xff utf-8", b"3".to_vec()),
        (&[b'n'; 255], b"4".to_vec()),
        (b"quote's $(x) `y` \\ \"z\" %s", b"5\n/\n".to_vec()),
        (b"*", b"6".to_vec()),
    ] {
        fs::write(name(path), content).unwrap();
    }
    for number in 0..40 {
        fs::write(root.join(format!("a/b/file-{number}")), format!("content of {number}")).unwrap();
    }
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    sparse.write_all_at(b"in the middle", 2_000_000).unwrap();
    symlink("small", root.join("a/link")).unwrap();
    symlink("../a/b", root.join("a/up")).unwrap();
    symlink("nowhere\n", root.join("dangling")).unwrap();
    fs::hard_link(root.join("a/small"), root.join("other-name")).unwrap();
    fs::set_permissions(root.join("a/small"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(root.join("a/b"), fs::Permissions::from_mode(0o555)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for path in ["a/small", "a/b", "a", "empty", ""] {
        fs::File::open(root.join(path)).unwrap().set_modified(old).unwrap();
    }
}

/// Everything that a copy preserves of a tree, by path.
pub(super) fn tree(root: &Path, nanos: bool) -> BTreeMap<Vec<u8>, String> {
    let (mut all, mut waiting) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = waiting.pop() {
        let meta = path.symlink_metadata().unwrap();
        let kind = if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", path.read_link().unwrap().display())
        } else {
            let hash = blake3::hash(&fs::read(&path).unwrap());
            format!("{} links, {} bytes, {hash}", meta.nlink(), meta.len())
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        let nanos = if nanos { meta.mtime_nsec() } else { 0 };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        all.insert(name, format!("{mode:o} {}.{nanos} {kind}", meta.mtime()));
    }
    all
}

#[track_caller]
pub(super) fn alike(want: &BTreeMap<Vec<u8>, String>, got: &BTreeMap<Vec<u8>, String>) {
    for (path, text) in want {
        assert_eq!(got.get(path), Some(text), "{}", path.escape_ascii());
    }
    assert_eq!(got.len(), want.len());
}
