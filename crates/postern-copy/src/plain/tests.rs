//! Both directions against the shells of this machine, with the same client between as in a cluster.

use super::session::{LOOP, Session};
use super::{Memory, Way, start};
use crate::ends::{self, End, Opened};
use crate::ledger::{Done, Ledger, Observer, Tally};
use crate::pace::Pace;
use crate::relay::{Broke, relay};
use bytes::Bytes;
use postern_wire::copy::{Ask, Compare, Compression, Fate, Limits, Owner, ReceiveSpec, SendSpec};
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

/// Shells that a container may have: what `sh` is here, and busybox's where there is one.
pub(super) fn shells() -> Vec<Vec<String>> {
    let mut shells = vec![vec!["sh".to_owned()]];
    let paths = std::env::var("PATH").unwrap_or_default();
    let busybox = paths.split(':').map(|path| Path::new(path).join("busybox")).find(|path| path.exists());
    shells.extend(busybox.map(|path| vec![path.to_string_lossy().into_owned(), "sh".to_owned()]));
    shells
}

/// A shell, the way by it, and what it is told first.
#[derive(Clone)]
struct Far {
    shell: Vec<String>,
    way: Way,
    /// The tool that hashes; "-" for none.
    sum: Option<&'static str>,
    first: &'static str,
    /// Bytes that went there.
    sent: Arc<AtomicU64>,
    /// Bytes that came from there.
    came: Arc<AtomicU64>,
    memory: Memory,
}

const SHELL: Way = Way { tar: false, verify: true };
const TAR: Way = Way { tar: true, verify: true };

impl Far {
    fn new(shell: &[String], way: Way) -> Self {
        let sum = if way.verify { None } else { Some("-") };
        Self {
            shell: shell.to_vec(),
            way,
            sum,
            first: "",
            sent: Arc::default(),
            came: Arc::default(),
            memory: Memory::default(),
        }
    }

    /// By what `sh` is here.
    fn by(way: Way) -> Self {
        Self::new(&shells()[0], way)
    }

    async fn open(&self, ask: &Ask) -> Opened {
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
        assert_eq!(session.tools.missing, Vec::<String>::new());
        session.say(self.first.as_bytes());
        start(session, self.way, self.memory.clone(), ask.clone())
    }
}

enum Side {
    Here,
    There(Far),
}

impl Side {
    async fn open(&self, ask: &Ask) -> Opened {
        match self {
            Self::Here => ends::open(&End::Local, ask, &mut |_| ()).await.unwrap(),
            Self::There(far) => far.open(ask).await,
        }
    }
}

