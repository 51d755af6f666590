//! The user's settings, validated.

use crate::identity::Identity;
pub use crate::invalid_setting::{InvalidSetting, dns_name};
use crate::ops_pod::OpsPod;
use postern_secret::Secret;
use postern_secret::credential::Credential;
use std::collections::BTreeSet;
use std::time::Duration;

/// The part of the cluster that the tools in the ops pod may access with the pod's own identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// None: no token is mounted and no Role is bound.
    #[default]
    None,
    /// These namespaces, with a Role in each.
    Namespaces(BTreeSet<String>),
    /// All namespaces, with a `ClusterRole`.
    All,
}

impl Access {
    /// Formats it for the ServiceAccount's annotation.
    pub fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Namespaces(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(","),
            Self::All => "*".to_owned(),
        }
    }

    /// Parses the annotation: the namespaces, and whether all of them.
    pub fn parse(text: &str) -> (BTreeSet<String>, bool) {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let (all, names): (Vec<_>, Vec<_>) = parts.partition(|part| *part == "*");
        (names.into_iter().map(str::to_owned).collect(), !all.is_empty())
    }
}

/// Everything that determines an installation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The ops pod.
    pub pod: OpsPod,
    /// The pod's image.
    pub image: String,
    /// A Secret in the ops namespace for pulling the image.
    pub image_pull_secret: Option<String>,
    /// The access of the pod itself.
    pub access: Access,
    /// The credentials for its tools; empty without a static key.
    pub credentials: Vec<(Credential, Secret)>,
    /// The provider that trusts the pod, instead of a key.
    pub identity: Option<Identity>,
    /// Whether the agent also accepts runs through a port-forward.
    pub stream: bool,
    /// The time limit for the pod to be ready, and for running tools to finish.
    pub timeout: Duration,
    /// Replaces the pod even if nothing changed.
    pub force: bool,
}

impl Settings {
    /// Sets a provider's trust, and removes the key that it replaces.
    pub fn trust(&mut self, identity: Option<Identity>) {
        if let Some(identity) = &identity {
            self.credentials.retain(|(credential, _)| credential.name != identity.replaces);
        }
        self.identity = identity;
    }

    /// Rejects invalid values before anything is sent.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if let Some(name) = &self.image_pull_secret {
            dns_name("--image-pull-secret", name, 253)?;
        }
        if let Access::Namespaces(names) = &self.access {
            for name in names {
                dns_name("--cluster-access", name, 63)?;
            }
        }
        let image = &self.image;
        if image.is_empty() || image.contains(char::is_whitespace) || image.contains("://") {
            return Err(InvalidSetting {
                setting: "--image",
                value: image.clone(),
                why: "not an image reference; write it as REGISTRY/NAME:TAG, without a scheme".to_owned(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settings(access: Access) -> Settings {
        Settings {
            pod: OpsPod::default(),
            image: "example/ops:1".to_owned(),
            image_pull_secret: None,
            access,
            credentials: Vec::new(),
            identity: None,
            stream: false,
            timeout: Duration::from_secs(60),
            force: false,
        }
    }

    #[test]
    fn access_survives_its_annotation() {
        let access = Access::Namespaces(["b".to_owned(), "a".to_owned()].into());
        assert_eq!(access.text(), "a,b");
        assert_eq!(Access::parse("a,b"), (["a".to_owned(), "b".to_owned()].into(), false));
        assert_eq!(Access::parse("a,*"), (["a".to_owned()].into(), true));
        assert_eq!(Access::parse(""), (BTreeSet::new(), false));
    }
}
