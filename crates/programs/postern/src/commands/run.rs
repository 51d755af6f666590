//! `postern run`.

use super::session::{Route, RunOptions, SUPERVISOR, connected, place, stage, supervised, within};
use super::{Context, credentials, job, run_each, transports};
use crate::cli::job::Job as JobArgs;
use crate::cli::ops::Pod;
use crate::cli::run::{Backend, Login, Run as Args};
use crate::failure::Failure;
use crate::printer::Printer;
use postern_exec::session::Run;
use postern_exec::{ExecError, container_end, transport};
use postern_ops::check::open_agent;
use postern_wire::login as names;
use std::time::Duration;

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    if args.backend == Backend::Job {
        return job::run(context, as_job(args)?, printer).await;
    }
    let Args {
        pod,
        backend,
        transport,
        stream_key,
        each,
        fan_out,
        env,
        workdir,
        file,
        login,
        credential,
        stdin,
        tty,
        timeout,
        command,
    } = args;
    if backend == Backend::Ops && !credential.is_empty() {
        return Err(Failure::usage(
            "--credential is for --backend local; the ops pod has its own",
            Some("give it to the pod with: postern ops install --credential NAME".to_owned()),
        ));
    }
    if backend == Backend::Local && (transport.is_some() || stream_key.is_some()) {
        return Err(Failure::usage("--transport and --stream-key are for --backend ops", None));
    }
    if backend == Backend::Local && login.is_some() {
        let hint = "log in on this machine with the cloud's own tool".to_owned();
        return Err(Failure::usage("--login is for --backend ops", Some(hint)));
    }
    let pod = context.ops_pod(pod)?;
    run_each::check(&each, &fan_out, [("-i", stdin), ("-t", tty), ("--file", !file.is_empty())], printer)?;
    let asked = RunOptions { env, workdir, stdin, tty, timeout };
    let mut request = asked.request(context, command, printer)?;
    let files = stage(&file, &mut request)?;
    let values = run_each::values(each)?;
    let limit = Some(Duration::from_millis(request.timeout_ms)).filter(|limit| !limit.is_zero());
    let route = match backend {
        Backend::Ops => {
            let cluster = connected(context, limit).await?;
            request.credentials = true;
            request.login = wanted_login(context, login);
            if login == Some(Login::Ibm) {
                // What a pod that has no profile does not know of itself.
                let ibm = &context.config.ibm;
                let known = [(names::ENDPOINT, &ibm.api_endpoint), (names::IBM_REGION, &ibm.region)];
                let known = known.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
                request.env.extend(known.map(|(name, value)| (name.into(), value.into_bytes())));
            }
            request.claimed_user.clone_from(&cluster.user);
            let transport = transports::chosen(context, transport);
            let opening = transports::stream(context, &cluster, &pod, transport, stream_key, printer);
            match in_time(limit, Box::pin(opening)).await? {
                Some(stream) => Route::Stream(stream),
                None => Route::Exec(cluster, pod),
            }
        }
        // It has its own way above.
        Backend::Job | Backend::Local => {
            credentials::add(context, &credential, &mut request, printer)?;
            Route::Local(std::env::current_exe().map_err(ExecError::Local)?)
        }
    };
    if let Some(values) = values {
        return run_each::run(&route, &request, timeout, values, &fan_out, printer).await;
    }
    let run = Run { request, files };
    Ok(match &route {
        Route::Stream(stream) => {
            let (reader, writer) = stream.session();
            supervised(reader, writer, run, stdin, printer).await
        }
        Route::Exec(cluster, pod) => {
            let opening = async { open_agent(cluster, pod).await.map_err(ExecError::Kube) };
            let (reader, writer) = within(limit, opening).await?;
            let ran = supervised(reader, writer, run, stdin, printer).await;
            container_end::explain_error(cluster, &place(pod), ran).await
        }
        Route::Local(own) => {
            let (reader, writer) = transport::local(own, &SUPERVISOR).map_err(ExecError::Local)?;
            supervised(reader, writer, run, stdin, printer).await
        }
    }?)
}

/// The arguments of `postern job` for the same command.
fn as_job(args: Args) -> Result<JobArgs, Failure> {
    let Args {
        pod: Pod { namespace, name },
        backend: _,
        transport,
        stream_key,
        each,
        fan_out,
        env,
        workdir,
        file,
        login,
        credential,
        stdin,
        tty,
        timeout,
        command,
    } = args;
    let others = [
        ("--name", name.is_some()),
        ("--transport", transport.is_some()),
        ("--stream-key", stream_key.is_some()),
        ("--each", !each.is_empty()),
        ("--login", login.is_some()),
    ];
    let given = others.into_iter().find_map(|(option, given)| given.then_some(option));
    if let Some(option) = given.or(fan_out.given()) {
        return Err(Failure::usage(format!("{option} is for --backend ops"), None));
    }
    Ok(JobArgs { namespace, env, workdir, file, credential, stdin, tty, timeout, ..JobArgs::of(command) })
}

/// [`within`] for a future that returns a [`Failure`].
async fn in_time<T>(
    limit: Option<Duration>,
    reaching: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    within(limit, async { Ok(reaching.await) }).await?
}

/// The login that the agent performs first.
fn wanted_login(context: &Context, login: Option<Login>) -> Option<postern_wire::Login> {
    let provider = match login {
        None => None,
        Some(Login::Ibm) => Some(names::IBM.to_owned()),
        Some(Login::None) => return None,
    };
    let (attempts, interval) = context.config.login.attempts();
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    Some(postern_wire::Login { provider, attempts, interval_ms })
}
