//! `postern cp` and `postern sync`.

mod itself;
mod manifest;
mod plan;
mod s3;
mod show;

use super::{Context, agents};
use crate::cli::Format;
use crate::cli::copy::{Cp, How, Removal, Sync, Via as Way};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::signals;
use manifest::Manifest;
use plan::{Place, Plan, Side};
use postern_copy::job::{self, Job};
use postern_copy::ledger::{Ledger, Tally};
use postern_copy::pod::{Pod, Via};
use postern_copy::streams::Stream;
use postern_copy::{CopyError, End};
use postern_exec::ephemeral::User;
use postern_kube::Cluster;
use postern_ops::names;
use postern_s3::{Settings, Store};
use postern_shell::ResumeMarks;
use postern_wire::copy::{Compare, Delete, Limits, ReceiveSpec, Rule, SendSpec};
use show::{Show, Shown};
use std::cell::RefCell;
use std::fs::File;
use tokio::sync::Semaphore;

pub(super) async fn cp(context: &Context, args: Cp, printer: &mut Printer) -> Result<u8, Failure> {
    let Cp { mut paths, how, clean } = args;
    if clean {
        if let Some(extra) = paths.get(1) {
            let why = format!("--clean takes one path, and {} is a second", extra.to_string_lossy());
            return Err(Failure::usage(why, None));
        }
        let Some(path) = paths.pop() else { return Err(Failure::usage("no path is named", None)) };
        let receive = receive(&how, &Mode::Cp)?;
        return removing(context, &path, &how, receive, printer).await;
    }
    let destination = match paths.pop() {
        Some(destination) if !paths.is_empty() => destination,
        _ => {
            let hint = "postern cp SRC… DST, where one of them is POD:PATH".to_owned();
            return Err(Failure::usage("one path is no copy: name what to copy and where to", Some(hint)));
        }
    };
    copy(context, &paths, &destination, &how, &Mode::Cp, printer).await
}

pub(super) async fn sync(context: &Context, args: Sync, printer: &mut Printer) -> Result<u8, Failure> {
    let Sync { source, destination, how, delete, max_delete, checksum } = args;
    let delete = match (delete, max_delete) {
        (None, _) => Delete::Nothing,
        (Some(_), Some(most)) => most,
        (Some(Removal::Extra), None) => Delete::Extra,
        (Some(Removal::All), None) => Delete::All,
    };
    let mode = Mode::Sync { delete, checksum };
    copy(context, &[source], &destination, &how, &mode, printer).await
}

/// Which of the two commands.
enum Mode {
    Cp,
    Sync { delete: Delete, checksum: bool },
}

fn limits(how: &How) -> Limits {
    let Limits { entries, bytes, depth } = Limits::default();
    Limits { entries: how.max_entries.unwrap_or(entries), bytes: how.max_bytes.unwrap_or(bytes), depth }
}

/// The exclude rules. An invalid pattern is refused before anything is contacted.
fn rules(how: &How) -> Result<Vec<Rule>, Failure> {
    postern_files::rules(&how.rules.0).map_err(|why| Failure::usage(why, None))?;
    Ok(how.rules.0.clone())
}

fn send(how: &How, mode: &Mode, sources: Vec<Vec<u8>>) -> Result<SendSpec, Failure> {
    let sync = matches!(mode, Mode::Sync { .. });
    Ok(SendSpec {
        root: None,
        sources,
        glob: !sync,
        contents: sync,
        rules: rules(how)?,
        dereference: how.dereference,
        compression: how.compress,
        limits: limits(how),
    })
}