fn send(sources: &[&Path]) -> SendSpec {
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

fn receive(target: &Path) -> ReceiveSpec {
    ReceiveSpec {
        root: None,
        target: target.as_os_str().as_bytes().to_vec(),
        directory: false,
        named: false,
        parents: false,
        compare: Compare::Verify,
        delta: false,
        update: false,
        delete: false,
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
struct Seen {
    done: BTreeMap<Vec<u8>, Done>,
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
    fn fate(&self, path: &str) -> (Fate, &str) {
        let done =
            self.done.get(path.as_bytes()).unwrap_or_else(|| panic!("{path} in {:?}", self.done.keys()));
        (done.fate, &done.note)
    }
}

/// One copy to its end.
fn copy(from: &Side, to: &Side, send: &SendSpec, receive: &ReceiveSpec) -> Result<(Tally, Seen), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut seen = Seen::default();
    let tally = runtime.block_on(async {
        let mut ledger = Ledger::new(&mut seen, None);
        let mut source = from.open(&Ask::Send(send.clone())).await;
        let mut destination = to.open(&Ask::Receive(receive.clone())).await;
        let mut pace = Pace::new(None);
        let relayed = {
            let books = RefCell::new(&mut ledger);
            let relayed = relay(&mut source, &mut destination, &books, &mut pace);
            tokio::time::timeout(Duration::from_secs(120), relayed).await.unwrap()
        };
        source.close().await;
        destination.close().await;
        match relayed {
            Ok(()) => Ok(ledger.close().unwrap()),
            Err(Broke::Fatal(_, why)) => Err(why),
            Err(Broke::Lost(_, why)) => Err(format!("lost: {why}")),
        }
    });
    tally.map(|tally| (tally, seen))
}

fn random(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count.div_ceil(8)).flat_map(|_| next()).take(count).collect()
}

/// A tree with one of each kind that these ways keep.
fn torture(root: &Path) {
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

/// Everything that a copy keeps of a tree, by path.
fn tree(root: &Path, nanos: bool) -> BTreeMap<Vec<u8>, String> {
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
fn alike(want: &BTreeMap<Vec<u8>, String>, got: &BTreeMap<Vec<u8>, String>) {
    for (path, text) in want {
        assert_eq!(got.get(path), Some(text), "{}", path.escape_ascii());
    }
    assert_eq!(got.len(), want.len());
}

#[test]
fn a_tree_of_every_kind_goes_round_by_every_shell() {
    for shell in shells() {
        for way in [SHELL, TAR] {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            torture(&at("tree"));
            let far = || Side::There(Far::new(&shell, way));
            let (tally, seen) =
                copy(&Side::Here, &far(), &send(&[&at("tree")]), &receive(&at("up"))).unwrap();
            assert!(tally.is_whole() && tally.unverified == 0, "{:?}", seen.done);
            let (tally, seen) =
                copy(&far(), &Side::Here, &send(&[&at("up")]), &receive(&at("back"))).unwrap();
            assert!(tally.is_whole(), "{:?}", seen.done);
            // busybox sets whole seconds.
            let nanos = shell.len() == 1;
            alike(&tree(&at("tree"), nanos), &tree(&at("back"), nanos));
            assert!(fs::metadata(at("up/sparse")).unwrap().blocks() * 512 < 4_000_000);
            // Again: nothing is written, and little is sent.
            for (from, to) in [("tree", "up"), ("up", "back")] {
                let there = Far::new(&shell, way);
                let (source, destination) = match from {
                    "tree" => (Side::Here, Side::There(there.clone())),
                    _ => (Side::There(there.clone()), Side::Here),
                };
                let (from, to) = (at(from).join("."), at(to));
                let (tally, _) = copy(&source, &destination, &send(&[&from]), &receive(&to)).unwrap();
                assert_eq!((tally.written, tally.same), (0, 50), "{from:?}");
                assert!(there.sent.load(Ordering::Relaxed) < 100_000, "{:?}", there.sent);
            }
            alike(&tree(&at("tree"), nanos), &tree(&at("back"), nanos));
        }
    }
}

#[test]
fn from_shell_to_shell_and_without_a_tool_that_hashes() {
    for way in [SHELL, TAR] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        torture(&at("tree"));
        let far = Far { sum: Some("-"), ..Far::by(way) };
        let sides = (Side::There(far.clone()), Side::There(far));
        let (tally, _) = copy(&sides.0, &sides.1, &send(&[&at("tree")]), &receive(&at("there"))).unwrap();
        assert!(tally.is_whole() && tally.written == 50 && tally.unverified == 0, "{tally:?}");
        alike(&tree(&at("tree"), true), &tree(&at("there"), true));
    }
}

#[test]
fn what_was_not_verified_is_never_called_so() {
    for tar in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        torture(&at("tree"));
        let far = Side::There(Far::by(Way { tar, verify: false }));
        let (tally, seen) = copy(&Side::Here, &far, &send(&[&at("tree")]), &receive(&at("there"))).unwrap();
        assert_eq!((tally.written, tally.unverified, tally.is_whole()), (0, 50, true));
        let small = &seen.done[&b"tree/a/random"[..]];
        assert_eq!((small.hash, small.note.as_str()), (None, "not verified"));
    }
}

/// Names of ours that are left in a directory.
fn left(folder: &Path) -> Vec<OsString> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    all.filter(|name| name.as_bytes().ends_with(b".postern-partial")).collect()
}

