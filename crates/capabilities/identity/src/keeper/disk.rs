//! Credentials on disk, shared by all processes of this user. Each has its own file, whose name is a hash of
//! everything that determines the credential.
//!
//! The directory has mode 0700, files have mode 0600 and are replaced atomically. A file that has another owner or
//! cannot be read is moved aside. The locks are the kernel's (flock), so they end with their process, however it
//! ends.

use super::cached::CachedCredential;
use super::clock::Moment;
use crate::exchange::{Credential, Issued};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

const FORMAT: u32 = 1;
/// Larger than any token; a longer file was not written by Postern.
const LONGEST: u64 = 1024 * 1024;
/// The directory of the credentials.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Returns `$XDG_CACHE_HOME/postern/identity`, or the directory below `~/.cache`; `None` without either.
    pub fn of_user() -> Option<Self> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
        Some(Self { path: base.join("postern/identity") })
    }

    /// Returns a directory that the caller chose.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the entry of one credential. The file's name contains only a hash of `identity`.
    pub(super) fn entry(&self, identity: &str) -> Result<Entry, String> {
        self.prepare().map_err(|why| format!("{} cannot cache tokens: {why}", self.path.display()))?;
        Ok(Entry { directory: self.path.clone(), key: blake3::hash(identity.as_bytes()).to_string() })
    }

    /// Returns the stored credential, and the last failure since; changes nothing.
    pub fn peek(&self, identity: &str, now: Moment) -> (Option<CachedCredential>, Option<String>) {
        let key = blake3::hash(identity.as_bytes()).to_string();
        let entry = Entry { directory: self.path.clone(), key };
        let cached = File::open(entry.file("json")).ok().and_then(|mut file| entry.parse(&mut file).ok());
        let cached = cached.filter(|record| now.is_after(record.obtained)).map(Record::cached);
        (cached, entry.failure().map(|failed| failed.message))
    }

    fn prepare(&self) -> Result<(), String> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| error.to_string())?;
        let found = std::fs::symlink_metadata(&self.path).map_err(|error| error.to_string())?;
        if !found.is_dir() {
            return Err("it is not a directory".to_owned());
        }
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(format!("it belongs to user {}", found.uid()));
        }
        if found.mode() & 0o077 != 0 {
            // It is ours, so its mode may be corrected; the root of a volume may be open to others.
            let closed = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(&self.path, closed).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    format: u32,
    key: String,
    obtained: Moment,
    lifetime: Option<Duration>,
    credential: Credential,
}

impl Record {
    fn cached(self) -> CachedCredential {
        let Self { format: _, key: _, obtained, lifetime, credential } = self;
        CachedCredential::new(Issued { credential, lifetime }, obtained)
    }
}

/// A failure, for processes that waited for the result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) at: Moment,
    pub(super) message: String,
    pub(super) cause: Option<String>,
}

/// Whether to wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    UpTo(Duration),
    No,
}

/// The owner of a lock.
#[derive(Debug)]
pub(super) enum Locked {
    Mine(#[allow(dead_code, reason = "cached, and let go when dropped")] Option<File>),
    Theirs,
}

/// The files of one credential.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    directory: PathBuf,
    key: String,
}

impl Entry {
    fn file(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.key))
    }

    /// Waits for the lock.
    pub(super) async fn lock(&self, wait: Wait) -> Locked {
        use rustix::fs::FlockOperation::{LockExclusive, NonBlockingLockExclusive};
        let opened =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.file("lock"));
        // Without locks nothing can be shared either.
        let Ok(file) = opened else { return Locked::Mine(None) };
        match rustix::fs::flock(&file, NonBlockingLockExclusive) {
            Ok(()) => return Locked::Mine(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(_) => return Locked::Mine(None),
        }
        let Wait::UpTo(time_limit) = wait else { return Locked::Theirs };
        // The kernel wakes the thread as soon as the lock is free. A thread that outlives the time limit releases it
        // at once.
        let waiting =
            tokio::task::spawn_blocking(move || rustix::fs::flock(&file, LockExclusive).map(|()| file));
        match tokio::time::timeout(time_limit, waiting).await {
            Ok(Ok(Ok(file))) => Locked::Mine(Some(file)),
            Ok(_) => Locked::Mine(None),
            Err(_) => Locked::Theirs,
        }
    }

    /// Returns the stored credential. The error says what was moved aside, and why.
    pub(super) fn read(&self, now: Moment) -> Result<Option<CachedCredential>, String> {
        let path = self.file("json");
        let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let mut file = match OpenOptions::new().read(true).custom_flags(nofollow).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.set_aside(&path, &error.to_string())),
        };
        match self.parse(&mut file) {
            // The wall clock went back between two boots: the age is unknown.
            Ok(record) if !now.is_after(record.obtained) => Ok(None),
            Ok(record) => Ok(Some(record.cached())),
            Err(why) => Err(self.set_aside(&path, &why)),
        }
    }

    fn parse(&self, file: &mut File) -> Result<Record, String> {
        let found = file.metadata().map_err(|error| error.to_string())?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(format!("it belongs to user {}", found.uid()));
        }
        if found.mode() & 0o077 != 0 {
            return Err(format!("others may use it (mode {:03o})", found.mode() & 0o777));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let record = record(&bytes)?;
        if record.format != FORMAT || record.key != self.key {
            return Err("it is from another release, or of another provider".to_owned());
        }
        Ok(record)
    }

    fn set_aside(&self, path: &Path, why: &str) -> String {
        let aside = self.file("set-aside");
        let done = match std::fs::rename(path, &aside) {
            Ok(()) => {
                // It may contain a token, and others may have had access to it.
                let _ = std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o600));
                format!("set aside as {}", aside.display())
            }
            Err(error) => format!("and cannot be set aside ({error})"),
        };
        format!("the cached token {} cannot be used: {why}; {done}", path.display())
    }

    /// Stores a credential. The caller must hold the lock.
    pub(super) fn write(&self, cached: &CachedCredential) -> Result<(), String> {
        let record = Record {
            format: FORMAT,
            key: self.key.clone(),
            obtained: cached.obtained,
            lifetime: cached.lifetime,
            credential: cached.credential.clone(),
        };
        let bytes = serde_json::to_vec(&record).map(Zeroizing::new).map_err(|error| error.to_string())?;
        self.replace("json", &bytes).map_err(|error| error.to_string())?;
        let _ = std::fs::remove_file(self.file("failed"));
        Ok(())
    }

    /// Returns the last failure.
    pub(super) fn failure(&self) -> Option<Failed> {
        let mut bytes = Vec::new();
        File::open(self.file("failed")).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Stores the failure for waiting processes. Only they need it, so a write error is ignored.
    pub(super) fn fail(&self, failed: &Failed) {
        if let Ok(bytes) = serde_json::to_vec(failed) {
            let _ = self.replace("failed", &bytes);
        }
    }

    fn replace(&self, suffix: &str, bytes: &[u8]) -> io::Result<()> {
        crate::atomic_file::replace(&self.file(suffix), 0o600, |file| file.write_all(bytes))?;
        // Makes the rename durable.
        File::open(&self.directory)?.sync_all()
    }
}

/// Whether a stored credential can be parsed.
pub(crate) fn kept_file(bytes: &[u8]) -> Result<(), String> {
    record(bytes).map(|_| ())
}

/// Parses a stored credential; the content is untrusted.
fn record(bytes: &[u8]) -> Result<Record, String> {
    serde_json::from_slice(bytes).map_err(|_| "it is damaged".to_owned())
}
