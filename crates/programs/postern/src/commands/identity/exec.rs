//! `postern identity exec`.

use super::{keeper, provider};
use crate::cli::identity::Exec as Args;
use crate::commands::Context;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_identity::exchange::Browser;
use postern_identity::sdk::{self, ChildEnvironment};
use std::os::unix::process::ExitStatusExt as _;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

pub(in crate::commands) async fn run(
    context: &Context,
    args: Args,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let Args { providers, command } = args;
    let mut chosen = Vec::new();
    for named in &providers {
        chosen.push(provider(context, Some(named))?);
    }
    let mut kits = Vec::new();
    for (name, provider) in chosen {
        let keeper = keeper(context, name, provider, Browser::Start);
        // Before the command starts: what cannot work should not begin.
        let held = keeper.credential().await.map_err(|error| Failure::identity(name, &error))?;
        let kit = ChildEnvironment::prepare(keeper, &held).await.map_err(|error| {
            Failure::denied(&error, Some("a private directory is needed: check $TMPDIR".to_owned()))
        })?;
        kits.push(kit);
    }
    let [program, arguments @ ..] = command.as_slice() else { return Ok(0) };
    let mut child = Command::new(program);
    child.args(arguments).kill_on_drop(true);
    let mut given: Vec<&str> = Vec::new();
    for kit in &kits {
        for name in sdk::conflicting_variables(kit.provider()) {
            child.env_remove(name);
        }
        for (name, value) in kit.variables() {
            if given.contains(&name.as_str()) {
                return Err(Failure::usage(
                    format!("two of the providers would both set {name}"),
                    Some("run one command for each".to_owned()),
                ));
            }
            given.push(name);
            child.env(name, value.as_str());
        }
    }
    printer.verbose(&format!("in its environment: {}", given.join(", ")));
    let signals =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
    let mut heard = Vec::new();
    for kind in signals {
        heard.push(signal(kind).map_err(|error| Failure::denied(&error, None))?);
    }
    let shown = program.to_string_lossy().into_owned();
    let mut child =
        child.spawn().map_err(|error| Failure::not_reached(&format!("{shown} cannot be started"), &error))?;
    let [interrupt, terminate, hangup, quit] = heard.as_mut_slice() else { return Ok(0) };
    let ended = loop {
        let signal = tokio::select! {
            ended = child.wait() => break ended,
            // From the terminal they reach the command too, by its process group.
            _ = interrupt.recv() => continue,
            _ = quit.recv() => continue,
            _ = terminate.recv() => rustix::process::Signal::TERM,
            _ = hangup.recv() => rustix::process::Signal::HUP,
        };
        if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    };
    let ended = ended.map_err(|error| Failure::denied(&error, None))?;
    drop(kits);
    let by_signal = || ended.signal().map_or(1, |number| 128 + number);
    Ok(u8::try_from(ended.code().unwrap_or_else(by_signal)).unwrap_or(u8::MAX))
}
