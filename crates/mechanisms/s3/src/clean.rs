//! `cp --clean`: unfinished uploads of ours, by their records. Those of others are theirs.

use crate::journal::{self, Opening};
use crate::link::{Ended, Outbox};
use crate::store::Store;
use postern_wire::copy::{FromDestination, ReceiveSpec};

pub(crate) async fn clean(store: &Store, spec: &ReceiveSpec, out: &mut Outbox) -> Result<(), Ended> {
    let target = String::from_utf8_lossy(&spec.target).into_owned();
    // A key is what was written, down to its last slash.
    let whole = target.is_empty() || target.ends_with('/');
    let ours = |key: &str| {
        let rest = key.strip_prefix(target.as_str());
        rest.is_some_and(|rest| whole || rest.is_empty() || rest.starts_with('/'))
    };
    let records = store.journals.as_ref().and_then(|directory| std::fs::read_dir(directory).ok());
    for file in records.into_iter().flatten().flatten() {
        let path = file.path();
        if path.extension().is_none_or(|extension| extension != "upload") {
            continue;
        }
        let record = match journal::read(&path) {
            Ok(Some(record)) => record,
            Ok(None) | Err(Opening::Io(_)) => continue,
            Err(Opening::Busy) => {
                // Of which object it is, only who holds the lock may read.
                let message = "a copy is writing it at this moment".to_owned();
                let shown = path.to_string_lossy().into_owned();
                let path = shown.as_bytes();
                out.put(|buffer| FromDestination::NotDeleted { path, message }.encode(buffer)).await?;
                continue;
            }
        };
        let header = &record.header;
        if header.server != store.server || header.bucket != store.bucket || !ours(&header.key) {
            continue;
        }
        let key = header.key.clone();
        if !spec.dry_run {
            match store.abort(&key, &header.upload).await {
                Ok(()) => {
                    let _ = record.journal.remove(); // the next copy finds no such upload
                }
                Err(trouble) => {
                    let (path, message) = (key.as_bytes(), trouble.message);
                    out.put(|buffer| FromDestination::NotDeleted { path, message }.encode(buffer)).await?;
                    continue;
                }
            }
        }
        out.put(|buffer| FromDestination::Deleted(key.as_bytes()).encode(buffer)).await?;
    }
    out.put(|buffer| FromDestination::Finished.encode(buffer)).await?;
    out.flush().await
}
