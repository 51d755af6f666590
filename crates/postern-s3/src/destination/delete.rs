//! `--delete`: what the bucket has and the source has not.

use super::Destination;
use crate::error::Trouble;
use crate::link::{Ended, Outbox};
use postern_files::name;
use postern_wire::copy::FromDestination;

impl Destination<'_> {
    /// All that a directory has was told of: what the bucket has besides is removed, where that was asked for.
    pub(super) async fn directory_end(&mut self, path: &[u8], out: &mut Outbox) -> Result<(), Ended> {
        name::check(path, self.spec.limits.depth).map_err(|_| Ended::Gone)?;
        let Some(placed) = self.placed.as_ref().filter(|placed| self.spec.delete && placed.occupied) else {
            return Ok(());
        };
        let below = match path {
            b"" => placed.prefix.clone(),
            path => match placed.key(path) {
                Ok(key) => format!("{key}/"),
                Err(_) => return Ok(()),
            },
        };
        let (inner, seen) =
            (name::inner(path, placed.contents).to_vec(), self.seen.remove(path).unwrap_or_default());
        let mut next = None;
        loop {
            let page = self.store.page(&below, true, next, None).await?;
            let files = page.objects.into_iter().map(|object| object.key);
            for key in files.chain(page.prefixes) {
                let name = key.strip_prefix(&below).unwrap_or_default();
                let (name, directory) = name.strip_suffix('/').map_or((name, false), |name| (name, true));
                let kept = name.is_empty()
                    || seen.contains(name.as_bytes())
                    || self.rules.excludes(&name::join(&inner, name.as_bytes()), directory);
                if !kept {
                    self.remove(&key, &name::join(path, name.as_bytes()), directory, out).await?;
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Removes an object, or all below a prefix.
    async fn remove(&self, key: &str, path: &[u8], directory: bool, out: &mut Outbox) -> Result<(), Ended> {
        let removed = async {
            if self.spec.dry_run {
                return Ok(());
            }
            if !directory {
                return self.store.delete(key).await;
            }
            loop {
                // From the beginning each time: what was listed is gone then.
                let page = self.store.page(key, false, None, None).await?;
                for object in &page.objects {
                    self.store.delete(&object.key).await?;
                }
                if page.next.is_none() {
                    return Ok(());
                }
            }
        };
        match removed.await {
            Ok(()) => out.put(|buffer| FromDestination::Deleted(path).encode(buffer)).await,
            Err(Trouble { message, .. }) => {
                out.put(|buffer| FromDestination::NotDeleted { path, message }.encode(buffer)).await
            }
        }
    }
}
