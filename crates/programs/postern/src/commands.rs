//! One file per command: combine flags and configuration, call the capability, print the result.

mod agents;
mod controller;
mod copy;
mod credentials;
mod exec;
mod exec_many;
mod fanout;
mod identity;
mod job;
mod ops_audit;
mod ops_authorize;
mod ops_install;
mod ops_logs;
mod ops_rbac;
mod ops_show;
mod ops_uninstall;
mod reference;
mod reports;
mod run;
mod run_each;
mod session;
mod streams;
mod transports;
mod trusted_profile;
mod verify;
mod volumes;

use crate::cli::controller::Controller;
use crate::cli::identity::Identity;
use crate::cli::ops::{Ops, Pod};
use crate::cli::run::Backend;
use crate::cli::verify::Verify;
use crate::cli::volumes::Volumes;
use crate::cli::{self, Cli, Command, Global};
use crate::failure::Failure;
use crate::printer::Printer;
use clap::{CommandFactory as _, FromArgMatches as _, Parser as _};
use postern_config::Config;
use postern_exec::exit;
use postern_kube::{Cluster, KubeError, Target};
use postern_ops::{OpsPod, names};
use std::path::Path;
use std::process::ExitCode;

/// What commands need besides their own arguments.
pub(crate) struct Context {
    global: Global,
    config: Config,
    /// The option that reads stdin as data; the kubeconfig's exec plug-in must not read it then.
    stdin_taken: Option<&'static str>,
}

impl Context {
    fn target(&self) -> Target {
        Target {
            kubeconfig: self.global.kubeconfig.clone(),
            context: self.global.context.clone().or_else(|| self.config.context.clone()),
            impersonate: None,
            stdin_taken: self.stdin_taken,
        }
    }

    /// The image with the agent: from the command line, else from the config, else this release's.
    fn image(&self, named: Option<&str>) -> String {
        // What is named in full is taken as it is; the mirror is for the name that we choose.
        if let Some(image) = named.or(self.config.image.as_deref()) {
            return image.to_owned();
        }
        let image = names::default_image(names::IMAGE_REPOSITORY, env!("CARGO_PKG_VERSION"));
        match &self.config.image_mirror {
            Some(mirror) => names::mirrored(&image, mirror),
            None => image,
        }
    }

    /// The image with nothing but the agent: from the command line, else this release's.
    fn agent_image(&self, named: Option<&str>) -> String {
        self.release_image(named, names::AGENT_REPOSITORY)
    }

    /// An image: from the command line, else this release's, by the mirror of the config.
    fn release_image(&self, named: Option<&str>, repository: &str) -> String {
        if let Some(image) = named {
            return image.to_owned();
        }
        let image = names::default_image(repository, env!("CARGO_PKG_VERSION"));
        self.config.image_mirror.as_ref().map_or(image.clone(), |mirror| names::mirrored(&image, mirror))
    }

    /// The ops pod: from the command line, else from the environment, else from the config.
    fn ops_pod(&self, Pod { namespace, name }: Pod) -> Result<OpsPod, Failure> {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let postern_config::Ops { namespace: own_namespace, name: own_name } = self.config.ops.clone();
        let namespace = namespace.or_else(|| set("POSTERN_OPS_NAMESPACE")).or(own_namespace);
        let name = name.or_else(|| set("POSTERN_OPS_NAME")).or(own_name);
        Ok(OpsPod::new(namespace, name)?)
    }

    async fn cluster(&self) -> Result<Cluster, KubeError> {
        Cluster::connect(&self.target()).await
    }
}

