//! Directories, entries that are deferred until all files are in place, and removal.

use super::metadata::time;
use super::{Pending, ShellReceiver};
use crate::TranslatorError;
use crate::inspect::{list, stat_path};
use crate::listing::Type;
use crate::quoting::{assign, assign_path, cause};
use postern_files::{name, policy};
use postern_wire::copy::{Entry, Fate, FromDestination, Kind};

/// A directory whose time has to be set, and its mode if it is new.
pub(super) struct Directory {
    path: Vec<u8>,
    mode: String,
    time: String,
    owner: String,
}

/// An entry in a directory that is to be removed.
struct Found {
    /// The path below the root, and the path that rules match.
    below: Vec<u8>,
    inner: Vec<u8>,
    /// The index of its parent directory in this list.
    holder: usize,
    /// Whether it is excluded, or contains an excluded entry.
    stays: bool,
}

impl ShellReceiver<'_> {
    /// Creates a directory immediately, because files go into it.
    pub(super) async fn directory(&mut self, entry: &Entry, path: Vec<u8>) -> Result<(), TranslatorError> {
        let id = entry.id;
        let new_root = self.target.as_ref().is_some_and(|target| target.created);
        let missing = self.target.as_ref().is_some_and(|target| target.missing);
        let there = if path.is_empty() {
            !new_root && !missing
        } else {
            match self.look(&path).await? {
                Ok(None) => false,
                Ok(Some(found)) if found.kind() == Type::Directory => true,
                Ok(Some(_)) => {
                    self.settle(id, Fate::Failed, "the existing entry is not a directory".to_owned());
                    return Ok(());
                }
                Err(why) => {
                    self.settle(id, Fate::Failed, why);
                    return Ok(());
                }
            }
        };
        self.entered.insert(path.clone(), !there);
        if self.spec.dry_run {
            self.settle(id, if there { Fate::Made } else { Fate::Planned }, String::new());
            return Ok(());
        }
        let mode = match there && !self.spec.preserve {
            true => "-".to_owned(),
            false => format!("{:o}", self.bits(entry.stamp.mode)),
        };
        let owner = self.owner(entry, None);
        self.directories.push(Directory { path: path.clone(), mode, time: time(entry), owner });
        if there || path.is_empty() {
            self.settle(id, Fate::Made, String::new());
            return Ok(());
        }
        let mut line = Vec::new();
        assign_path(&mut line, 'a', &self.container_path(&path));
        line.extend_from_slice(b"make\n");
        self.session.queue(&line);
        self.pending.push_back(Pending::Directory { id, path, grouped: entry.stamp.mode & 0o2000 != 0 });
        Ok(())
    }

    /// Checks a link or special file now; it is created at the end.
    pub(super) async fn defer(&mut self, entry: Box<Entry>, path: Vec<u8>) -> Result<(), TranslatorError> {
        let renamed = self.target.as_ref().is_some_and(|target| target.rename.is_some());
        let own = if renamed { name::inner(&path, false) } else { &path };
        let refused = match &entry.kind {
            Kind::Symlink(target) if target.is_empty() => Some("a symlink with an invalid target".to_owned()),
            kind => policy::refused(self.spec, kind, own),
        };
        match refused {
            Some(why) => self.settle(entry.id, Fate::Refused, why),
            None if self.spec.dry_run => {
                let there = self.look(&path).await?;
                match there {
                    Ok(Some(found)) if found.kind() == Type::Directory => {
                        self.settle(entry.id, Fate::Failed, policy::DIRECTORY.to_owned());
                    }
                    _ => self.settle(entry.id, Fate::Planned, String::new()),
                }
            }
            None => self.links.push((entry, path)),
        }
        Ok(())
    }

    /// Creates the deferred entries.
    pub(super) async fn links(&mut self) -> Result<(), TranslatorError> {
        for (entry, path) in std::mem::take(&mut self.links) {
            let parent = name::split(&path).0;
            if !parent.is_empty() && !self.entered.contains_key(parent) {
                self.settle(entry.id, Fate::Failed, "its directory does not exist".to_owned());
                continue;
            }
            let mut line = Vec::new();
            assign_path(&mut line, 'a', &self.container_path(&self.temporary_path(&path)));
            assign_path(&mut line, 'b', &self.container_path(&path));
            let (time, owner) = (time(&entry), self.owner(&entry, None));
            let words = match &entry.kind {
                Kind::Symlink(target) => {
                    assign(&mut line, 'c', target);
                    format!("symlink {time} {owner}\n")
                }
                Kind::HardLink(to) => {
                    let to = self.target.as_ref().map_or_else(|| to.clone(), |target| target.path(to));
                    // The existing file is not the source's.
                    if self.bad.contains(&to) || !self.below_ours(&to) {
                        let why = "the file that it links to was not written".to_owned();
                        self.settle(entry.id, Fate::Failed, why);
                        continue;
                    }
                    assign_path(&mut line, 'c', &self.container_path(&to));
                    "other\n".to_owned()
                }
                Kind::Fifo => format!("special {:o} {time} {owner} p\n", self.bits(entry.stamp.mode)),
                Kind::Device { block, major, minor } => {
                    let (bits, kind) = (self.bits(entry.stamp.mode), if *block { 'b' } else { 'c' });
                    format!("special {bits:o} {time} {owner} {kind} {major} {minor}\n")
                }
                Kind::File(_) | Kind::Directory => continue,
            };
            line.extend_from_slice(words.as_bytes());
            self.session.queue(&line);
            self.pending.push_back(Pending::Other { id: entry.id });
            self.session.flush_if_large().await?;
        }
        for Directory { path, mode, time, owner } in std::mem::take(&mut self.directories).into_iter().rev() {
            let mut line = Vec::new();
            assign_path(&mut line, 'a', &self.container_path(&path));
            line.extend_from_slice(format!("attr {mode} {time} {owner}\n").as_bytes());
            self.session.queue(&line);
            self.pending.push_back(Pending::Attributes { path });
            self.session.flush_if_large().await?;
        }
        Ok(())
    }

    fn below_ours(&self, path: &[u8]) -> bool {
        let parent = name::split(path).0;
        parent.is_empty() || self.entered.contains_key(parent)
    }

    /// Ends a directory: with `delete`, finds the entries that were not received.
    pub(super) async fn directory_end(&mut self, path: &[u8]) -> Result<(), TranslatorError> {
        if name::check(path, self.spec.limits.depth).is_err() {
            return Err(TranslatorError::Lost("the end of a directory outside the root".to_owned()));
        }
        let seen = std::mem::take(&mut self.seen);
        let (Some(target), true) = (&self.target, self.spec.delete.is_requested()) else { return Ok(()) };
        let (below, contents) = (target.path(path), target.contents);
        let entered = self.entered.get(&below).copied();
        if target.missing || entered != Some(false) {
            return Ok(()); // it does not exist, or has nothing else in it
        }
        self.answers(0).await?;
        let real = self.container_path(&below);
        let Ok(found) = list(&mut self.session, &real).await? else { return Ok(()) };
        let inner = name::inner(path, contents).to_vec();
        for (last, stat) in found {
            if name::is_partial(&last) {
                continue;
            }
            // An entry that was received was counted then, if it existed.
            if seen.contains(&name::join(path, &last)) {
                continue;
            }
            self.surplus.there += 1;
            let directory = stat.kind() == Type::Directory;
            let (below, inner) = (name::join(&below, &last), name::join(&inner, &last));
            if self.rules.excludes(&inner, directory) {
                continue;
            }
            if directory && (!self.spec.rules.is_empty() || self.spec.delete.counts()) {
                self.mark_removable(below, inner).await?;
            } else {
                self.surplus.extra += 1;
                self.extras.push(below);
            }
        }
        Ok(())
    }

    /// Finds what to remove from a directory so that excluded entries stay: all of it, or the parts without
    /// excluded entries.
    async fn mark_removable(&mut self, below: Vec<u8>, inner: Vec<u8>) -> Result<(), TranslatorError> {
        let mut found = vec![Found { below, inner, holder: 0, stays: false }];
        let mut waiting = vec![0];
        while let Some(holder) = waiting.pop() {
            let Found { below, inner, holder: _, stays: _ } = &found[holder];
            let (below, inner) = (below.clone(), inner.clone());
            let real = self.container_path(&below);
            for (last, stat) in list(&mut self.session, &real).await?.unwrap_or_default() {
                let (below, inner) = (name::join(&below, &last), name::join(&inner, &last));
                let directory = stat.kind() == Type::Directory;
                let stays = self.rules.excludes(&inner, directory);
                if directory && !stays {
                    waiting.push(found.len());
                }
                found.push(Found { below, inner, holder, stays });
            }
        }
        // The contents of a directory follow it.
        for at in (1..found.len()).rev() {
            if found[at].stays {
                let holder = found[at].holder;
                found[holder].stays = true;
            }
        }
        let count = |entries: usize| u64::try_from(entries).unwrap_or(u64::MAX);
        self.surplus.there += count(found.len() - 1);
        self.surplus.extra += count(found.iter().filter(|one| !one.stays).count());
        // Entries below a removed directory are not reported.
        let goes = |at: usize| !found[at].stays && (at == 0 || found[found[at].holder].stays);
        self.extras.extend((0..found.len()).filter(|at| goes(*at)).map(|at| found[at].below.clone()));
        Ok(())
    }

    /// Removes what the source does not have; returns the reason if it removes nothing because it would be
    /// too much. A dry run reports what would be removed in any case.
    pub(super) async fn remove_extras(&mut self) -> Result<Option<String>, TranslatorError> {
        let kept_for = policy::refuses_deletion(self.spec.delete, self.surplus);
        if kept_for.is_some() && !self.spec.dry_run {
            return Ok(kept_for);
        }
        self.known = None;
        for gone in std::mem::take(&mut self.extras) {
            let removed = self.remove(&gone).await?;
            self.out.put(|buffer| match removed {
                Ok(()) => FromDestination::Deleted(&gone).encode(buffer),
                Err(message) => FromDestination::NotDeleted { path: &gone, message }.encode(buffer),
            });
        }
        Ok(kept_for)
    }

    async fn remove(&mut self, path: &[u8]) -> Result<Result<(), String>, TranslatorError> {
        if self.spec.dry_run {
            return Ok(Ok(()));
        }
        let mut line = Vec::new();
        assign_path(&mut line, 'a', &self.container_path(path));
        line.extend_from_slice(b"remove\n");
        let answer = self.session.ask(&line).await?;
        Ok(answer.map(|_| ()).map_err(|why| self.session.tools.explain("removing it", &why)))
    }

    /// Removes partial files at and below the destination, and reports each.
    pub(super) async fn clean(mut self) -> Result<(), TranslatorError> {
        let target = self.spec.target.clone();
        let shown = name::show(&target).into_owned();
        let failed = |why: String| TranslatorError::Fatal(format!("searching {shown}: {why}"));
        let mut waiting = Vec::new();
        match stat_path(&mut self.session, &target, true).await? {
            Ok(found) if found.kind() == Type::Directory => waiting.push(Vec::new()),
            _ => {
                let (parent, last) = name::split(&target);
                let unfinished = name::partial(last);
                let beside = match parent {
                    b"" if target.starts_with(b"/") => name::join(b"/", &unfinished),
                    parent => name::join(parent, &unfinished),
                };
                if stat_path(&mut self.session, &beside, false).await?.is_ok() {
                    self.remove(&beside).await?.map_err(&failed)?;
                    self.out.put(|buffer| FromDestination::Deleted(&unfinished).encode(buffer));
                }
            }
        }
        while let Some(path) = waiting.pop() {
            let directory = name::join(&target, &path);
            let found =
                list(&mut self.session, &directory).await?.map_err(|why| failed(cause(why.as_bytes())))?;
            for (last, stat) in found {
                let at = name::join(&path, &last);
                if stat.kind() == Type::Directory {
                    waiting.push(at);
                } else if name::is_partial(&last) {
                    self.remove(&name::join(&target, &at)).await?.map_err(&failed)?;
                    self.out.put(|buffer| FromDestination::Deleted(&at).encode(buffer));
                }
            }
            self.out.flush_if_large().await?;
        }
        self.out.put(|buffer| FromDestination::Finished.encode(buffer));
        Ok(self.out.flush().await?)
    }
}