#[test]
fn what_breaks_on_its_way_gets_no_name() {
    // Content is lost; the hash is another; the archive is not unpacked; it cannot be renamed.
    for (way, first, says) in [
        (SHELL, "put() { dd bs=$1 count=1 iflag=fullblock >/dev/null 2>&1; }\n", "hash differs"),
        (SHELL, "sum() { h=0; }\n", "hash differs"),
        (
            TAR,
            "tar() { cat >/dev/null; echo tar: No space left on device >&2; return 1; }\n",
            "No space left",
        ),
        (TAR, "mv() { echo mv: Read-only file system >&2; return 1; }\n", "Read-only file system as uid"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("there")).unwrap();
        fs::write(at("a"), "new").unwrap();
        fs::write(at("b"), "more").unwrap();
        fs::write(at("there/b"), "old").unwrap();
        let far = Side::There(Far { first, ..Far::by(way) });
        let (tally, seen) =
            copy(&Side::Here, &far, &send(&[&at("a"), &at("b")]), &receive(&at("there"))).unwrap();
        assert_eq!((tally.failed, tally.written), (2, 0), "{first}");
        let (fate, note) = seen.fate("a");
        assert!(fate == Fate::Failed && note.contains(says), "{first}: {note}");
        assert!(!at("there/a").exists() && left(&at("there")).is_empty());
        assert_eq!(fs::read(at("there/b")).unwrap(), b"old");
    }
    // The other way round.
    for (way, first) in [(SHELL, "sum() { h=0; }\n"), (TAR, "sum() { h=0; }\n")] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "new").unwrap();
        let far = Side::There(Far { first, ..Far::by(way) });
        let (tally, seen) = copy(&far, &Side::Here, &send(&[&at("a")]), &receive(&at("b"))).unwrap();
        assert_eq!((tally.failed, seen.fate("a").0), (1, Fate::Failed));
        assert!(seen.fate("a").1.contains("hash differs") && !at("b").exists());
    }
}

#[test]
fn what_an_earlier_copy_left_is_taken_up_and_not_sent_again() {
    const MIB: usize = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let content = random(20 * MIB + 5);
    fs::write(at("big"), &content).unwrap();
    // Two blocks are good, and some of the third.
    fs::write(at(".there.postern-partial"), &content[..18 * MIB]).unwrap();
    let far = Far::by(SHELL);
    let (tally, _) =
        copy(&Side::Here, &Side::There(far.clone()), &send(&[&at("big")]), &receive(&at("there"))).unwrap();
    let sent = usize::try_from(far.sent.load(Ordering::Relaxed)).unwrap();
    assert!(tally.written == 1 && sent < 5 * MIB, "{sent}");
    assert!(fs::read(at("there")).unwrap() == content && left(folder.path()).is_empty());
    // One that differs from its second block on is not mixed with what comes.
    let mut other = content[..18 * MIB].to_vec();
    other[9 * MIB] ^= 1;
    fs::write(at(".again.postern-partial"), &other).unwrap();
    copy(&Side::Here, &Side::There(far), &send(&[&at("big")]), &receive(&at("again"))).unwrap();
    assert!(fs::read(at("again")).unwrap() == content);
    // Of the same size and time, with other content: what is alike is taken from there.
    let mut changed = content.clone();
    changed[17 * MIB] ^= 1;
    fs::write(at("again"), &changed).unwrap();
    let time = fs::metadata(at("big")).unwrap().modified().unwrap();
    fs::File::options().write(true).open(at("again")).unwrap().set_modified(time).unwrap();
    let far = Far::by(TAR);
    let (tally, _) =
        copy(&Side::Here, &Side::There(far.clone()), &send(&[&at("big")]), &receive(&at("again"))).unwrap();
    let sent = usize::try_from(far.sent.load(Ordering::Relaxed)).unwrap();
    assert!(tally.written == 1 && sent < 5 * MIB, "{sent}");
    assert!(fs::read(at("again")).unwrap() == content);
}