fn receive(how: &How, mode: &Mode) -> Result<ReceiveSpec, Failure> {
    let (compare, sync, delete) = match mode {
        Mode::Cp => (Compare::Verify, false, Delete::Nothing),
        Mode::Sync { delete, checksum: true } => (Compare::Hash, true, *delete),
        Mode::Sync { delete, checksum: false } => (Compare::Times, true, *delete),
    };
    Ok(ReceiveSpec {
        root: None,
        target: Vec::new(),
        directory: false,
        named: false,
        parents: sync,
        compare,
        delta: sync,
        update: how.update,
        delete,
        dry_run: how.dry_run,
        inplace: how.inplace,
        preserve: how.preserve,
        owner: how.chown.unwrap_or_default(),
        unsafe_links: how.unsafe_links,
        specials: how.specials,
        clean: false,
        rules: rules(how)?,
        limits: limits(how),
    })
}

/// The settings that every end in a pod or a bucket needs.
struct Reach<'a> {
    s3: Option<Settings>,
    cluster: Option<&'a Cluster>,
    via: Via,
    image: &'a str,
    user: Option<User>,
    verify: bool,
}

impl<'a> Reach<'a> {
    async fn end(&self, place: &Place) -> Result<End<'a>, Failure> {
        let &Self { ref s3, cluster, via, image, user, verify } = self;
        Ok(match (place, cluster) {
            (Place::Local, _) => End::Local,
            (Place::S3(bucket), _) => {
                End::S3(Store::open(bucket, s3.as_ref().unwrap_or(&Settings::default())).await)
            }
            (Place::Stream, _) => End::Stream(Stream::default()),
            (Place::Pod(place), Some(cluster)) => End::Pod(Pod {
                cluster,
                place: place.clone(),
                via,
                agents: agents::embedded,
                image,
                agent: names::AGENT,
                user,
                verify,
                marks: ResumeMarks::default(),
                found: RefCell::new(None),
            }),
            (Place::Pod(_), None) => return Err(Failure::usage("a pod without a cluster", None)),
        })
    }
}

fn reach<'a>(s3: Option<Settings>, cluster: Option<&'a Cluster>, how: &How, image: &'a str) -> Reach<'a> {
    Reach { s3, cluster, via: via(how), image, user: how.user, verify: !how.no_verify }
}

fn via(how: &How) -> Via {
    match how.via {
        Way::Auto => Via::Auto,
        Way::Agent => Via::Agent,
        Way::Inject => Via::Inject,
        Way::Tar => Via::Tar,
        Way::Shell => Via::Shell,
        Way::Ephemeral => Via::Ephemeral,
    }
}

async fn copy(
    context: &Context,
    sources: &[std::ffi::OsString],
    destination: &std::ffi::OsString,
    how: &How,
    mode: &Mode,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let (from, to) = (Side::parse(sources)?, Side::parse(std::slice::from_ref(destination))?);
    plan::check(&from, &to, how)?;
    if matches!(to, Side::Stream) && (printer.format() != Format::Text || how.dry_run) {
        let why = "stdout takes the file's content, and neither -o json, -o yaml nor --dry-run besides";
        return Err(Failure::usage(why, None));
    }
    let (send, receive) = (send(how, mode, Vec::new())?, receive(how, mode)?);
    let s3 = if from.in_s3() || to.in_s3() { Some(s3::settings(context, how, printer)?) } else { None };
    let local = |failure| plan::local(failure, sources.iter().chain([destination]));
    let cluster = match from.in_pods() || to.in_pods() {
        true => Some(context.cluster().await.map_err(|error| local(error.into()))?),
        false => None,
    };
    let plans = plan::plans(cluster.as_ref(), &from, &to, how).await.map_err(local)?;
    itself::check(&plans, !how.rules.0.is_empty())?;
    let manifest = match &how.manifest {
        Some(_) if plans.len() > 1 => {
            return Err(Failure::usage("--manifest is for one pod at a time", None));
        }
        Some(path) if !how.dry_run => Some(Manifest::create(path)?),
        _ => None,
    };
    let (manifest, lines) = manifest.unzip();
    let image = context.image(how.image.as_deref());
    let reach = reach(s3, cluster.as_ref(), how, &image);
    let mut jobs = Vec::new();
    for Plan { name, source, sources, destination, target, directory } in plans {
        jobs.push((
            name,
            Job {
                source: reach.end(&source).await?,
                destination: reach.end(&destination).await?,
                send: SendSpec { sources, ..send.clone() },
                receive: ReceiveSpec { target, directory, ..receive.clone() },
                retries: how.retries,
                bwlimit: how.bwlimit,
            },
        ));
    }
    let stop = signals::stop()?;
    let show = RefCell::new(Show::new(printer, jobs.len() > 1, how.dry_run));
    let all = all(&jobs, lines, how.jobs.into(), &show);
    let (total, failed) = tokio::select! {
        done = all => done,
        () = stop => {
            let failure = Failure::from(CopyError::Cancelled);
            // What was read from stdin is gone: there is nothing to go on from.
            let hint = failure.hint.filter(|_| !matches!(from, Side::Stream));
            return Err(Failure { hint, ..failure });
        }
    };
    // One of a copy that came to nothing says nothing of what is there.
    if let Some(manifest) = manifest.filter(|_| failed.is_empty()) {
        manifest.keep()?;
    }
    show.into_inner().finish(&total, failed)
}

