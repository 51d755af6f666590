//! `postern job`.

use super::session::{RunOptions, connected, stage, supervised};
use super::{Context, credentials};
use crate::cli::job::Job as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::signals;
use postern_exec::session::Run;
use postern_exec::target::Place;
use postern_exec::{ExecError, exit};
use postern_job::{JobError, Resources, Settings};
use postern_kube::Cluster;
use postern_ops::install::Reporter as _;
use postern_ops::names;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

/// How long a pod may take to start.
const START: Duration = Duration::from_secs(180);

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args {
        namespace,
        image,
        agent_image,
        image_pull_secret,
        cpu,
        memory,
        node,
        selector,
        tolerate,
        service_account,
        user,
        env,
        workdir,
        file,
        credential,
        stdin,
        tty,
        timeout,
        start_timeout,
        keep,
        dry_run,
        command,
    } = args;
    let program = command.first().map(|program| program.as_bytes().to_vec()).unwrap_or_default();
    let mut request = RunOptions { env, workdir, stdin, tty, timeout }.request(context, command, printer)?;
    let files = stage(&file, &mut request)?;
    let settings = Settings {
        namespace: namespace.unwrap_or_else(|| names::TEST_NAMESPACE.to_owned()),
        name: postern_job::new_name(&program),
        // The ops pod's image has the agent.
        agent_image: image.is_some().then(|| context.agent_image(agent_image.as_deref())),
        image: context.image(image.as_deref()),
        resources: Resources { cpu, memory },
        node,
        node_labels: selector,
        tolerations: tolerate,
        service_account,
        user,
        image_pull_secret: image_pull_secret.or_else(|| context.config.image_pull_secret.clone()),
        start: start_timeout.unwrap_or(START),
        timeout: Some(Duration::from_millis(request.timeout_ms)).filter(|limit| !limit.is_zero()),
        keep,
    };
    // Unlike with a run on this machine, none is used that was not named.
    if !dry_run && !credential.is_empty() {
        credentials::add(context, &credential, &mut request, printer)?;
    }
    let cluster = connected(context, None).await?;
    if dry_run {
        let job = postern_job::create(&cluster, &settings, true).await?;
        printer.result(&job, || format!("✓ Job {}/{} would be created\n", settings.namespace, settings.name));
        return Ok(0);
    }
    request.claimed_user.clone_from(&cluster.user);
    // From here on a signal must not leave the Job behind.
    let stop = signals::stop()?;
    let started = tokio::select! {
        started = start(&cluster, &settings, start_timeout.is_some(), printer) => started,
        () = stop => Err(ExecError::Cancelled("").into()),
    };
    printer.clear();
    let ran = match started {
        Ok(place) => in_pod(&cluster, &settings, &place, Run { request, files }, stdin, printer).await,
        Err(failure) => Err(failure),
    };
    if keep {
        printer.note(&format!("Job {}/{} stays", settings.namespace, settings.name));
    } else if let Err(error) = postern_job::delete(&cluster, &settings).await {
        printer.warn(&format!("the Job could not be deleted; Kubernetes deletes it after it ends: {error}"));
    }
    ran
}

/// Creates the Job and waits for its pod.
async fn start(
    cluster: &Cluster,
    settings: &Settings,
    patient: bool,
    printer: &mut Printer,
) -> Result<Place, Failure> {
    postern_job::create(cluster, settings, false).await?;
    printer.verbose(&format!("Job {}/{} created", settings.namespace, settings.name));
    let told = |step: &str| printer.progress(step);
    Ok(postern_job::wait_until_running(cluster, settings, patient, told).await?)
}

async fn in_pod(
    cluster: &Cluster,
    settings: &Settings,
    place: &Place,
    run: Run,
    stdin: bool,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    printer.verbose(&format!("pod {}/{}", place.namespace, place.pod));
    let agent = place.agent.clone().unwrap_or_default();
    let command = [agent.into_bytes(), b"run".to_vec()];
    let (reader, writer) = place.open(cluster, &command, true, false).await?;
    let ran = supervised(reader, writer, run, stdin, printer).await;
    Ok(postern_job::explain(cluster, settings, place, ran).await?)
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Kube(error) => Self { code: exit::NEVER_REACHED, ..error.into() },
            JobError::NotStarted { ref fix, ref said, .. } => {
                let (hint, said) = (Some(fix.clone()), said.clone());
                let failure = Self::denied(&error, hint);
                Self { code: exit::NEVER_REACHED, kind: "not-started", causes: vec![said], ..failure }
            }
        }
    }
}