#[test]
fn what_was_read_before_a_cut_is_not_read_again() {
    const MIB: u64 = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let content = random(30_000_000);
    fs::write(at("big"), &content).unwrap();
    let cut = Far { first: "get() { dd bs=65536 count=300 2>/dev/null <\"$a\"; exit; }\n", ..Far::by(SHELL) };
    let (asked, into) = (send(&[&at("big")]), receive(&at("here")));
    let lost = copy(&Side::There(cut.clone()), &Side::Here, &asked, &into).err().unwrap();
    assert_eq!(lost, "lost: the shell ended");
    assert!(!at("here").exists() && left(folder.path()).len() == 1);
    let again = Far { first: "", came: Arc::default(), ..cut.clone() };
    let (tally, _) = copy(&Side::There(again.clone()), &Side::Here, &asked, &into).unwrap();
    let came = again.came.load(Ordering::Relaxed);
    assert!(tally.written == 1 && came < 30_000_000 - 18 * MIB, "{came}");
    assert!(fs::read(at("here")).unwrap() == content);
    // Another client knows nothing of it, and reads all of it.
    fs::remove_file(at("here")).unwrap();
    copy(&Side::There(cut), &Side::Here, &asked, &into).err().unwrap();
    let fresh = Far::by(SHELL);
    copy(&Side::There(fresh.clone()), &Side::Here, &asked, &into).unwrap();
    assert!(fresh.came.load(Ordering::Relaxed) > 30_000_000);
    assert!(fs::read(at("here")).unwrap() == content);
}

#[test]
fn nothing_is_written_through_a_symlink_in_the_destination() {
    for way in [SHELL, TAR] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("tree/d")).unwrap();
        fs::create_dir(at("outside")).unwrap();
        fs::create_dir(at("there")).unwrap();
        fs::write(at("tree/d/file"), "x").unwrap();
        fs::write(at("tree/plain"), "x").unwrap();
        fs::write(at("outside/victim"), "mine").unwrap();
        symlink(at("outside"), at("there/d")).unwrap();
        symlink(at("outside/victim"), at("there/plain")).unwrap();
        symlink(at("outside/victim"), at("there/.plain.postern-partial")).unwrap();
        symlink("../../outside", at("tree/up")).unwrap();
        let far = Side::There(Far::by(way));
        let (tally, seen) =
            copy(&Side::Here, &far, &send(&[&at("tree").join(".")]), &receive(&at("there"))).unwrap();
        assert_eq!((tally.failed, tally.refused, tally.written), (2, 1, 1), "{:?}", seen.done);
        assert_eq!(seen.fate("d"), (Fate::Failed, "what has its place is no directory"));
        assert_eq!(fs::read_dir(at("outside")).unwrap().count(), 1);
        assert_eq!(fs::read(at("outside/victim")).unwrap(), b"mine");
        assert_eq!(fs::read(at("there/plain")).unwrap(), b"x");
    }
}

#[test]
fn a_container_that_lies_about_names_writes_nothing_outside() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    fs::create_dir(at("into")).unwrap();
    let record = "printf '%s %s|%s/\\n' $N '81a4 1 0 0 0 1970-01-01 00:00:00.0 +0000|1:2 1 8 0 0'";
    let lie: &'static str = Box::leak(
        format!(
            "list() {{ {record} 'x/..'; {record} 'x/.'; {record} 'x/'; {record} 'x/ok'; e=; end ok; }}\n"
        )
        .into_boxed_str(),
    );
    for way in [SHELL, TAR] {
        let far = Side::There(Far { first: lie, ..Far::by(way) });
        let (tally, seen) = copy(&far, &Side::Here, &send(&[&at("tree")]), &receive(&at("into"))).unwrap();
        // None of the four is a file that is there, either.
        assert_eq!((tally.failed, tally.written), (4, 0), "{:?}", seen.done);
        assert_eq!(fs::read_dir(at("into/tree")).unwrap().count(), 0);
    }
    // One that talks on is cut off from us, not taken for a file.
    let far = Side::There(Far { first: "look() { echo odd; }\n", ..Far::by(SHELL) });
    let why = copy(&far, &Side::Here, &send(&[&at("tree")]), &receive(&at("into"))).err().unwrap();
    assert!(why.contains("answers oddly: odd"), "{why}");
}

