//! `--delete`: removes objects that the source does not have.

use super::ObjectReceiver;
use crate::error::RequestError;
use crate::link::{EndError, Outbox};
use postern_files::name;
use postern_files::policy::{self, Surplus};
use postern_wire::copy::FromDestination;
use std::collections::{HashMap, HashSet};

/// Received names of a directory, and whether each is a directory. A bucket can have an object and a prefix
/// with the same name.
pub(super) type ReceivedNames = HashMap<Vec<u8>, bool>;

/// Entries that the source does not have. They are removed at the end, when their number is known.
#[derive(Default)]
pub(super) struct Extras {
    /// Keys, and their paths below the target.
    keys: Vec<(String, Vec<u8>)>,
    /// Received keys that did not exist before. Counted only if a limit needs it.
    pub(super) fresh: HashSet<String>,
    surplus: Surplus,
}

impl Extras {
    /// Counts an entry of the source.
    pub(super) fn count_source_entry(&mut self) {
        self.surplus.source += 1;
    }
}

impl ObjectReceiver<'_> {
    /// Ends a directory: finds the surplus objects of the bucket, if requested.
    pub(super) async fn directory_end(&mut self, path: &[u8]) -> Result<(), EndError> {
        name::check(path, self.spec.limits.depth).map_err(|_| EndError::Gone)?;
        let asked = self.spec.delete.is_requested();
        let Some(target) = self.target.as_ref().filter(|target| asked && target.occupied) else {
            return Ok(());
        };
        let below = match path {
            b"" => target.prefix.clone(),
            path => match target.key(path) {
                Ok(key) => format!("{key}/"),
                Err(_) => return Ok(()),
            },
        };
        let inner = name::inner(path, target.contents).to_vec();
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

    /// Finds what to remove below a prefix that the source does not have. Rules are matched for each object
    /// and each of its directories: a common prefix does not show what is below it.
    async fn prefix(&mut self, prefix: &str, path: &[u8], inner: &[u8]) -> Result<(), EndError> {
        let mut next = None;
        // Directories with an entry that is kept: they are kept as well.
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

    /// Removes what the source does not have; returns the reason if it removes nothing because it would be
    /// too much. A dry run reports what would be removed in any case.
    pub(super) async fn remove_extras(&mut self, out: &mut Outbox) -> Result<Option<String>, EndError> {
        let Extras { keys, fresh: _, surplus } = std::mem::take(&mut self.extras);
        let kept_for = policy::refuses_deletion(self.spec.delete, surplus);
        let dry_run = self.spec.dry_run;
        if kept_for.is_some() && !dry_run {
            return Ok(kept_for);
        }
        for (key, path) in keys {
            let removed = if dry_run { Ok(()) } else { self.store.delete(&key).await };
            match removed {
                Ok(()) => out.put(|buffer| FromDestination::Deleted(&path).encode(buffer)).await?,
                Err(RequestError { message, .. }) => {
                    let path = path.as_slice();
                    out.put(|buffer| FromDestination::NotDeleted { path, message }.encode(buffer)).await?;
                }
            }
        }
        Ok(kept_for)
    }
}
