//! Holds a provider's credential for many: asks once, renews in time, survives the provider's absence.
//!
//! - At 80 % of its life (a little earlier, by chance) a credential is renewed; who asks meanwhile gets the old one.
//! - While the provider is down the old one serves until 10 s before its end; then the failure is told.
//! - Who comes while somebody is asking waits for that answer, in this process and, with a cache on disk, in others.
//! - What came after one began to wait is an answer to one's question: that is how a credential without `expires_in`,
//!   asked for each time, and a failure are shared.

mod clock;
mod disk;
mod held;

pub use clock::{Clock, Moment, SystemClock};
pub use disk::Directory;
pub(crate) use disk::kept_file;
pub use held::Held;

use crate::call::jitter;
use crate::exchange::{Exchange, ExchangeError, Listener};
use disk::{Entry, Failed, Wait};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// After a failed renewal, how long until the next: doubled each time, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest that a provider's own wish to be left alone is heeded.
const LONGEST_HEED: Duration = Duration::from_secs(3_600);

/// How often a credential of unknown life is renewed for those who only look.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);

/// While a credential still serves, how long its renewal may keep a request waiting.
const COURTESY: Duration = Duration::from_secs(1);

/// A credential that was refused is asked for again at most this often: an API that refuses everything is no reason
/// to ask the provider at every request.
const REFUSALS_APART: Duration = Duration::from_secs(30);

/// There is no credential to give.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The exchange failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The exchange that another process made for all who were waiting failed.
    #[error("{message}")]
    Shared {
        /// What it said.
        message: String,
        /// What it usually means.
        cause: Option<String>,
    },
}

impl KeeperError {
    /// How long the provider asks us to wait, as far as we heed it.
    fn asked_to_wait(&self) -> Duration {
        let asked = match self {
            Self::Exchange(ExchangeError::Refused(refusal)) => refusal.retry_after,
            Self::Exchange(_) | Self::Shared { .. } => None,
        };
        asked.map_or(Duration::ZERO, Duration::from_secs).min(LONGEST_HEED)
    }

    /// What a refusal usually means.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Exchange(ExchangeError::Refused(refusal)) => refusal.cause.as_deref(),
            Self::Exchange(_) => None,
            Self::Shared { message: _, cause } => cause.as_deref(),
        }
    }
}

/// How many times what happened, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exchanges that gave a credential.
    pub exchanged: u64,
    /// Exchanges that failed.
    pub failed: u64,
    /// Credentials taken from the disk.
    pub adopted: u64,
}

#[derive(Default)]
struct Trouble {
    /// The last failure, with when it came.
    last: Option<(Moment, Arc<KeeperError>)>,
    in_a_row: u32,
    /// Until when no renewal is tried, as time since boot.
    until: Duration,
    /// The last credential that an API refused, and when.
    refused: Option<(blake3::Hash, Duration)>,
    /// That credential: one API's no is not the provider's, and it may have to serve on.
    aside: Option<Arc<Held>>,
    counts: Counts,
}

/// Holds one provider's credential.
pub struct Keeper<E> {
    name: String,
    exchange: E,
    clock: Arc<dyn Clock>,
    disk: Option<Directory>,
    listener: Listener,
    current: RwLock<Option<Arc<Held>>>,
    trouble: Mutex<Trouble>,
    flight: tokio::sync::Mutex<()>,
}

impl<E> std::fmt::Debug for Keeper<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What one gets, or why there is nothing to get; shared by all who waited.
pub type Kept = Result<Arc<Held>, Arc<KeeperError>>;