#[test]
fn sync_updates_deletes_and_leaves_alone_as_asked() {
    for shell in shells() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("site/sub")).unwrap();
        fs::write(at("site/one"), "one").unwrap();
        fs::write(at("site/sub/two"), "two").unwrap();
        let asked = SendSpec { contents: true, glob: false, ..send(&[&at("site")]) };
        let plain = ReceiveSpec { parents: true, compare: Compare::Times, ..receive(&at("new/there")) };
        let far = || Side::There(Far::new(&shell, SHELL));
        copy(&Side::Here, &far(), &asked, &plain).unwrap();
        fs::write(at("new/there/sub/extra"), "x").unwrap();
        fs::create_dir_all(at("new/there/-gone\n/deep")).unwrap();
        fs::write(at("site/one"), "changed").unwrap();
        let delete = ReceiveSpec { delete: true, ..plain.clone() };
        let dry = ReceiveSpec { dry_run: true, ..delete.clone() };
        let (tally, seen) = copy(&Side::Here, &far(), &asked, &dry).unwrap();
        assert_eq!((tally.planned, tally.deleted, tally.unchanged), (1, 2, 1), "{:?}", seen.done);
        assert!(at("new/there/sub/extra").exists());
        let (tally, seen) = copy(&Side::Here, &far(), &asked, &delete).unwrap();
        assert_eq!((tally.written, tally.deleted, tally.unchanged), (1, 2, 1), "{:?}", seen.done);
        assert_eq!(fs::read(at("new/there/one")).unwrap(), b"changed");
        assert!(!at("new/there/sub/extra").exists() && !at("new/there/-gone\n").exists());
        let checked = ReceiveSpec { compare: Compare::Hash, ..plain.clone() };
        let (tally, _) = copy(&Side::Here, &far(), &asked, &checked).unwrap();
        assert_eq!((tally.same, tally.written), (2, 0));
        // The other way: newer here is left, and wildcards are found there.
        let newer = ReceiveSpec { update: true, ..receive(&at("here")) };
        fs::create_dir(at("here")).unwrap();
        fs::write(at("here/one"), "mine, and newer").unwrap();
        let globbed = send(&[&at("new/there/**/[ot]*")]);
        let (tally, _) = copy(&far(), &Side::Here, &globbed, &newer).unwrap();
        assert_eq!((tally.skipped, tally.written), (1, 1));
        let none = copy(&far(), &Side::Here, &send(&[&at("new/*.none")]), &newer).err().unwrap();
        assert!(none.starts_with("nothing matches ") && none.ends_with("*.none"), "{none}");
        let none = copy(&far(), &Side::Here, &send(&[&at("none")]), &newer).err().unwrap();
        assert!(none.ends_with("/none: No such file or directory"), "{none}");
    }
}

#[test]
fn a_cut_connection_leaves_nothing_but_what_can_be_taken_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (size, tar, stays) in [(1_000_000, false, false), (20_000_000, false, true), (1_000, true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let partial = at(".there.postern-partial");
        let content = random(size);
        runtime.block_on(async {
            let far = Far { first: "mv() { sleep 100; }\n", ..Far::by(Way { tar, verify: true }) };
            let ask = Ask::Receive(receive(&at("there")));
            let mut destination = far.open(&ask).await;
            let frames = frames(&content, size as u64);
            destination.to.send(&frames).await.unwrap();
            if !tar {
                // An archive is not sent before all of it is here.
                let arrived = || fs::metadata(&partial).is_ok_and(|meta| meta.len() > 200_000);
                until("some of it has arrived", arrived).await;
            }
            destination.close().await;
            until("what is of no use is gone", || partial.exists() == stays).await;
        });
        assert!(!at("there").exists());
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
}

/// A file that begins and never ends.
fn frames(content: &[u8], size: u64) -> Vec<u8> {
    use postern_wire::copy::{Entry, FromSource, Kind, Stamp};
    let mut out = Vec::new();
    FromSource::Begin(1).encode(&mut out);
    let entry = Entry {
        id: 0,
        path: b"there".to_vec(),
        kind: Kind::File(size + 1),
        stamp: Stamp::default(),
        xattrs: Vec::new(),
        settled: false,
    };
    FromSource::Entry(Box::new(entry)).encode(&mut out);
    FromSource::From { id: 0, offset: 0 }.encode(&mut out);
    for block in content.chunks(100_000) {
        FromSource::Data(block).encode(&mut out);
    }
    out
}
