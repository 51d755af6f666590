//! Caches a provider's credential for many callers: obtains it once, renews it in time, and tolerates the provider's
//! outages.
//!
//! - At 80 % of its lifetime (a random time earlier) a credential is renewed; meanwhile callers get the old one.
//! - While the provider is down, the old credential is used until 10 s before its end; then callers get the error.
//! - A caller that arrives during an exchange waits for its result, in this process and, with a cache on disk, in
//!   others.
//! - A result that arrives after a caller began to wait is valid for that caller. So a credential without
//!   `expires_in`, which is requested each time, is shared, and so is an error.

mod cached;
mod clock;
mod disk;

pub use cached::CachedCredential;
pub use clock::{Clock, Moment, SystemClock};
pub use disk::Directory;
pub(crate) use disk::kept_file;

use crate::exchange::{Exchange, ExchangeError, Listener};
use crate::request::jitter;
use disk::{Entry, Failed, Wait};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// The pause after a failed renewal: doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause that a provider can ask for.
const LONGEST_REQUESTED_PAUSE: Duration = Duration::from_secs(3_600);

/// How often a credential of unknown lifetime is renewed in the background.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);

/// While a credential is still valid, a request waits at most this long for its renewal.
const RENEWAL_WAIT: Duration = Duration::from_secs(1);

/// The minimum interval between two exchanges that a rejected credential causes. If an API rejects everything, the
/// provider must not get a request each time.
const REJECTION_INTERVAL: Duration = Duration::from_secs(30);

/// There is no credential.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The exchange failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The shared exchange of another process failed.
    #[error("{message}")]
    Shared {
        /// The message of its error.
        message: String,
        /// The usual cause.
        cause: Option<String>,
    },
}

impl KeeperError {
    /// Returns the wait that the provider asks for, up to the limit.
    fn requested_wait(&self) -> Duration {
        let requested = match self {
            Self::Exchange(ExchangeError::Refused(refusal)) => refusal.retry_after,
            Self::Exchange(_) | Self::Shared { .. } => None,
        };
        requested.map_or(Duration::ZERO, Duration::from_secs).min(LONGEST_REQUESTED_PAUSE)
    }

    /// Returns the usual cause of a refusal.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Exchange(ExchangeError::Refused(refusal)) => refusal.cause.as_deref(),
            Self::Exchange(_) => None,
            Self::Shared { message: _, cause } => cause.as_deref(),
        }
    }
}

/// Event counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exchanges that returned a credential.
    pub exchanged: u64,
    /// Exchanges that failed.
    pub failed: u64,
    /// Credentials read from the disk.
    pub adopted: u64,
}

#[derive(Default)]
struct Failures {
    /// The last failure, and its time.
    last: Option<(Moment, Arc<KeeperError>)>,
    in_a_row: u32,
    /// No renewal is tried before this time since boot.
    until: Duration,
    /// The last credential that an API rejected, and the time.
    refused: Option<(blake3::Hash, Duration)>,
    /// That credential. One API rejected it, but it is used again if the provider issues no other.
    aside: Option<Arc<CachedCredential>>,
    counts: Counts,
}

/// Caches one provider's credential.
pub struct Keeper<E> {
    name: String,
    exchange: E,
    clock: Arc<dyn Clock>,
    disk: Option<Directory>,
    listener: Listener,
    current: RwLock<Option<Arc<CachedCredential>>>,
    failures: Mutex<Failures>,
    exchange_lock: tokio::sync::Mutex<()>,
}

impl<E> std::fmt::Debug for Keeper<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A credential or an error, shared by all callers that waited.
pub type CredentialResult = Result<Arc<CachedCredential>, Arc<KeeperError>>;

