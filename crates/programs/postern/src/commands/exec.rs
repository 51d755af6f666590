//! `postern exec`.

use super::exec_many::{self, Many};
use super::session::{RunOptions, bytes, connected, supervised, within};
use super::{Context, agents, fanout, streams};
use crate::cli::exec::Exec as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::{signals, terminal};
use postern_exec::fanout::place::Options;
use postern_exec::inject::Agents;
use postern_exec::session::Run;
use postern_exec::target::{self, Containers, Place, Target};
use postern_exec::{Control, ExecError, container_end, inject, plain};
use postern_kube::Cluster;
use postern_kube::exec::{ExecReader, ExecWriter};
use postern_wire::Request;
use std::time::{Duration, Instant};

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args {
        targets,
        selector,
        all,
        all_containers,
        fan_out,
        namespace,
        container,
        stdin,
        tty,
        inject: injected,
        require_agent,
        env,
        workdir,
        timeout,
        command,
    } = args;
    let targets = match selector {
        Some(selector) => vec![Target::Selector(selector)],
        None => {
            let parsed = targets.iter().map(|target| Target::parse(target));
            parsed.collect::<Result<Vec<_>, _>>().map_err(|why| Failure::usage(why, None))?
        }
    };
    let several = targets.len() > 1 || all || all_containers || fan_out.given().is_some();
    if several {
        fanout::check(&fan_out, printer)?;
        if let Some(option) =
            [("-i", stdin), ("-t", tty)].into_iter().find_map(|(o, given)| given.then_some(o))
        {
            return Err(fanout::only_for_one(option));
        }
    }
    if command.first().is_none_or(|program| program.is_empty()) {
        return Err(Failure::usage("the command is empty", Some("name one after --".to_owned())));
    }
    let asks_for_agent =
        [("--env", !env.is_empty()), ("--workdir", workdir.is_some()), ("--require-agent", require_agent)];
    // The command line is right as it stands; it is a target that cannot honour them, whose tool is then never reached.
    let needs_agent: Vec<_> =
        asks_for_agent.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
    let cluster = connected(context, timeout).await?;
    let namespace = namespace.unwrap_or_else(|| cluster.namespace.clone());
    if several {
        let mut request =
            RunOptions { env, workdir, stdin, tty, timeout }.request(context, command, printer)?;
        request.claimed_user.clone_from(&cluster.user);
        let containers = match &container {
            _ if all_containers => Containers::All,
            Some(name) => Containers::Named(name),
            None => Containers::Default,
        };
        let many = Many { namespace: &namespace, targets: &targets, all, containers, options: &fan_out };
        let inject: Option<Agents> = injected.then_some(agents::embedded);
        let how = Options { request, inject, needs_agent, timeout };
        return exec_many::run(&cluster, many, how, printer).await;
    }
    let [target] = targets.as_slice() else { return Err(Failure::usage("no target is named", None)) };
    let place = within(timeout, target::find(&cluster, &namespace, target, container.as_deref())).await?;
    let Place { namespace, pod, container, agent } = &place;
    printer.verbose(&format!("pod {namespace}/{pod}, container {container}"));
    if agent.is_some() || injected {
        let asked = RunOptions { env, workdir, stdin, tty, timeout };
        let mut request = asked.request(context, command, printer)?;
        request.claimed_user.clone_from(&cluster.user);
        return Ok(through_agent(&cluster, &place, (request, timeout), stdin, printer).await?);
    }
    if !needs_agent.is_empty() {
        return Err(place.needs_agent(&needs_agent).into());
    }
    printer.verbose(
        "no agent in this container: the end of the output is the runtime's word, and the process may outlive us",
    );
    let tty = tty && terminal::is_terminal();
    let command = bytes(&command);
    let (reader, writer) = within(timeout, place.open(&cluster, &command, stdin, tty)).await?;
    let begun = Instant::now();
    let code = in_plain(reader, writer, stdin, tty, timeout).await?;
    let code = container_end::check_exit_code(&cluster, &place, code, begun.elapsed()).await?;
    printer.run_report(&serde_json::json!({"exitCode": code, "outcome": "exited", "agentVersion": null}));
    Ok(code)
}

/// Runs through the agent of the image, or through an injected one.
async fn through_agent(
    cluster: &Cluster,
    place: &Place,
    (request, timeout): (Request, Option<Duration>),
    stdin: bool,
    printer: &mut Printer,
) -> Result<u8, ExecError> {
    let (reader, writer) = match &place.agent {
        Some(agent) => {
            let command = [agent.clone().into_bytes(), b"run".to_vec()];
            within(timeout, place.open(cluster, &command, true, false)).await?
        }
        None => {
            let started = inject::start(cluster, place, agents::embedded, &["run", "--unlink"]);
            within(timeout, Box::pin(started)).await?
        }
    };
    let ran = supervised(reader, writer, Run { request, files: Vec::new() }, stdin, printer).await;
    container_end::explain_error(cluster, place, ran.map_err(|error| place.of_agent(error))).await
}

async fn in_plain(
    reader: ExecReader,
    writer: ExecWriter,
    stdin: bool,
    tty: bool,
    timeout: Option<Duration>,
) -> Result<u8, ExecError> {
    let controls = signals::controls(tty).map_err(ExecError::Local)?;
    let controls = if tty { with_first_size(controls) } else { controls };
    let streams = streams::own(stdin).map_err(ExecError::Local)?;
    // Without stdin, Ctrl-C has to stay a signal.
    let raw = (tty && stdin).then(terminal::Raw::enter).flatten();
    let result = plain::run(reader, writer, tty, timeout, streams, controls).await;
    drop(raw);
    result
}

/// Sends the terminal's size before all other controls.
fn with_first_size(mut rest: tokio::sync::mpsc::Receiver<Control>) -> tokio::sync::mpsc::Receiver<Control> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        let mut next = Some(Control::Resize(terminal::size()));
        while let Some(control) = next {
            if sender.send(control).await.is_err() {
                return;
            }
            next = rest.recv().await;
        }
    });
    receiver
}
