//! Credential names and their aliases.

/// A credential's canonical name and the names of the variables that carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The canonical name.
    pub name: String,
    /// All names, the canonical one first.
    pub names: Vec<String>,
}

/// Names of the same credential, the canonical name first.
const ALIASES: &[&[&str]] = &[&["IBMCLOUD_API_KEY", "IC_API_KEY"]];

/// Variables that programs read for other purposes: setting one as a credential would change how a tool
/// behaves.
const RESERVED: [&str; 12] =
    ["BASH_ENV", "ENV", "HOME", "IFS", "LANG", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];

/// The name is not usable for a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It is not a valid name of an environment variable.
    #[error("{0:?} is not a credential name: use letters, digits and underscores, not starting with a digit")]
    Characters(String),
    /// It is a variable that every program reads.
    #[error("{0} cannot be a credential: every tool reads this variable")]
    Reserved(String),
}

impl Credential {
    /// The credential with this name or alias.
    pub fn named(name: &str) -> Result<Self, InvalidName> {
        let valid = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if !valid {
            return Err(InvalidName::Characters(name.to_owned()));
        }
        if RESERVED.contains(&name) || name.starts_with("LD_") || name.starts_with("LC_") {
            return Err(InvalidName::Reserved(name.to_owned()));
        }
        let names = match ALIASES.iter().find(|group| group.contains(&name)) {
            Some(group) => group.iter().map(|&alias| alias.to_owned()).collect(),
            None => vec![name.to_owned()],
        };
        Ok(Self { name: names[0].clone(), names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_its_credential() {
        let key = Credential::named("IC_API_KEY").unwrap();
        assert_eq!(key, Credential::named("IBMCLOUD_API_KEY").unwrap());
        assert_eq!(key.names, ["IBMCLOUD_API_KEY", "IC_API_KEY"]);
    }

    #[test]
    fn invalid_environment_names_are_refused() {
        for name in ["", "1A", "A-B", "A=B", "Ä"] {
            assert_eq!(Credential::named(name), Err(InvalidName::Characters(name.to_owned())));
        }
        for name in ["PATH", "HOME", "LD_PRELOAD", "LC_ALL"] {
            assert_eq!(Credential::named(name), Err(InvalidName::Reserved(name.to_owned())));
        }
        assert!(Credential::named("PATHS").is_ok());
    }
}