/// Parses the command line and runs it.
pub(crate) fn main() -> ExitCode {
    std::panic::set_hook(Box::new(defect));
    postern_agent::closed_stdio::restore();
    // This process handles credentials.
    postern_agent::harden();
    let Cli { global, command } = parse();
    if matches!(command, Command::Agent) {
        return postern_agent::supervise::main(None);
    }
    let mut printer = Printer::new(global.output.format(), global.verbose);
    let done = dispatch(global, command, &mut printer);
    let done = match printer.lost() {
        // As in any Unix tool: a reader that closed the pipe needs no message.
        Some(error) if done.is_ok() && error.kind() == std::io::ErrorKind::BrokenPipe => {
            return ExitCode::from(exit::OUTPUT_CLOSED);
        }
        Some(error) if done.is_ok() => Err(Failure::attempted("writing to our own standard output", &error)),
        _ => done,
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) if failure.code == exit::OUTPUT_CLOSED => ExitCode::from(failure.code),
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// Reports a panic as an error, with an exit code of Postern's.
fn defect(panic: &std::panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let said = payload.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let failure = Failure::denied(
        &std::io::Error::other(format!("internal error at {place}: {said}")),
        Some("this is a defect of postern: please report the command and this message".to_owned()),
    );
    let failure = Failure { code: exit::BROKE, kind: "defect", ..failure };
    Printer::new(crate::cli::asked_format(std::env::args_os().skip(1)), 0).failure(&failure);
    std::process::exit(failure.code.into());
}

/// When the program is called `kubectl-postern`, its help says `kubectl postern`.
fn parse() -> Cli {
    let program = std::env::args_os().next().unwrap_or_default();
    if Path::new(&program).file_name().is_some_and(|name| name == "kubectl-postern") {
        let matches = Cli::command().bin_name("kubectl postern").try_get_matches();
        matches.and_then(|matches| Cli::from_arg_matches(&matches)).unwrap_or_else(|error| refuse(&error))
    } else {
        Cli::try_parse().unwrap_or_else(|error| refuse(&error))
    }
}

/// Reports an invalid command line and exits. The format is the one that its `-o` asks for, if it can be read.
fn refuse(error: &clap::Error) -> ! {
    let format = crate::cli::asked_format(std::env::args_os().skip(1));
    if !error.use_stderr() || format == crate::cli::Format::Text {
        error.exit();
    }
    let said = error.render().to_string();
    let message = said.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let hint = said.lines().find_map(|line| line.trim().strip_prefix("tip: ")).map(str::to_owned);
    let failure = Failure::usage(message, hint);
    Printer::new(format, 0).failure(&failure);
    std::process::exit(failure.code.into())
}

/// The option of a command that reads stdin as data.
fn stdin_taken(command: &Command) -> Option<&'static str> {
    let is_stdin = |word: &std::ffi::OsString| word == "-";
    match command {
        Command::Run(args) if args.stdin => Some("-i"),
        Command::Run(args) if args.each.iter().any(is_stdin) => Some("--each -"),
        Command::Exec(args) if args.stdin => Some("-i"),
        Command::Job(args) if args.stdin => Some("-i"),
        Command::Cp(args)
            if args.paths.split_last().is_some_and(|(_, sources)| sources.iter().any(is_stdin)) =>
        {
            Some("the source -")
        }
        Command::Ops(Ops::Authorize(args)) if args.file.as_deref() == Some("-") => Some("the key file -"),
        Command::Identity(Identity::Exec(_)) => Some("the command"),
        Command::Volumes(Volumes::Patch(args)) if args.filename.iter().any(|file| file == Path::new("-")) => {
            Some("-f -")
        }
        Command::Verify(
            Verify::Images(cli::verify::Images { source, .. })
            | Verify::Volumes(cli::verify::Volumes { source, .. }),
        ) if source.filename.iter().any(|file| file == Path::new("-")) => Some("-f -"),
        _ => None,
    }
}

