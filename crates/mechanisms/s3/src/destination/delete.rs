//! `--delete`: what the bucket has and the source does not have.

use super::Destination;
use crate::error::Trouble;
use crate::link::{Ended, Outbox};
use postern_files::name;
use postern_files::verdict::{self, Surplus};
use postern_wire::copy::FromDestination;
use std::collections::{HashMap, HashSet};

/// What came in a directory: by name, whether as a directory. A bucket can hold an object and a prefix of one name.
pub(super) type Seen = HashMap<Vec<u8>, bool>;

/// What the source does not have. It is removed at the end, when it is known how much that is.
#[derive(Default)]
pub(super) struct Extras {
    /// Keys, and their paths below the destination.
    keys: Vec<(String, Vec<u8>)>,
    /// Keys that came and were not there before, where what was there is counted.
    pub(super) fresh: HashSet<String>,
    surplus: Surplus,
}

impl Extras {
    /// The source has one more.
    pub(super) fn came(&mut self) {
        self.surplus.source += 1;
    }
}

impl Destination<'_> {
    /// All entries of a directory have come: what the bucket has besides is found, if it was asked for.
    pub(super) async fn directory_end(&mut self, path: &[u8]) -> Result<(), Ended> {
        name::check(path, self.spec.limits.depth).map_err(|_| Ended::Gone)?;
        let asked = self.spec.delete.is_asked();
        let Some(placed) = self.placed.as_ref().filter(|placed| asked && placed.occupied) else {
            return Ok(());
        };
        let below = match path {
            b"" => placed.prefix.clone(),
            path => match placed.key(path) {
                Ok(key) => format!("{key}/"),
                Err(_) => return Ok(()),
            },
        };
        let inner = name::inner(path, placed.contents).to_vec();
        let seen = self.seen.remove(path).unwrap_or_default();
        let mut next = None;
        loop {
            let page = self.store.page(&below, true, next, None).await?;
            let files = page.objects.into_iter().map(|object| object.key);
            for key in files.chain(page.prefixes) {
                let name = key.strip_prefix(&below).unwrap_or_default();
                let (name, directory) = name.strip_suffix('/').map_or((name, false), |name| (name, true));
                // The directory's own object, and keys that no file can have.
                if name.is_empty() {
                    continue;
                }
                let came = seen.get(name.as_bytes()) == Some(&directory);
                let fresh = came && self.extras.fresh.contains(&key);
                if !directory && !fresh {
                    self.extras.surplus.there += 1;
                }
                let (path, inner) = (name::join(path, name.as_bytes()), name::join(&inner, name.as_bytes()));
                if came || self.rules.excludes(&inner, directory) {
                    continue;
                }
                match directory {
                    true => self.prefix(&key, &path, &inner).await?,
                    false => {
                        self.extras.surplus.extra += 1;
                        self.extras.keys.push((key, path));
                    }
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Finds what is to be removed below a prefix that the source does not have. Rules are asked about each object and each
    /// directory that it lies in: a common prefix says nothing of what is below it.
    async fn prefix(&mut self, prefix: &str, path: &[u8], inner: &[u8]) -> Result<(), Ended> {
        let mut next = None;
        // Of directories, those that hold something that stays: they stay as well.
        let (mut markers, mut kept) = (Vec::new(), Vec::<String>::new());
        loop {
            let page = self.store.page(prefix, false, next, None).await?;
            for object in page.objects {
                self.extras.surplus.there += 1;
                let rest = object.key.strip_prefix(prefix).unwrap_or_default();
                let (rest, marker) =
                    rest.strip_suffix('/').map_or((rest, rest.is_empty()), |rest| (rest, true));
                let below = |path: &[u8]| match rest {
                    "" => path.to_vec(),
                    rest => name::join(path, rest.as_bytes()),
                };
                if self.rules.leave_out(&below(inner), marker) {
                    kept.push(object.key);
                } else if marker {
                    markers.push((object.key.clone(), below(path)));
                } else {
                    self.extras.surplus.extra += 1;
                    self.extras.keys.push((object.key.clone(), below(path)));
                }
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        kept.sort_unstable();
        for (key, path) in markers {
            let at = kept.partition_point(|kept| *kept < key);
            if kept.get(at).is_none_or(|kept| !kept.starts_with(&key)) {
                self.extras.surplus.extra += 1;
                self.extras.keys.push((key, path));
            }
        }
        Ok(())
    }

    /// Removes what the source does not have; why none of it, if it is too much. A dry run says what would go in any case.
    pub(super) async fn remove_extras(&mut self, out: &mut Outbox) -> Result<Option<String>, Ended> {
        let Extras { keys, fresh: _, surplus } = std::mem::take(&mut self.extras);
        let kept_for = verdict::keeps_surplus(self.spec.delete, surplus);
        let dry_run = self.spec.dry_run;
        if kept_for.is_some() && !dry_run {
            return Ok(kept_for);
        }
        for (key, path) in keys {
            let removed = if dry_run { Ok(()) } else { self.store.delete(&key).await };
            match removed {
                Ok(()) => out.put(|buffer| FromDestination::Deleted(&path).encode(buffer)).await?,
                Err(Trouble { message, .. }) => {
                    let path = path.as_slice();
                    out.put(|buffer| FromDestination::NotDeleted { path, message }.encode(buffer)).await?;
                }
            }
        }
        Ok(kept_for)
    }
}
