//! A clock that does not jump.
//!
//! Ages are measured with the clock that counts from boot, including suspend, and that cannot be set
//! (`CLOCK_BOOTTIME`). The wall clock is used only across boots, for credentials on disk.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The identity of the boot, if known; otherwise 0.
    pub boot: u128,
    /// The time since boot.
    pub since_boot: Duration,
    /// The time since 1970, by the wall clock.
    pub wall: Duration,
}

impl Moment {
    /// Returns how much later than `earlier` this is. `None` if it seems to be before `earlier`: then the age is
    /// unknown.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        if self.boot == earlier.boot && self.boot != 0 {
            self.since_boot.checked_sub(earlier.since_boot)
        } else {
            self.wall.checked_sub(earlier.wall)
        }
    }

    /// Whether this is not before `other`.
    pub fn is_after(self, other: Self) -> bool {
        self.since(other).is_some()
    }
}

/// A source of time.
pub trait Clock: Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Moment;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    boot: u128,
}

impl SystemClock {
    /// Reads the boot's identity once.
    pub fn new() -> Self {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let id: String = id.chars().filter(char::is_ascii_hexdigit).collect();
        Self { boot: u128::from_str_radix(&id, 16).unwrap_or_default() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment {
            boot: self.boot,
            since_boot: since_boot(),
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }
}

fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: u128, since_boot: u64, wall: u64) -> Moment {
        Moment { boot, since_boot: Duration::from_secs(since_boot), wall: Duration::from_secs(wall) }
    }

    #[test]
    fn a_wall_clock_that_is_set_changes_no_age_within_a_boot() {
        assert_eq!(moment(1, 70, 5).since(moment(1, 10, 1_000)), Some(Duration::from_secs(60)));
        assert_eq!(moment(1, 70, 9_000).since(moment(1, 10, 1_000)), Some(Duration::from_secs(60)));
        // Another boot, or a machine without a boot identity: the wall clock is used, unless it went back.
        assert_eq!(moment(2, 1, 1_060).since(moment(1, 10, 1_000)), Some(Duration::from_secs(60)));
        assert_eq!(moment(2, 1, 999).since(moment(1, 10, 1_000)), None);
        assert_eq!(moment(0, 70, 1_001).since(moment(0, 10, 1_000)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn the_machines_clock_runs() {
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(clock.now().is_after(first));
    }
}
