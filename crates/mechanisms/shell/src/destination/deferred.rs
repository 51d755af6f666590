//! Directories, what is done once all files are in place, and what is removed.

use super::metadata::time;
use super::{Destination, Pending};
use crate::Trouble;
use crate::listing::Type;
use crate::quoting::{assign, assign_path, cause};
use crate::source::walk::{list, look};
use postern_files::{name, verdict};
use postern_wire::copy::{Entry, Fate, FromDestination, Kind};

/// A directory to be given its time, and its mode where it is new.
pub(super) struct Directory {
    path: Vec<u8>,
    mode: String,
    time: String,
    owner: String,
}

/// Something in a directory that is to be removed.
struct Found {
    /// Its path below the root, and the one that rules are asked about.
    below: Vec<u8>,
    inner: Vec<u8>,
    /// Where the directory that holds it stands in the list of these.
    holder: usize,
    /// It is left out, or holds what is.
    stays: bool,
}

impl Destination<'_> {
    /// A directory: made at once, as files go into it.
    pub(super) async fn directory(&mut self, entry: &Entry, path: Vec<u8>) -> Result<(), Trouble> {
        let id = entry.id;
        let new_root = self.placed.as_ref().is_some_and(|placed| placed.made);
        let missing = self.placed.as_ref().is_some_and(|placed| placed.missing);
        let there = if path.is_empty() {
            !new_root && !missing
        } else {
            match self.look(&path).await? {
                Ok(None) => false,
                Ok(Some(found)) if found.kind() == Type::Directory => true,
                Ok(Some(_)) => {
                    self.settle(id, Fate::Failed, "what has its place is no directory".to_owned());
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
        assign_path(&mut line, 'a', &self.real(&path));
        line.extend_from_slice(b"make\n");
        self.session.say(&line);
        self.pending.push_back(Pending::Directory { id, path, grouped: entry.stamp.mode & 0o2000 != 0 });
        Ok(())
    }

    /// A link or special file: checked now, made at the end.
    pub(super) async fn postpone(&mut self, entry: Box<Entry>, path: Vec<u8>) -> Result<(), Trouble> {
        let renamed = self.placed.as_ref().is_some_and(|placed| placed.rename.is_some());
        let own = if renamed { name::inner(&path, false) } else { &path };
        let refused = match &entry.kind {
            Kind::Symlink(target) if target.is_empty() => Some("a symlink to no path".to_owned()),
            kind => verdict::refused(self.spec, kind, own),
        };
        match refused {
            Some(why) => self.settle(entry.id, Fate::Refused, why),
            None if self.spec.dry_run => {
                let there = self.look(&path).await?;
                match there {
                    Ok(Some(found)) if found.kind() == Type::Directory => {
                        self.settle(entry.id, Fate::Failed, "a directory has its place".to_owned());
                    }
                    _ => self.settle(entry.id, Fate::Planned, String::new()),
                }
            }
            None => self.links.push((entry, path)),
        }
        Ok(())
    }

    /// Makes what was left for the end.
    pub(super) async fn links(&mut self) -> Result<(), Trouble> {
        for (entry, path) in std::mem::take(&mut self.links) {
            let parent = name::split(&path).0;
            if !parent.is_empty() && !self.entered.contains_key(parent) {
                self.settle(entry.id, Fate::Failed, "its directory is not there".to_owned());
                continue;
            }
            let mut line = Vec::new();
            assign_path(&mut line, 'a', &self.real(&self.passing(&path)));
            assign_path(&mut line, 'b', &self.real(&path));
            let (time, owner) = (time(&entry), self.owner(&entry, None));
            let words = match &entry.kind {
                Kind::Symlink(target) => {
                    assign(&mut line, 'c', target);
                    format!("symlink {time} {owner}\n")
                }
                Kind::HardLink(to) => {
                    let to = self.placed.as_ref().map_or_else(|| to.clone(), |placed| placed.path(to));
                    // What has that name is not what the source has.
                    if self.bad.contains(&to) || !self.below_ours(&to) {
                        let why = "the file whose other name it is was not written".to_owned();
                        self.settle(entry.id, Fate::Failed, why);
                        continue;
                    }
                    assign_path(&mut line, 'c', &self.real(&to));
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
            self.session.say(&line);
            self.pending.push_back(Pending::Other { id: entry.id });
            self.session.say_much().await?;
        }
        for Directory { path, mode, time, owner } in std::mem::take(&mut self.directories).into_iter().rev() {
            let mut line = Vec::new();
            assign_path(&mut line, 'a', &self.real(&path));
            line.extend_from_slice(format!("attr {mode} {time} {owner}\n").as_bytes());
            self.session.say(&line);
            self.pending.push_back(Pending::Attributes { path });
            self.session.say_much().await?;
        }
        Ok(())
    }

    fn below_ours(&self, path: &[u8]) -> bool {
        let parent = name::split(path).0;
        parent.is_empty() || self.entered.contains_key(parent)
    }

    /// All that is directly in a directory has come: with `delete`, what else is there goes.
    pub(super) async fn directory_end(&mut self, path: &[u8]) -> Result<(), Trouble> {
        if name::check(path, self.spec.limits.depth).is_err() {
            return Err(Trouble::Lost("the end of a directory that is none below".to_owned()));
        }
        let seen = std::mem::take(&mut self.seen);
        let (Some(placed), true) = (&self.placed, self.spec.delete.is_asked()) else { return Ok(()) };
        let (below, contents) = (placed.path(path), placed.contents);
        let entered = self.entered.get(&below).copied();
        if placed.missing || entered != Some(false) {
            return Ok(()); // it is not there, or nothing else can be in it
        }
        self.answers(0).await?;
        let real = self.real(&below);
        let Ok(found) = list(&mut self.session, &real).await? else { return Ok(()) };
        let inner = name::inner(path, contents).to_vec();
        for (last, stat) in found {
            if name::is_partial(&last) {
                continue;
            }
            // One that came was counted then, if it was there.
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
                self.doomed(below, inner).await?;
            } else {
                self.surplus.extra += 1;
                self.extras.push(below);
            }
        }
        Ok(())
    }

    /// Finds what is to be removed of a directory, so that what is left out stays: all of it, or what of it holds nothing
    /// such.
    async fn doomed(&mut self, below: Vec<u8>, inner: Vec<u8>) -> Result<(), Trouble> {
        let mut found = vec![Found { below, inner, holder: 0, stays: false }];
        let mut waiting = vec![0];
        while let Some(holder) = waiting.pop() {
            let Found { below, inner, holder: _, stays: _ } = &found[holder];
            let (below, inner) = (below.clone(), inner.clone());
            let real = self.real(&below);
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
        // What a directory holds stands behind it.
        for at in (1..found.len()).rev() {
            if found[at].stays {
                let holder = found[at].holder;
                found[holder].stays = true;
            }
        }
        let count = |entries: usize| u64::try_from(entries).unwrap_or(u64::MAX);
        self.surplus.there += count(found.len() - 1);
        self.surplus.extra += count(found.iter().filter(|one| !one.stays).count());
        // What goes with its directory needs no word of its own.
        let goes = |at: usize| !found[at].stays && (at == 0 || found[found[at].holder].stays);
        self.extras.extend((0..found.len()).filter(|at| goes(*at)).map(|at| found[at].below.clone()));
        Ok(())
    }

    /// Removes what the source does not have; why none of it, if it is too much. A dry run says what would go in any case.
    pub(super) async fn remove_extras(&mut self) -> Result<Option<String>, Trouble> {
        let kept_for = verdict::keeps_surplus(self.spec.delete, self.surplus);
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

    async fn remove(&mut self, path: &[u8]) -> Result<Result<(), String>, Trouble> {
        if self.spec.dry_run {
            return Ok(Ok(()));
        }
        let mut line = Vec::new();
        assign_path(&mut line, 'a', &self.real(path));
        line.extend_from_slice(b"remove\n");
        let answer = self.session.ask(&line).await?;
        Ok(answer.map(|_| ()).map_err(|why| self.session.tools.explain("removing it", &why)))
    }

    /// Removes unfinished files at the destination and below it, and says each.
    pub(super) async fn clean(mut self) -> Result<(), Trouble> {
        let target = self.spec.target.clone();
        let shown = name::show(&target).into_owned();
        let failed = |why: String| Trouble::Fatal(format!("looking below {shown}: {why}"));
        let mut waiting = Vec::new();
        match look(&mut self.session, &target, true).await? {
            Ok(found) if found.kind() == Type::Directory => waiting.push(Vec::new()),
            _ => {
                let (parent, last) = name::split(&target);
                let unfinished = name::partial(last);
                let beside = match parent {
                    b"" if target.starts_with(b"/") => name::join(b"/", &unfinished),
                    parent => name::join(parent, &unfinished),
                };
                if look(&mut self.session, &beside, false).await?.is_ok() {
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
            self.out.much().await?;
        }
        self.out.put(|buffer| FromDestination::Finished.encode(buffer));
        Ok(self.out.flush().await?)
    }
}
