//! The work of all threads: names in directories that are still to be visited.

use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Names, each with its NUL, one after the other: a directory may have a million of them.
#[derive(Debug, Default)]
pub(super) struct Names(VecDeque<u8>);

impl Names {
    pub(super) fn push(&mut self, name: &CStr) {
        self.0.extend(name.to_bytes_with_nul());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<CString> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let name: Vec<u8> = self.0.drain(..=end).collect();
        CString::from_vec_with_nul(name).ok()
    }
}

/// What a thread does next.
#[derive(Debug)]
pub(super) enum Task {
    /// Visits a directory.
    Directory(Arc<OwnedFd>, CString),
    /// Visits these entries, which are not known to be directories.
    Entries(Arc<OwnedFd>, Names),
}

#[derive(Debug)]
enum Batch {
    Directories(Arc<OwnedFd>, Names),
    Entries(Arc<OwnedFd>, Names),
}

#[derive(Debug, Default)]
struct State {
    /// The last one comes first: a directory is finished, and its descriptor closed, before the next one is begun.
    batches: Vec<Batch>,
    busy: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Queue {
    /// Adds names of a directory.
    pub(super) fn add_directories(&self, parent: Arc<OwnedFd>, names: Names) {
        self.add(Batch::Directories(parent, names));
    }

    /// Adds entries of a directory.
    pub(super) fn add_entries(&self, parent: Arc<OwnedFd>, names: Names) {
        self.add(Batch::Entries(parent, names));
    }

    fn add(&self, batch: Batch) {
        self.lock().batches.push(batch);
        self.changed.notify_all();
    }

    /// Whether a thread has nothing to do.
    pub(super) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Runs tasks until none is left and no thread may add one, or until `stop`.
    pub(super) fn work(&self, stop: &AtomicBool, mut run: impl FnMut(Task)) {
        let mut state = self.lock();
        loop {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if let Some(task) = next(&mut state.batches) {
                state.busy += 1;
                drop(state);
                run(task);
                state = self.lock();
                state.busy -= 1;
            } else if state.busy == 0 {
                break;
            } else {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                self.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next(batches: &mut Vec<Batch>) -> Option<Task> {
    loop {
        match batches.pop()? {
            Batch::Entries(parent, names) => return Some(Task::Entries(parent, names)),
            Batch::Directories(parent, mut names) => {
                let Some(name) = names.pop() else { continue };
                if !names.is_empty() {
                    batches.push(Batch::Directories(parent.clone(), names));
                }
                return Some(Task::Directory(parent, name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_they_went_in() {
        let mut names = Names::default();
        names.push(c"a");
        names.push(c"b c");
        assert!(!names.is_empty());
        assert_eq!(names.pop().as_deref(), Some(c"a"));
        assert_eq!(names.pop().as_deref(), Some(c"b c"));
        assert_eq!(names.pop(), None);
    }

    #[test]
    fn every_task_runs_once_in_all_threads() {
        let queue = Queue::default();
        let parent =
            Arc::new(rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap());
        let mut names = Names::default();
        (0..1000).for_each(|n| names.push(&CString::new(n.to_string()).unwrap()));
        queue.add_directories(parent.clone(), names);
        let seen = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    queue.work(&AtomicBool::new(false), |task| match task {
                        Task::Directory(_, name) => {
                            let mut children = Names::default();
                            children.push(&name);
                            queue.add_entries(parent.clone(), children);
                        }
                        Task::Entries(_, mut names) => seen.lock().unwrap().push(names.pop().unwrap()),
                    });
                });
            }
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }
}
