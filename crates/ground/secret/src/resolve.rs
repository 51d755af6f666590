//! Resolves a credential with one chain: environment → OS keychain → config file → prompt.

use crate::credential::Credential;
use crate::{Secret, TooShort};
use std::fmt;
use std::io;

/// Where a credential may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An environment variable of the credential's name or one of its aliases.
    Environment,
    /// The OS keychain (Secret Service).
    Keychain,
    /// The config file.
    Config,
    /// A prompt at the terminal.
    Prompt,
}

impl Source {
    /// All sources, in the order of the chain.
    pub const CHAIN: [Self; 4] = [Self::Environment, Self::Keychain, Self::Config, Self::Prompt];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Environment => "env",
            Self::Keychain => "keychain",
            Self::Config => "config",
            Self::Prompt => "prompt",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The result of a keychain lookup.
#[derive(Debug)]
pub enum KeychainAnswer {
    /// The value.
    Found(Vec<u8>),
    /// The keychain has no such credential.
    NotFound,
    /// There is no usable keychain, and why.
    Unavailable(String),
}

/// Access to the sources. The program implements it for the real ones, tests use a table.
pub trait Sources {
    /// Reads an environment variable.
    fn environment(&self, name: &str) -> Option<Vec<u8>>;
    /// Looks up an entry of the keychain.
    fn keychain(&self, name: &str) -> KeychainAnswer;
    /// Reads an entry of the config file.
    fn config(&self, name: &str) -> Option<Vec<u8>>;
    /// Prompts at the terminal without echo; `None` without a terminal.
    fn prompt(&self, name: &str) -> Option<io::Result<Vec<u8>>>;
}

/// Why a credential could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No source has it.
    #[error("{name} was not found in {searched}")]
    NotFound {
        /// The credential.
        name: String,
        /// The sources that were searched, for users.
        searched: String,
    },
    /// The value from a source is too short.
    #[error("reading {} from {from}", .source.name)]
    TooShort {
        /// Where it came from.
        from: Source,
        /// Details.
        source: TooShort,
    },
    /// The requested keychain is not available.
    #[error("reading {name} from the keychain: {why}")]
    NoKeychain {
        /// The credential.
        name: String,
        /// Why.
        why: String,
    },
    /// The terminal failed.
    #[error("asking for {name} at the terminal")]
    Prompt {
        /// The credential.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// A resolved credential.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What it is.
    pub credential: Credential,
    /// Its value.
    pub secret: Secret,
    /// Where it came from.
    pub from: Source,
}

/// Findings of resolving credentials.
#[derive(Debug, Default)]
pub struct Notes {
    /// Why there is no keychain. Set once, however many credentials are resolved.
    pub no_keychain: Option<String>,
}

/// Resolves `credential` from `only`, or from the first of `chain` that has it.
pub fn resolve(
    sources: &impl Sources,
    credential: &Credential,
    only: Option<Source>,
    chain: &[Source],
    notes: &mut Notes,
) -> Result<Resolved, ResolveError> {
    let chain = only.as_ref().map_or(chain, std::slice::from_ref);
    for &from in chain {
        let Some(value) = ask(sources, credential, from, only.is_some(), notes)? else { continue };
        let secret =
            Secret::new(&credential.name, value).map_err(|source| ResolveError::TooShort { from, source })?;
        return Ok(Resolved { credential: credential.clone(), secret, from });
    }
    let searched: Vec<_> = chain.iter().map(|source| source.name()).collect();
    Err(ResolveError::NotFound { name: credential.name.clone(), searched: searched.join(", ") })
}

fn ask(
    sources: &impl Sources,
    credential: &Credential,
    from: Source,
    pinned: bool,
    notes: &mut Notes,
) -> Result<Option<Vec<u8>>, ResolveError> {
    let mut names = credential.names.iter();
    match from {
        Source::Environment => {
            Ok(names.find_map(|name| sources.environment(name)).filter(|value| !value.is_empty()))
        }
        Source::Config => Ok(names.find_map(|name| sources.config(name))),
        Source::Keychain => {
            if notes.no_keychain.is_some() && !pinned {
                return Ok(None);
            }
            for name in names {
                match sources.keychain(name) {
                    KeychainAnswer::Found(value) => return Ok(Some(value)),
                    KeychainAnswer::NotFound => {}
                    KeychainAnswer::Unavailable(why) if pinned => {
                        return Err(ResolveError::NoKeychain { name: credential.name.clone(), why });
                    }
                    KeychainAnswer::Unavailable(why) => {
                        notes.no_keychain = Some(why);
                        return Ok(None);
                    }
                }
            }
            Ok(None)
        }
        Source::Prompt => sources
            .prompt(&credential.name)
            .transpose()
            .map_err(|source| ResolveError::Prompt { name: credential.name.clone(), source }),
    }
}

/// Reads a line from the terminal without echo. `None` where standard input is not a terminal.
pub fn ask_at_terminal(question: &str) -> Option<io::Result<Vec<u8>>> {
    use io::IsTerminal as _;
    io::stdin().is_terminal().then(|| rpassword::prompt_password(question).map(String::into_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[derive(Default)]
    struct Table {
        environment: Option<(&'static str, &'static str)>,
        keychain: Option<&'static str>,
        no_keychain: bool,
        config: Option<&'static str>,
        prompt: Option<&'static str>,
        asked: Cell<usize>,
    }

    impl Sources for Table {
        fn environment(&self, name: &str) -> Option<Vec<u8>> {
            self.environment.filter(|(known, _)| *known == name).map(|(_, value)| value.into())
        }
        fn keychain(&self, _: &str) -> KeychainAnswer {
            self.asked.set(self.asked.get() + 1);
            match self.keychain {
                _ if self.no_keychain => KeychainAnswer::Unavailable("no session bus".to_owned()),
                Some(value) => KeychainAnswer::Found(value.into()),
                None => KeychainAnswer::NotFound,
            }
        }
        fn config(&self, _: &str) -> Option<Vec<u8>> {
            self.config.map(Into::into)
        }
        fn prompt(&self, _: &str) -> Option<io::Result<Vec<u8>>> {
            self.prompt.map(|value| Ok(value.into()))
        }
    }

    fn run(table: &Table, only: Option<Source>) -> Result<(Source, String), ResolveError> {
        let credential = Credential::named("IC_API_KEY").unwrap();
        let found = resolve(table, &credential, only, &Source::CHAIN, &mut Notes::default())?;
        Ok((found.from, String::from_utf8(found.secret.expose().to_vec()).unwrap()))
    }

    #[test]
    fn the_chain_goes_in_order_and_knows_aliases() {
        let mut table = Table {
            environment: Some(("IC_API_KEY", "from-the-environment")),
            keychain: Some("from-the-keychain"),
            config: Some("from-the-config"),
            prompt: Some("from-the-prompt"),
            ..Table::default()
        };
        assert_eq!(run(&table, None).unwrap().0, Source::Environment);
        table.environment = Some(("IBMCLOUD_API_KEY", ""));
        assert_eq!(run(&table, None).unwrap().0, Source::Keychain);
        table.keychain = None;
        assert_eq!(run(&table, None).unwrap().0, Source::Config);
        table.config = None;
        assert_eq!(run(&table, None).unwrap(), (Source::Prompt, "from-the-prompt".to_owned()));
        table.prompt = None;
        let error = run(&table, None).unwrap_err();
        assert_eq!(error.to_string(), "IBMCLOUD_API_KEY was not found in env, keychain, config, prompt");
    }

    #[test]
    fn a_pin_asks_only_its_source() {
        let table = Table { environment: Some(("IC_API_KEY", "from-the-environment")), ..Table::default() };
        assert!(matches!(run(&table, Some(Source::Config)), Err(ResolveError::NotFound { .. })));
        let table = Table { no_keychain: true, config: Some("from-the-config"), ..Table::default() };
        assert!(matches!(run(&table, Some(Source::Keychain)), Err(ResolveError::NoKeychain { .. })));
    }

    #[test]
    fn a_missing_keychain_is_noted_once_and_not_asked_again() {
        let table = Table { no_keychain: true, config: Some("from-the-config"), ..Table::default() };
        let mut notes = Notes::default();
        for name in ["A", "B", "C"] {
            let credential = Credential::named(name).unwrap();
            resolve(&table, &credential, None, &Source::CHAIN, &mut notes).unwrap();
        }
        assert_eq!((table.asked.get(), notes.no_keychain.as_deref()), (1, Some("no session bus")));
    }

    #[test]
    fn a_short_value_is_refused_and_not_shown() {
        let table = Table { config: Some("short"), ..Table::default() };
        let error = run(&table, None).unwrap_err();
        assert!(matches!(error, ResolveError::TooShort { from: Source::Config, .. }));
        assert!(!format!("{error} {error:?}").contains("short\""));
    }
}
