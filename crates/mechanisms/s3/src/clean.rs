//! `cp --clean`: aborts unfinished uploads that have a record of ours. Uploads of others are kept.

use crate::journal::{self, OpenError};
use crate::link::{EndError, Outbox};
use crate::store::Store;
use postern_wire::copy::{FromDestination, ReceiveSpec};

pub(crate) async fn clean(store: &Store, spec: &ReceiveSpec, out: &mut Outbox) -> Result<(), EndError> {
    let target = String::from_utf8_lossy(&spec.target).into_owned();
    // A key is literal, including its trailing slash.
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
            Ok(None) | Err(OpenError::Io(_)) => continue,
            Err(OpenError::Busy) => {
                // Only the holder of the lock may read which object it is for.
                let message = "a copy is writing it".to_owned();
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
                    let _ = record.journal.remove(); // a stale record is harmless
                }
                Err(error) => {
                    let (path, message) = (key.as_bytes(), error.message);
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
