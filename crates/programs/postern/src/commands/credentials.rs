//! The sources of the credential chain on this machine, and the flags that choose among them.

use super::Context;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_config::Config;
use postern_exec::exit;
use postern_ops::install::Reporter as _;
use postern_secret::credential::Credential;
use postern_secret::resolve::{
    KeychainAnswer, Notes, ResolveError, Resolved, Source, Sources, ask_at_terminal, resolve,
};
use postern_wire::Request;
use std::io;
use std::os::unix::ffi::OsStringExt;

/// The credential that is used if no flag names one and it is found without a prompt.
const DEFAULT: &str = postern_identity::ibm::CREDENTIAL;

struct Machine<'a>(&'a Config);

impl Sources for Machine<'_> {
    fn environment(&self, name: &str) -> Option<Vec<u8>> {
        std::env::var_os(name).map(OsStringExt::into_vec)
    }

    fn keychain(&self, name: &str) -> KeychainAnswer {
        postern_secret::keychain::look_up(name)
    }

    fn config(&self, name: &str) -> Option<Vec<u8>> {
        self.0.credential(name).map(|value| value.to_vec())
    }

    fn prompt(&self, name: &str) -> Option<io::Result<Vec<u8>>> {
        ask_at_terminal(&format!("{name}: "))
    }
}

/// Resolves the credentials of `--credential`; without any, the default one if it is found without a prompt.
pub(super) fn from_flags(
    context: &Context,
    flags: &[String],
    printer: &mut Printer,
) -> Result<Vec<Resolved>, Failure> {
    let machine = Machine(&context.config);
    let mut notes = Notes::default();
    let mut found = Vec::new();
    if flags.is_empty() {
        let (credential, only) = wanted(context, DEFAULT)?;
        let quiet: Vec<_> = Source::CHAIN.into_iter().filter(|source| *source != Source::Prompt).collect();
        match resolve(&machine, &credential, only, &quiet, &mut notes) {
            Ok(resolved) => found.push(resolved),
            Err(ResolveError::NotFound { .. }) => {}
            Err(error) => return Err(refused(&error, only)),
        }
    }
    let mut named: Vec<(Credential, Option<Source>)> = Vec::new();
    for flag in flags {
        let (credential, only) = wanted(context, flag)?;
        match named.iter().find(|(known, _)| *known == credential) {
            None => named.push((credential.clone(), only)),
            Some((_, source)) if *source == only => continue, // by an alias, or once more
            Some(_) => {
                let message =
                    format!("--credential {flag}: {} is named twice, with two sources", credential.name);
                return Err(Failure::usage(message, None));
            }
        }
        let resolved = resolve(&machine, &credential, only, &Source::CHAIN, &mut notes);
        found.push(resolved.map_err(|error| refused(&error, only))?);
    }
    if let Some(why) = notes.no_keychain {
        if flags.is_empty() {
            printer.verbose(&format!("no keychain here ({why})"));
        } else {
            printer.warn(&format!("there is no keychain here ({why}); the other sources were asked"));
        }
    }
    for Resolved { credential, secret: _, from } in &found {
        printer.verbose(&format!("{} comes from {from}", credential.name));
    }
    Ok(found)
}

/// A credential and its only source: the flag's, else the config's.
fn wanted(context: &Context, flag: &str) -> Result<(Credential, Option<Source>), Failure> {
    let (name, source) = flag.split_once('=').map_or((flag, None), |(name, source)| (name, Some(source)));
    let credential = Credential::named(name).map_err(|error| Failure::usage(error.to_string(), None))?;
    let configured = || {
        let mut names = credential.names.iter();
        names.find_map(|name| context.config.credentials.get(name)?.source.as_deref())
    };
    let only = match source.or_else(configured) {
        None => None,
        Some(text) => match Source::CHAIN.into_iter().find(|source| source.name() == text) {
            Some(source) => Some(source),
            None => {
                let message = format!("--credential {name}: {text:?} is not a source");
                return Err(Failure::usage(message, Some("use env, keychain, config or prompt".to_owned())));
            }
        },
    };
    Ok((credential, only))
}

/// `only` is the source that was pinned; the hint names no others.
fn refused(error: &ResolveError, only: Option<Source>) -> Failure {
    let hint = match error {
        ResolveError::NotFound { name, .. } => Some(match only {
            None => format!("export {name}=…, or put it into the config or the keychain"),
            Some(Source::Environment) => format!("export {name}=…, or leave the source out"),
            Some(Source::Keychain) => "put it into the keychain, or leave the source out".to_owned(),
            Some(Source::Config) => "put it into the config, or leave the source out".to_owned(),
            Some(Source::Prompt) => "it is asked for on a terminal only; leave the source out".to_owned(),
        }),
        ResolveError::NoKeychain { .. } => Some("leave the source out to ask the others too".to_owned()),
        ResolveError::TooShort { .. } | ResolveError::Prompt { .. } => None,
    };
    Failure::denied(error, hint)
}

/// Adds the credentials of `--credential` to a request.
pub(super) fn add(
    context: &Context,
    flags: &[String],
    request: &mut Request,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let found = from_flags(context, flags, printer).map_err(|failure| match failure.code {
        exit::DENIED => Failure { code: exit::NEVER_REACHED, ..failure },
        _ => failure,
    })?;
    for Resolved { credential, secret, from: _ } in found {
        let value = secret.expose().to_vec();
        request
            .secret_env
            .extend(credential.names.into_iter().map(|name| (name.into_bytes(), value.clone())));
    }
    Ok(())
}