impl<E: Exchange> Keeper<E> {
    /// Returns an empty keeper. `disk` is the cache that other processes share.
    pub fn new(
        name: &str,
        exchange: E,
        disk: Option<Directory>,
        clock: Arc<dyn Clock>,
        listener: Listener,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            exchange,
            clock,
            disk,
            listener,
            current: RwLock::new(None),
            failures: Mutex::new(Failures::default()),
            exchange_lock: tokio::sync::Mutex::new(()),
        })
    }

    /// Returns the provider's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the exchanger.
    pub fn exchanger(&self) -> &E {
        &self.exchange
    }

    fn current(&self) -> Option<Arc<CachedCredential>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failures<T>(&self, look: impl FnOnce(&mut Failures) -> T) -> T {
        look(&mut self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the cached credential, fresh or not. Sends no requests.
    pub fn peek(&self) -> Option<Arc<CachedCredential>> {
        self.current()
    }

    /// Returns the cached credential if it needs no renewal yet. Only reads the clock.
    pub fn fresh(&self) -> Option<Arc<CachedCredential>> {
        let cached = self.current()?;
        cached.is_fresh(self.clock.now()).then_some(cached)
    }

    /// Returns how long a credential may still be used.
    pub fn usable_for(&self, cached: &CachedCredential) -> Option<Duration> {
        cached.usable_for(self.clock.now())
    }

    /// Returns the event counts.
    pub fn counts(&self) -> Counts {
        self.failures(|failures| failures.counts)
    }

    /// Returns the current error, if the last attempt failed.
    pub fn last_error(&self) -> Option<Arc<KeeperError>> {
        self.failures(|failures| {
            failures.last.as_ref().filter(|_| failures.in_a_row > 0).map(|(_, error)| error.clone())
        })
    }

    /// Returns a credential that can be used now.
    pub async fn credential(self: &Arc<Self>) -> CredentialResult {
        match self.fresh() {
            Some(cached) => Ok(cached),
            None => self.share_exchange(false).await,
        }
    }

    /// Returns a new credential, even if one is cached.
    pub async fn renewed(self: &Arc<Self>) -> CredentialResult {
        self.share_exchange(true).await
    }

    /// Records that an API rejected this credential (401). Returns `true` if a retry may help: the first rejection of
    /// a credential causes one exchange. A second rejection within half a minute is final.
    pub fn refused(&self, cached: &CachedCredential) -> bool {
        let (now, hash) = (self.clock.now().since_boot, cached.hash());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|found| found.hash() != hash) {
            // Another caller has reported it already: a newer credential is cached or is being obtained.
            return true;
        }
        self.failures(|failures| {
            // The provider may return the same credential, and the API may reject it again.
            if failures.refused.is_some_and(|(_, at)| now.saturating_sub(at) < REJECTION_INTERVAL) {
                return false;
            }
            failures.refused = Some((hash, now));
            failures.aside = current.take();
            true
        })
    }

    /// Renews in time, for ever. Failures are counted and reported, and the loop continues.
    pub async fn keep_fresh(self: Arc<Self>) {
        loop {
            let cached = self.current();
            if cached.as_ref().is_some_and(|cached| cached.lifetime.is_none()) {
                // Its lifetime is unknown. Each caller gets a new one; background readers get a new one from time to
                // time.
                tokio::time::sleep(UNKNOWN_LIFE).await;
                let _ = self.share_exchange(true).await;
                continue;
            }
            let wait = cached.and_then(|cached| cached.renewal_in(self.clock.now())).unwrap_or_default();
            let pause = self.failures(|failures| failures.until.saturating_sub(self.clock.now().since_boot));
            // With a limit, because time while the machine is suspended does not count.
            let wait = wait.max(pause).min(LONGEST_PAUSE);
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
                continue;
            }
            let _ = self.share_exchange(false).await;
            if self.fresh().is_none() {
                // The renewal failed, or another process is renewing.
                tokio::time::sleep(FIRST_PAUSE).await;
            }
        }
    }

    /// Runs the exchange in a separate task: the caller may be dropped, and others wait for the result.
    async fn share_exchange(self: &Arc<Self>, renew: bool) -> CredentialResult {
        let arrived = self.clock.now();
        let this = self.clone();
        let mut task = tokio::spawn(async move { this.run_exchange(arrived, renew).await });
        let result = match self.current().filter(|cached| !renew && self.is_usable(cached)) {
            None => task.await,
            Some(old) => match tokio::time::timeout(RENEWAL_WAIT, &mut task).await {
                Ok(result) => result,
                // The task continues without this caller.
                Err(_) if self.is_usable(&old) => return Ok(old),
                Err(_) => task.await,
            },
        };
        match result {
            Ok(kept) => kept,
            Err(error) => Err(Arc::new(KeeperError::Shared { message: error.to_string(), cause: None })),
        }
    }

    /// Whether it may be used now.
    fn is_usable(&self, cached: &CachedCredential) -> bool {
        self.usable_for(cached).is_some_and(|left| !left.is_zero())
    }

    async fn run_exchange(self: Arc<Self>, arrived: Moment, renew: bool) -> CredentialResult {
        let old = self.current().filter(|cached| !renew && self.is_usable(cached));
        let _turn = match &old {
            Some(old) => match self.exchange_lock.try_lock() {
                Ok(turn) if !self.is_pausing() => turn,
                _ => return Ok(old.clone()),
            },
            None => self.exchange_lock.lock().await,
        };
        let suits = |cached: &CachedCredential| {
            let answers_us = cached.obtained.is_after(arrived);
            answers_us || (!renew && cached.is_fresh(self.clock.now()))
        };
        if let Some(cached) = self.current().filter(|cached| suits(cached)) {
            return Ok(cached);
        }
        if let Some(error) = self.recent_failure(arrived) {
            return old.ok_or(error);
        }
        let outcome = self.adopt_or_exchange(arrived, renew, old.is_some(), &suits).await;
        // The fallback: the credential that is due for renewal, or one that an API rejected and the provider did not
        // replace.
        let still = || {
            let aside = self.failures(|failures| failures.aside.clone());
            old.clone().or(aside).filter(|cached| self.is_usable(cached))
        };
        match outcome {
            Ok(Some(cached)) => Ok(cached),
            // Another process is running an exchange, and the old credential is valid until it has finished.
            Ok(None) => still().ok_or_else(|| {
                self.failed(KeeperError::Shared {
                    message: "another process is running the exchange".to_owned(),
                    cause: None,
                })
            }),
            Err(error) => {
                let error = self.failed(error);
                let Some(old) = still().filter(|_| !renew) else { return Err(error) };
                self.listener
                    .warn(&format!("{}: renewing failed, the old token is still used: {error}", self.name));
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(old.clone());
                Ok(old)
            }
        }
    }

    /// Returns an error that applies to this caller: one that occurred since it arrived, or a moment before.
    /// Otherwise, without any token, every request of a busy proxy would cause a request to a provider that has just
    /// refused.
    fn recent_failure(&self, arrived: Moment) -> Option<Arc<KeeperError>> {
        let (at, error) =
            self.failures(|failures| failures.last.clone().filter(|_| failures.in_a_row > 0))?;
        let hold = FIRST_PAUSE.max(error.requested_wait());
        let fresh = at.is_after(arrived) || arrived.since(at).is_some_and(|age| age < hold);
        fresh.then_some(error)
    }

    fn is_pausing(&self) -> bool {
        self.failures(|failures| self.clock.now().since_boot < failures.until)
    }

    fn failed(&self, error: KeeperError) -> Arc<KeeperError> {
        let (error, now) = (Arc::new(error), self.clock.now());
        self.failures(|failures| {
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.in_a_row.min(10)).min(LONGEST_PAUSE);
            let pause = pause.max(error.requested_wait());
            failures.until = now.since_boot + pause + jitter(pause / 4);
            failures.in_a_row += 1;
            failures.counts.failed += 1;
            failures.last = Some((now, error.clone()));
        });
        error
    }

    /// Runs one exchange, or reads the result of another process. `None`: another process is running one, and this
    /// caller need not wait.
    async fn adopt_or_exchange(
        &self,
        arrived: Moment,
        renew: bool,
        may_leave: bool,
        suits: &(dyn Fn(&CachedCredential) -> bool + Sync),
    ) -> Result<Option<Arc<CachedCredential>>, KeeperError> {
        let identity = self.exchange.identity()?;
        let entry = self.disk.as_ref().and_then(|directory| self.entry(directory, &identity));
        let wait = if may_leave { Wait::No } else { Wait::UpTo(self.exchange.time_limit()) };
        let lock = match &entry {
            None => None,
            Some(entry) => match entry.lock(wait).await {
                disk::Locked::Mine(lock) => Some(lock),
                disk::Locked::Theirs if may_leave => return Ok(None),
                // The lock's owner does not release it. This process runs its own exchange, and does not write the
                // file.
                disk::Locked::Theirs => None,
            },
        };
        let mut last = self.current().or_else(|| self.failures(|failures| failures.aside.clone()));
        if let Some(entry) = &entry {
            match entry.read(self.clock.now()) {
                Ok(Some(cached)) => {
                    let refused = self.failures(|failures| failures.refused.map(|(hash, _)| hash));
                    if suits(&cached) && refused != Some(cached.hash()) {
                        self.failures(|failures| failures.counts.adopted += 1);
                        return Ok(Some(self.store(cached)));
                    }
                    // The newer one has the refresh token that was not used yet.
                    if last.as_ref().is_none_or(|last| !last.obtained.is_after(cached.obtained)) {
                        last = Some(Arc::new(cached));
                    }
                }
                Ok(None) => {}
                Err(why) => self.listener.warn(&format!("{}: {why}", self.name)),
            }
            if let Some(Failed { at: _, message, cause }) =
                entry.failure().filter(|failed| !renew && failed.at.is_after(arrived))
            {
                return Err(KeeperError::Shared { message, cause });
            }
        }
        let entry = entry.filter(|_| lock.is_some());
        match self.exchange.exchange(last.and_then(|last| last.refresh_token())).await {
            Ok(issued) => {
                let cached = CachedCredential::new(issued, self.clock.now());
                if let Some(Err(why)) = entry.as_ref().map(|entry| entry.write(&cached)) {
                    self.listener.warn(&format!("{}: the token is not cached on disk: {why}", self.name));
                }
                self.failures(|failures| {
                    failures.in_a_row = 0;
                    failures.until = Duration::ZERO;
                    failures.aside = None;
                    failures.counts.exchanged += 1;
                });
                Ok(Some(self.store(cached)))
            }
            Err(error) => {
                let error = KeeperError::from(error);
                if let Some(entry) = &entry {
                    let cause = error.cause().map(str::to_owned);
                    entry.fail(&Failed { at: self.clock.now(), message: error.to_string(), cause });
                }
                Err(error)
            }
        }
    }

    fn entry(&self, directory: &Directory, identity: &str) -> Option<Entry> {
        directory.entry(identity).map_err(|why| self.listener.warn(&format!("{}: {why}", self.name))).ok()
    }

    fn store(&self, cached: CachedCredential) -> Arc<CachedCredential> {
        let cached = Arc::new(cached);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(cached.clone());
        cached
    }
}

#[cfg(test)]
mod tests;
