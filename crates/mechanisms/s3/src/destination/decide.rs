//! Decides whether a file is kept, compared or requested.

use super::{Event, Looked, ObjectReceiver, Wanted, settle};
use crate::error::{Kind as Because, RequestError};
use crate::link::{EndError, Outbox};
use crate::posix::{Posix, Type};
use crate::upload::prefix;
use postern_files::policy;
use postern_wire::copy::{Compare, Entry, Fate, FromDestination, Kind, Stamp, Want};
use std::sync::Arc;

impl ObjectReceiver<'_> {
    /// Inspects the existing object before deciding.
    pub(super) fn look(&mut self, entry: Box<Entry>, key: String, resumes: bool) {
        let (store, requests) = (self.store.clone(), Arc::clone(&self.requests));
        let Kind::File(size) = entry.kind else { return };
        let stamp = entry.stamp;
        self.tasks.spawn(async move {
            let _turn = requests.acquire().await;
            let found = match store.head(&key).await {
                // Without permission to read, S3 returns this for objects that do not exist.
                Err(RequestError { kind: Because::Denied, .. }) => Ok(None),
                other => other,
            };
            let record = if resumes { store.unfinished(&key, size, stamp).await } else { Ok(None) };
            Event::Looked(Box::new(Looked { entry, key, found, record }))
        });
    }

    /// Compares a file with the existing object and requests what is missing.
    pub(super) async fn decide(&mut self, looked: Looked, out: &mut Outbox) -> Result<(), EndError> {
        let Looked { entry, key, found, record } = looked;
        let Kind::File(size) = entry.kind else { return Ok(()) };
        let mut want = Want::all(entry.id);
        let (found, record) = match (found, record) {
            (Ok(found), Ok(record)) => (found, record),
            (Err(RequestError { message, .. }), _) | (_, Err(message)) => {
                return self.failed(&key, entry.id, message, out).await;
            }
        };
        let mut posix = Posix { kind: Type::File, stamp: self.owned(entry.stamp), hash: None, kept: true };
        let mut whole = false;
        if found.is_none() && self.spec.delete.counts() {
            self.extras.fresh.insert(key.clone());
        }
        if let Some(there) = found.filter(|there| there.posix.kind == Type::File) {
            let own = there.posix.stamp;
            let equal =
                there.size == size && (own.seconds, own.nanos) == (entry.stamp.seconds, entry.stamp.nanos);
            // A large object has no hash of ours: it was unknown when its upload began.
            let unknown = there.posix.hash.is_none() && self.spec.compare == Compare::Verify;
            let newer = policy::is_newer(own, entry.stamp);
            let left = match () {
                () if equal && (entry.settled || size == 0) => Some(Fate::Same),
                () if equal && (self.spec.compare == Compare::Times || unknown) => Some(Fate::Unchanged),
                () if self.spec.update && newer => Some(Fate::Skipped),
                () => None,
            };
            if let Some(fate) = left {
                self.busy.remove(&key);
                let note = if fate == Fate::Skipped { policy::NEWER } else { "" };
                return settle(out, entry.id, fate, note.to_owned()).await;
            }
            if there.size == size
                && (equal || self.spec.compare == Compare::Hash)
                && let Some(hash) = there.posix.hash
            {
                (want.have, want.hash, whole) = (size, hash, true);
            }
            if there.posix.kept && !self.spec.preserve {
                let Stamp { mode, user, group, .. } = own;
                let owner = self.spec.owner;
                posix.stamp.mode = mode;
                posix.stamp.user = owner.user.unwrap_or(user);
                posix.stamp.group = owner.group.unwrap_or(group);
            }
        }
        if self.spec.dry_run {
            self.busy.remove(&key);
            return settle(out, entry.id, Fate::Planned, String::new()).await;
        }
        if !whole && let Some((have, hash)) = record.as_ref().and_then(prefix) {
            (want.have, want.hash, want.partial) = (have, hash, true);
        }
        out.put(|buffer| FromDestination::Want(want).encode(buffer)).await?;
        self.wanted.push_back(Wanted { entry, key, posix, have: want.have, whole, record });
        Ok(())
    }
}
