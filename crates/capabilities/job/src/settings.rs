//! What the user chooses.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A Job for one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The namespace.
    pub namespace: String,
    /// The Job's name.
    pub name: String,
    /// The image of the command.
    pub image: String,
    /// The image with the agent, which an init container copies; `None` if the command's image has it at
    /// `/usr/local/bin/postern-agent`.
    pub agent_image: Option<String>,
    /// CPU and memory.
    pub resources: Resources,
    /// The node, by name.
    pub node: Option<String>,
    /// Labels of the node.
    pub node_labels: Vec<(String, String)>,
    /// Taints that are tolerated.
    pub tolerations: Vec<Toleration>,
    /// The `ServiceAccount`, whose token is mounted; `None` mounts none.
    pub service_account: Option<String>,
    /// The user, for an image that runs as root or names its user by name.
    pub user: Option<User>,
    /// The Secret to pull the images with.
    pub image_pull_secret: Option<String>,
    /// How long the pod may take to start.
    pub start: Duration,
    /// When the command is ended; `None` for a day.
    pub timeout: Option<Duration>,
    /// Whether the Job stays.
    pub keep: bool,
}

/// CPU and memory, as Kubernetes quantities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Requested and at most. By default 50m are requested, of 500m.
    pub cpu: Option<Amount>,
    /// Requested and at most. By default 64Mi are requested, of 256Mi.
    pub memory: Option<Amount>,
}

/// A numeric user, and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group, if it is not the image's.
    pub gid: Option<u32>,
}

/// A taint that is tolerated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// The key; `None` for every taint.
    pub key: Option<String>,
    /// The value; `None` for any.
    pub value: Option<String>,
    /// The effect; `None` for all.
    pub effect: Option<String>,
}

/// A setting is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// A taint.
    #[error(
        "the toleration {0:?} is not KEY[=VALUE][:EFFECT] with the effect NoSchedule, PreferNoSchedule or NoExecute, nor *"
    )]
    Toleration(String),
    /// An amount of CPU or memory.
    #[error("the quantity {0:?} is not a number with an optional suffix, such as 500m, 2, 64Mi or 1.5G")]
    Quantity(String),
    /// A user.
    #[error("the user {0:?} is not UID[:GID] with numbers from 1")]
    User(String),
}

/// The suffixes of quantities, besides exponents.
const SUFFIXES: [&str; 16] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// A Kubernetes quantity, which stays as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount(pub(crate) String);

/// A number with the suffix of an exponent: `m`, `k`, `M`, `Ki`, `e3` and so on.
impl FromStr for Amount {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let end = text.find(|character: char| !character.is_ascii_digit() && character != '.');
        let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
        let is_number = number.parse::<f64>().is_ok_and(|number| number > 0.0);
        let is_exponent = |text: &str| text.parse::<i8>().is_ok();
        let is_suffix =
            SUFFIXES.contains(&suffix) || suffix.strip_prefix(['e', 'E']).is_some_and(is_exponent);
        if is_number && is_suffix {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSetting::Quantity(text.to_owned()))
        }
    }
}

/// As it is written.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `KEY[=VALUE][:EFFECT]`, as kubectl writes taints; `*` for every taint.
impl FromStr for Toleration {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSetting::Toleration(text.to_owned());
        let (taint, effect) = match text.rsplit_once(':') {
            Some((taint, effect)) => (taint, Some(effect)),
            None => (text, None),
        };
        if effect.is_some_and(|effect| !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)) {
            return Err(invalid());
        }
        let (key, value) = match taint.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (taint, None),
        };
        let effect = effect.map(str::to_owned);
        match key {
            "" => Err(invalid()),
            "*" if value.is_some() => Err(invalid()),
            "*" => Ok(Self { key: None, value: None, effect }),
            key => Ok(Self { key: Some(key.to_owned()), value, effect }),
        }
    }
}

/// `UID[:GID]`
impl FromStr for User {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let number = text.parse::<u32>().ok().filter(|number| *number > 0 && *number < u32::MAX);
            number.ok_or_else(|| InvalidSetting::User(text.to_owned()))
        };
        let invalid = |_| InvalidSetting::User(text.to_owned());
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(number(gid).map_err(invalid)?)),
            None => (text, None),
        };
        Ok(Self { uid: number(uid).map_err(invalid)?, gid })
    }
}

/// As on the command line.
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, gid } = self;
        match gid {
            Some(gid) => write!(f, "{uid}:{gid}"),
            None => write!(f, "{uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_written_as_kubectl_writes_taints() {
        let of = |key: Option<&str>, value: Option<&str>, effect: Option<&str>| Toleration {
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
            effect: effect.map(str::to_owned),
        };
        for (text, wanted) in [
            ("gpu", of(Some("gpu"), None, None)),
            ("gpu=a:NoSchedule", of(Some("gpu"), Some("a"), Some("NoSchedule"))),
            ("node.kubernetes.io/x:NoExecute", of(Some("node.kubernetes.io/x"), None, Some("NoExecute"))),
            ("*", of(None, None, None)),
            ("*:NoSchedule", of(None, None, Some("NoSchedule"))),
        ] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for text in ["", "=a", ":NoSchedule", "gpu:Never", "*=a"] {
            assert!(text.parse::<Toleration>().is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for text in ["1", "500m", "0.5", "64Mi", "1.5G", "1e3", "128974848"] {
            assert_eq!(text.parse(), Ok(Amount(text.to_owned())));
        }
        for text in ["", "two", "-1", "0", "64MB", "64 Mi", ".", "1..2", "1e", "m"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_user_is_numeric_and_not_root() {
        assert_eq!("1000".parse(), Ok(User { uid: 1000, gid: None }));
        assert_eq!("1000:2000".parse::<User>().unwrap().to_string(), "1000:2000");
        for text in ["", "0", "root", "1000:", "1000:0", "-1", "4294967295"] {
            assert_eq!(text.parse::<User>(), Err(InvalidSetting::User(text.to_owned())));
        }
    }
}