fn dispatch(global: Global, command: Command, printer: &mut Printer) -> Result<u8, Failure> {
    match command {
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "postern", &mut out);
            printer.raw(&String::from_utf8_lossy(&out));
            return Ok(0);
        }
        Command::Reference => {
            printer.raw(&reference::markdown(Cli::command()));
            return Ok(0);
        }
        Command::InstallSelf { to } => return identity::manifest::install(&to),
        Command::ConfigSchema => {
            printer.raw(&postern_config::schema());
            return Ok(0);
        }
        Command::ReportSchema => {
            printer.raw(&format!("{:#}\n", postern_report::schema()));
            return Ok(0);
        }
        _ => {}
    }
    let config = Config::load(global.config.as_deref())?;
    let context = Context { global, config, stdin_taken: stdin_taken(&command) };
    let ops_pod = match ops_pod(&command) {
        Some(pod) => Some(context.ops_pod(pod)?),
        None => None,
    };
    // One thread is enough for a few connections, and starts faster than several.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::denied(&error, None))?;
    let result = runtime.block_on(async {
        match command {
            Command::Ops(Ops::Install(args)) => Box::pin(ops_install::run(&context, args, printer)).await,
            Command::Ops(Ops::Show(args)) => ops_show::run(&context, args, printer).await,
            Command::Ops(Ops::Uninstall(args)) => ops_uninstall::run(&context, args, printer).await,
            Command::Ops(Ops::Authorize(args)) => ops_authorize::run(&context, args, printer).await,
            Command::Ops(Ops::Logs(args)) => ops_logs::run(&context, args, printer).await,
            Command::Ops(Ops::Audit(args)) => ops_audit::run(&context, args, printer).await,
            Command::Ops(Ops::Rbac(args)) => ops_rbac::run(&context, args, printer),
            Command::Run(args) => run::run(&context, args, printer).await,
            Command::Exec(args) => exec::run(&context, args, printer).await,
            Command::Job(args) => Box::pin(job::run(&context, args, printer)).await,
            Command::Cp(args) => copy::cp(&context, args, printer).await,
            Command::Sync(args) => copy::sync(&context, args, printer).await,
            Command::Identity(Identity::Token(args)) => identity::token(&context, args, printer).await,
            Command::Identity(Identity::Exec(args)) => identity::exec::run(&context, args, printer).await,
            Command::Identity(Identity::Write(args)) => identity::write::run(&context, args, printer).await,
            Command::Identity(Identity::Proxy(args)) => identity::proxy::run(&context, args, printer).await,
            Command::Identity(Identity::Doctor(args)) => identity::doctor::run(&context, args, printer).await,
            Command::Identity(Identity::Manifest(args)) => identity::manifest::run(&context, args, printer),
            Command::Identity(Identity::Trust(args)) => identity::trust::run(&context, args, printer).await,
            Command::Identity(Identity::Issuer(args)) => identity::issuer::run(&context, args, printer).await,
            Command::Identity(Identity::Status(args)) => identity::status::run(&context, &args, printer),
            Command::Controller(Controller::Install(args)) => {
                Box::pin(controller::install(&context, args, printer)).await
            }
            Command::Controller(Controller::Show(args)) => controller::show(&context, args, printer).await,
            Command::Controller(Controller::Uninstall(args)) => {
                Box::pin(controller::uninstall(&context, args, printer)).await
            }
            Command::Controller(Controller::Manifests(args)) => {
                controller::manifests(&context, args, printer)
            }
            Command::Verify(Verify::Images(args)) => Box::pin(verify::images(&context, args, printer)).await,
            Command::Verify(Verify::Volumes(args)) => {
                Box::pin(verify::volumes(&context, args, printer)).await
            }
            Command::Volumes(Volumes::Patch(args)) => volumes::patch(&context, &args, printer),
            Command::Volumes(Volumes::InitContainer(args)) => {
                volumes::init_container(&context, args, printer)
            }
            Command::Volumes(Volumes::ChownCommand(args)) => Ok(volumes::chown_command(&args, printer)),
            Command::Completions { .. }
            | Command::ConfigSchema
            | Command::ReportSchema
            | Command::InstallSelf { .. }
            | Command::Reference
            | Command::Agent => Ok(0),
        }
    });
    // A thread may be waiting in a read of our stdin; nothing is lost by not waiting for it.
    runtime.shutdown_background();
    result.map_err(|failure| match &ops_pod {
        Some(pod) => failure.of_ops_pod(pod),
        None => failure,
    })
}

/// The options of a command that name an ops pod.
fn ops_pod(command: &Command) -> Option<Pod> {
    let pod = match command {
        Command::Run(args) if args.backend == Backend::Ops => &args.pod,
        Command::Ops(Ops::Install(args)) => &args.pod,
        Command::Ops(Ops::Show(args)) => &args.pod,
        Command::Ops(Ops::Uninstall(args)) => &args.pod,
        Command::Ops(Ops::Authorize(args)) => &args.pod,
        Command::Ops(Ops::Logs(args)) => &args.pod,
        Command::Ops(Ops::Audit(args)) => &args.pod,
        Command::Ops(Ops::Rbac(args)) => &args.pod,
        _ => return None,
    };
    Some(pod.clone())
}
