//! Walks a tree in several threads.

use super::Rules;
use super::entry::{self, Outcome};
use super::queue::{Names, Queue, Task};
use super::report::Report;
use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, fstat, openat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Threads. They wait for the disk, or for a server, so there are more of them than processors.
const THREADS: usize = 8;

/// The size of the buffer for names of a directory.
const BUFFER: usize = 64 * 1024;

/// The number of entries of one directory that are given to another thread at a time.
const CHUNK: usize = 512;

/// Why such a file is left.
const HARD_LINKS: &str =
    "it has several hard links, and another one may be outside the volume (see --allow-hard-links)";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// The walk of one tree.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    rules: Rules,
    report: &'a Report<'a>,
    stop: &'a AtomicBool,
    queue: Queue,
}

/// What one thread keeps.
struct Worker<'a> {
    walk: &'a Walk<'a>,
    /// The device number of the root.
    device: u64,
    buffer: Vec<MaybeUninit<u8>>,
    /// Whether the last entry had another owner. Then the next one probably has, too.
    likely: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(rules: Rules, report: &'a Report<'a>, stop: &'a AtomicBool) -> Self {
        Self { rules, report, stop, queue: Queue::default() }
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Walks the tree, then changes its root.
    pub(super) fn run(&self) {
        if let Err(error) = self.tree() {
            self.report.problem(format!("{}: {error}", self.report.path()));
        }
    }

    fn tree(&self) -> Result<(), Errno> {
        // With a slash at its end, a symlink would be followed.
        let path = self.report.path();
        let path = Some(path.trim_end_matches('/')).filter(|path| !path.is_empty()).unwrap_or("/");
        let root = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&root)?;
        let owned = entry::is_owned(&stat, self.rules);
        if owned && self.rules.on_root_mismatch {
            self.report.seen.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {}
            // A mount of one file (`subPath`).
            FileType::RegularFile => {
                let outcome = entry::change_open(&root, stat.st_dev, self.rules)?;
                self.report.count(outcome);
                if outcome == Outcome::HardLink {
                    self.report.problem(format!("{path}: {HARD_LINKS}"));
                }
                return Ok(());
            }
            _ => {
                self.report.problem(format!("{path}: it is neither a directory nor a regular file"));
                return Ok(());
            }
        }
        let root = Arc::new(openat(&root, c".", DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
        self.report.seen.fetch_add(1, Ordering::Relaxed);
        let worker = || Worker {
            walk: self,
            device: stat.st_dev,
            buffer: vec![MaybeUninit::uninit(); BUFFER],
            likely: false,
        };
        worker().entries_of(&root);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut worker = worker();
                    self.queue.work(self.stop, |task| worker.task(task));
                });
            }
        });
        // Last, as a root with the right owner says that everything below it has it, too.
        if !owned && !self.report.failed() && !self.stop.load(Ordering::Relaxed) {
            entry::change_directory(&root, self.rules)?;
            self.report.changed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Worker<'_> {
    fn task(&mut self, task: Task) {
        match task {
            Task::Directory(parent, name) => self.directory(&parent, &name),
            Task::Entries(parent, mut names) => {
                let mut directories = Names::default();
                while let Some(name) = names.pop() {
                    if self.stopped() {
                        return;
                    }
                    self.entry(parent.as_fd(), &name, &mut directories);
                }
                self.descend(&parent, directories);
            }
        }
    }

    fn stopped(&self) -> bool {
        self.walk.stop.load(Ordering::Relaxed)
    }

    /// Changes a directory, and its entries.
    fn directory(&mut self, parent: &OwnedFd, name: &CStr) {
        match self.enter(parent.as_fd(), name) {
            Ok(Some(directory)) => self.entries_of(&Arc::new(directory)),
            Ok(None) => {}
            Err(error) => self.problem(parent.as_fd(), name, &error.to_string()),
        }
    }

    fn enter(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
        let Walk { rules, report, .. } = self.walk;
        let directory = match entry::open(parent, name, DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::XDEV) => {
                report.mounts.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            // It was a directory, and is something else now.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let mut directories = Names::default();
                self.entry(parent, name, &mut directories);
                return match directories.is_empty() {
                    true => Ok(None),
                    false => Err(Errno::AGAIN),
                };
            }
            Err(error) => return Err(error),
        };
        let stat = fstat(&directory)?;
        if stat.st_dev != self.device {
            report.mounts.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        report.seen.fetch_add(1, Ordering::Relaxed);
        if !entry::is_owned(&stat, *rules) {
            entry::change_directory(&directory, *rules)?;
            report.changed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Some(directory))
    }

    /// Changes the entries of a directory, and leaves its directories to the queue.
    fn entries_of(&mut self, directory: &Arc<OwnedFd>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut directories = Names::default();
        let mut count = 0;
        // Entries for another thread.
        let mut others: Option<Names> = None;
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(found) = entries.next() {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    self.problem(directory.as_fd(), c".", &error.to_string());
                    break;
                }
            };
            if self.stopped() {
                break;
            }
            let name = found.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if found.file_type() == FileType::Directory {
                directories.push(name);
                continue;
            }
            if count % CHUNK == 0 {
                if let Some(names) = others.take() {
                    self.walk.queue.add_entries(directory.clone(), names);
                }
                others = (count > 0 && self.walk.queue.is_short()).then(Names::default);
            }
            count += 1;
            match &mut others {
                Some(names) => names.push(name),
                None => self.entry(directory.as_fd(), name, &mut directories),
            }
        }
        self.buffer = buffer;
        if let Some(names) = others {
            self.walk.queue.add_entries(directory.clone(), names);
        }
        self.descend(directory, directories);
    }

    fn descend(&self, parent: &Arc<OwnedFd>, directories: Names) {
        if !directories.is_empty() {
            self.walk.queue.add_directories(parent.clone(), directories);
        }
    }

    /// Changes an entry. If it is a directory, it is added to `directories`.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, directories: &mut Names) {
        let Walk { rules, report, .. } = self.walk;
        let outcome = match entry::change(parent, name, self.device, *rules, self.likely) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.problem(parent, name, &error.to_string());
                return;
            }
        };
        report.count(outcome);
        self.likely = outcome == Outcome::Changed;
        match outcome {
            Outcome::Directory => directories.push(name),
            Outcome::HardLink => self.problem(parent, name, HARD_LINKS),
            Outcome::Same | Outcome::Changed | Outcome::Device | Outcome::Mount | Outcome::Gone => {}
        }
    }

    fn problem(&self, parent: BorrowedFd<'_>, name: &CStr, why: &str) {
        let directory = std::fs::read_link(format!("/proc/self/fd/{}", parent.as_raw_fd()));
        let directory = directory.unwrap_or_else(|_| "…".into());
        let path = directory.join(name.to_string_lossy().as_ref());
        self.walk.report.problem(format!("{}: {why}", path.to_string_lossy().escape_debug()));
    }
}