/// Runs the copies, a limited number at a time. Returns the totals, and the first error that ended one.
async fn all(
    jobs: &[(Option<String>, Job<'_>)],
    mut manifest: Option<File>,
    at_a_time: usize,
    show: &RefCell<Show<'_>>,
) -> (Tally, Vec<Failure>) {
    let (gate, total, failed) =
        (Semaphore::new(at_a_time), RefCell::new(None::<Tally>), RefCell::new(Vec::new()));
    let running = jobs.iter().map(|(name, job)| {
        let manifest = manifest.take();
        let (gate, total, failed) = (&gate, &total, &failed);
        async move {
            let Ok(_turn) = gate.acquire().await else { return };
            let mut shown = Shown { show, name: name.as_deref() };
            let mut ledger = Ledger::new(&mut shown, manifest);
            let ran = Box::pin(job.run(&mut ledger)).await;
            let (tally, closed) = ledger.close();
            match &mut *total.borrow_mut() {
                Some(total) => total.add(&tally),
                none => *none = Some(tally),
            }
            if let Err(error) = ran.and(closed) {
                let mut failure = Failure::from(error);
                if let Some(name) = name {
                    failure.message = format!("{name}: {}", failure.message);
                    failure.pod = Some(name.as_str().into());
                }
                failed.borrow_mut().push(failure);
            }
        }
    });
    futures(running).await;
    (total.into_inner().unwrap_or_default(), failed.into_inner())
}

/// Polls all futures until all have ended.
async fn futures(all: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

async fn removing(
    context: &Context,
    path: &std::ffi::OsString,
    how: &How,
    receive: ReceiveSpec,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let side = Side::parse(std::slice::from_ref(path))?;
    plan::check_one(&side, how)?;
    let s3 = if side.in_s3() { Some(s3::settings(context, how, printer)?) } else { None };
    let local = |failure| plan::local(failure, [path]);
    let cluster = match side.in_pods() {
        true => Some(context.cluster().await.map_err(|error| local(error.into()))?),
        false => None,
    };
    let places = plan::places(cluster.as_ref(), &side, how).await.map_err(local)?;
    let show = RefCell::new(Show::new(printer, places.len() > 1, how.dry_run));
    let image = context.image(how.image.as_deref());
    let reach = reach(s3, cluster.as_ref(), how, &image);
    let mut total = Tally::default();
    for (name, place, path) in places {
        let end = reach.end(&place).await?;
        let mut shown = Shown { show: &show, name: name.as_deref() };
        let receive = ReceiveSpec { target: path, ..receive.clone() };
        let mut ledger = Ledger::new(&mut shown, None);
        job::clean(&end, &receive, &mut ledger).await?;
        total.add(&ledger.close().0);
    }
    show.into_inner().cleaned(&total);
    Ok(0)
}