impl<E: Exchange> Keeper<E> {
    /// A keeper with nothing in it yet. `disk` is for what other processes may use too.
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
            trouble: Mutex::new(Trouble::default()),
            flight: tokio::sync::Mutex::new(()),
        })
    }

    /// The provider's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What asks.
    pub fn exchanger(&self) -> &E {
        &self.exchange
    }

    fn current(&self) -> Option<Arc<Held>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn trouble<T>(&self, look: impl FnOnce(&mut Trouble) -> T) -> T {
        look(&mut self.trouble.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is held, fresh or not; asks nobody.
    pub fn peek(&self) -> Option<Arc<Held>> {
        self.current()
    }

    /// What is held, if it needs no renewal yet. Costs no more than a look at the clock.
    pub fn fresh(&self) -> Option<Arc<Held>> {
        let held = self.current()?;
        held.is_fresh(self.clock.now()).then_some(held)
    }

    /// For how long a credential may still be used.
    pub fn usable_for(&self, held: &Held) -> Option<Duration> {
        held.usable_for(self.clock.now())
    }

    /// How many times what happened.
    pub fn counts(&self) -> Counts {
        self.trouble(|trouble| trouble.counts)
    }

    /// The failure that stands, if the last attempt failed.
    pub fn last_error(&self) -> Option<Arc<KeeperError>> {
        self.trouble(|trouble| {
            trouble.last.as_ref().filter(|_| trouble.in_a_row > 0).map(|(_, error)| error.clone())
        })
    }

    /// A credential that can be used now.
    pub async fn credential(self: &Arc<Self>) -> Kept {
        match self.fresh() {
            Some(held) => Ok(held),
            None => self.fly(false).await,
        }
    }

    /// A new credential, whatever is held.
    pub async fn renewed(self: &Arc<Self>) -> Kept {
        self.fly(true).await
    }

    /// Takes note that an API refused this credential (401). `true` when asking again may help: the first who says
    /// so of a credential makes it be asked for once; a second refusal within half a minute is the API's last word.
    pub fn refused(&self, held: &Held) -> bool {
        let (now, hash) = (self.clock.now().since_boot, held.hash());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|found| found.hash() != hash) {
            // Somebody said so before: a newer one is there, or on its way.
            return true;
        }
        self.trouble(|trouble| {
            // The provider may give the same one again, and the API refuse it again.
            if trouble.refused.is_some_and(|(_, at)| now.saturating_sub(at) < REFUSALS_APART) {
                return false;
            }
            trouble.refused = Some((hash, now));
            trouble.aside = current.take();
            true
        })
    }

    /// Renews in time, for ever. Failures are counted and told; they end nothing.
    pub async fn keep_fresh(self: Arc<Self>) {
        loop {
            let held = self.current();
            if held.as_ref().is_some_and(|held| held.lifetime.is_none()) {
                // Nobody knows how long it holds. Who asks gets one of their own; who only looks gets one now and then.
                tokio::time::sleep(UNKNOWN_LIFE).await;
                let _ = self.fly(true).await;
                continue;
            }
            let wait = held.and_then(|held| held.renewal_in(self.clock.now())).unwrap_or_default();
            let pause = self.trouble(|trouble| trouble.until.saturating_sub(self.clock.now().since_boot));
            // Not for longer than a while: a machine that slept did not count.
            let wait = wait.max(pause).min(LONGEST_PAUSE);
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
                continue;
            }
            let _ = self.fly(false).await;
            if self.fresh().is_none() {
                // It failed, or somebody else is at it.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Asks, in a task of its own: who asked may go away, and others are waiting for the answer.
    async fn fly(self: &Arc<Self>, renew: bool) -> Kept {
        let arrived = self.clock.now();
        let this = self.clone();
        let mut flight = tokio::spawn(async move { this.flight(arrived, renew).await });
        let landed = match self.current().filter(|held| !renew && self.is_usable(held)) {
            None => flight.await,
            Some(old) => match tokio::time::timeout(COURTESY, &mut flight).await {
                Ok(landed) => landed,
                // It goes on without us.
                Err(_) if self.is_usable(&old) => return Ok(old),
                Err(_) => flight.await,
            },
        };
        match landed {
            Ok(kept) => kept,
            Err(error) => Err(Arc::new(KeeperError::Shared { message: error.to_string(), cause: None })),
        }
    }

    /// Whether it may be used now.
    fn is_usable(&self, held: &Held) -> bool {
        self.usable_for(held).is_some_and(|left| !left.is_zero())
    }

    async fn flight(self: Arc<Self>, arrived: Moment, renew: bool) -> Kept {
        let old = self.current().filter(|held| !renew && self.is_usable(held));
        let _turn = match &old {
            Some(old) => match self.flight.try_lock() {
                Ok(turn) if !self.is_pausing() => turn,
                _ => return Ok(old.clone()),
            },
            None => self.flight.lock().await,
        };
        let suits = |held: &Held| {
            let answers_us = held.obtained.is_after(arrived);
            answers_us || (!renew && held.is_fresh(self.clock.now()))
        };
        if let Some(held) = self.current().filter(|held| suits(held)) {
            return Ok(held);
        }
        if let Some(error) = self.recent_failure(arrived) {
            return old.ok_or(error);
        }
        let asked = self.ask(arrived, renew, old.is_some(), &suits).await;
        // What serves on: the one that is due, or one that an API refused and that the provider did not replace.
        let still = || {
            let aside = self.trouble(|trouble| trouble.aside.clone());
            old.clone().or(aside).filter(|held| self.is_usable(held))
        };
        match asked {
            Ok(Some(held)) => Ok(held),
            // Another process is asking, and the old one is good until it has the answer.
            Ok(None) => still().ok_or_else(|| {
                self.failed(KeeperError::Shared {
                    message: "another process is asking".to_owned(),
                    cause: None,
                })
            }),
            Err(error) => {
                let error = self.failed(error);
                let Some(old) = still().filter(|_| !renew) else { return Err(error) };
                self.listener
                    .warn(&format!("{}: renewing failed, the old token serves on: {error}", self.name));
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(old.clone());
                Ok(old)
            }
        }
    }

    /// A failure that answers who arrived then: one that came since, or that is not a moment old. Without any token
    /// every request of a busy proxy would else be one to a provider that has just said no.
    fn recent_failure(&self, arrived: Moment) -> Option<Arc<KeeperError>> {
        let (at, error) = self.trouble(|trouble| trouble.last.clone().filter(|_| trouble.in_a_row > 0))?;
        let hold = PAUSE.max(error.asked_to_wait());
        let fresh = at.is_after(arrived) || arrived.since(at).is_some_and(|age| age < hold);
        fresh.then_some(error)
    }

    fn is_pausing(&self) -> bool {
        self.trouble(|trouble| self.clock.now().since_boot < trouble.until)
    }

    fn failed(&self, error: KeeperError) -> Arc<KeeperError> {
        let (error, now) = (Arc::new(error), self.clock.now());
        self.trouble(|trouble| {
            let pause = PAUSE.saturating_mul(1 << trouble.in_a_row.min(10)).min(LONGEST_PAUSE);
            let pause = pause.max(error.asked_to_wait());
            trouble.until = now.since_boot + pause + jitter(pause / 4);
            trouble.in_a_row += 1;
            trouble.counts.failed += 1;
            trouble.last = Some((now, error.clone()));
        });
        error
    }

    /// One exchange, or what another process has of one. `None`: somebody else is at it, and we need not wait.
    async fn ask(
        &self,
        arrived: Moment,
        renew: bool,
        may_leave: bool,
        suits: &(dyn Fn(&Held) -> bool + Sync),
    ) -> Result<Option<Arc<Held>>, KeeperError> {
        let identity = self.exchange.identity()?;
        let entry = self.disk.as_ref().and_then(|directory| self.entry(directory, &identity));
        let wait = if may_leave { Wait::No } else { Wait::UpTo(self.exchange.patience()) };
        let lock = match &entry {
            None => None,
            Some(entry) => match entry.lock(wait).await {
                disk::Locked::Mine(lock) => Some(lock),
                disk::Locked::Theirs if may_leave => return Ok(None),
                // Whoever holds it does not let go. We ask for ourselves, and leave the file to them.
                disk::Locked::Theirs => None,
            },
        };
        let mut last = self.current().or_else(|| self.trouble(|trouble| trouble.aside.clone()));
        if let Some(entry) = &entry {
            match entry.read(self.clock.now()) {
                Ok(Some(held)) => {
                    let refused = self.trouble(|trouble| trouble.refused.map(|(hash, _)| hash));
                    if suits(&held) && refused != Some(held.hash()) {
                        self.trouble(|trouble| trouble.counts.adopted += 1);
                        return Ok(Some(self.hold(held)));
                    }
                    // The newer one has the refresh token that was not used yet.
                    if last.as_ref().is_none_or(|last| !last.obtained.is_after(held.obtained)) {
                        last = Some(Arc::new(held));
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
                let held = Held::new(issued, self.clock.now());
                if let Some(Err(why)) = entry.as_ref().map(|entry| entry.write(&held)) {
                    self.listener.warn(&format!("{}: the token is not kept on disk: {why}", self.name));
                }
                self.trouble(|trouble| {
                    trouble.in_a_row = 0;
                    trouble.until = Duration::ZERO;
                    trouble.aside = None;
                    trouble.counts.exchanged += 1;
                });
                Ok(Some(self.hold(held)))
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

    fn hold(&self, held: Held) -> Arc<Held> {
        let held = Arc::new(held);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(held.clone());
        held
    }
}

#[cfg(test)]
mod tests;
