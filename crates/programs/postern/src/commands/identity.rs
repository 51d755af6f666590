//! `postern identity …`: providers of the config and their keepers.

pub(super) mod doctor;
pub(super) mod exec;
pub(super) mod issuer;
pub(super) mod manifest;
pub(super) mod proxy;
pub(super) mod status;
pub(super) mod trust;
pub(super) mod write;

use super::Context;
use crate::cli::identity::Token as TokenArgs;
use crate::cli::{Format, Output};
use crate::failure::Failure;
use crate::printer::{self, Printer};
use postern_config::providers::{Cache, Provider};
use postern_identity::exchange::{Browser, Exchanger, Person};
use postern_identity::keeper::{CachedCredential, Clock as _, Directory, Keeper, SystemClock};
use postern_identity::render::{self, Form};
use std::io::IsTerminal as _;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Who can log in interactively: the user of a terminal, unless `CI` is set.
fn person(browser: Browser) -> Person {
    let said =
        |name: &str| std::env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    if said("CI") {
        Person::Nobody("CI is set")
    } else if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        Person::Nobody("stdin and stderr are no terminal")
    } else {
        Person::AtTerminal(browser)
    }
}

/// The named provider, or the only one.
pub(super) fn provider<'a>(
    context: &'a Context,
    name: Option<&'a str>,
) -> Result<(&'a str, &'a Provider), Failure> {
    let all = &context.config.providers;
    let known = || all.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let example = "see `postern identity token --help`; providers stand in the config under `providers`";
    match name {
        Some(name) => match all.get_key_value(name) {
            Some((name, provider)) => Ok((name, provider)),
            None if all.is_empty() => {
                Err(Failure::usage("the config names no provider", Some(example.to_owned())))
            }
            None => Err(Failure::usage(
                format!("there is no provider {name:?} in the config"),
                Some(format!("there are: {}", known())),
            )),
        },
        None => match all.iter().next() {
            None => Err(Failure::usage("the config names no provider", Some(example.to_owned()))),
            Some((name, provider)) if all.len() == 1 => Ok((name, provider)),
            Some(_) => Err(Failure::usage(
                "the config names several providers",
                Some(format!("say which: {}", known())),
            )),
        },
    }
}

/// The exchanger of a provider, for this command.
fn exchanger(context: &Context, name: &str, provider: &Provider, browser: Browser) -> Exchanger {
    Exchanger {
        name: name.to_owned(),
        provider: provider.clone(),
        cluster: context.target(),
        person: person(browser),
        listener: printer::listener(),
    }
}

/// The named provider, or all of them; an error if there are none.
fn one_or_all<'a>(
    context: &'a Context,
    named: Option<&'a str>,
) -> Result<Vec<(&'a str, &'a Provider)>, Failure> {
    let all = &context.config.providers;
    match named {
        None if !all.is_empty() => Ok(all.iter().map(|(name, found)| (name.as_str(), found)).collect()),
        _ => provider(context, named).map(|found| vec![found]),
    }
}

/// A provider's keeper.
pub(super) fn keeper(
    context: &Context,
    name: &str,
    provider: &Provider,
    browser: Browser,
) -> Arc<Keeper<Exchanger>> {
    let disk = (provider.cache() == Cache::Disk).then(Directory::of_user).flatten();
    let exchanger = exchanger(context, name, provider, browser);
    Keeper::new(name, exchanger, disk, Arc::new(SystemClock::new()), printer::listener())
}

/// A credential in the form of `-o`.
fn form(
    output: Output,
    name: &str,
    provider: &Provider,
    held: &CachedCredential,
) -> Result<Zeroizing<String>, Failure> {
    let form = match output {
        Output::Form(form) => form,
        Output::Format(Format::Text) | Output::Report(_) => Form::Raw,
        Output::Format(Format::Json | Format::Yaml) => Form::Json,
    };
    let info = std::env::var("KUBERNETES_EXEC_INFO").ok();
    let now = SystemClock::new().now();
    let text = render::render(form, name, provider, held, now, info.as_deref())
        .map_err(|error| Failure::usage(error.to_string(), None))?;
    if output == Output::Format(Format::Yaml) {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        return Ok(Zeroizing::new(serde_saphyr::to_string(&value).unwrap_or_default()));
    }
    Ok(text)
}

/// `postern identity token`.
pub(super) async fn token(context: &Context, args: TokenArgs, printer: &mut Printer) -> Result<u8, Failure> {
    let TokenArgs { provider: named, output, fresh, no_browser } = args;
    let (name, provider) = provider(context, named.as_deref())?;
    let browser = if no_browser { Browser::Leave } else { Browser::Start };
    let keeper = keeper(context, name, provider, browser);
    let held = if fresh { keeper.renewed().await } else { keeper.credential().await };
    let held = held.map_err(|error| Failure::identity(name, &error))?;
    let text = form(output, name, provider, &held)?;
    printer.raw(&text);
    Ok(0)
}
