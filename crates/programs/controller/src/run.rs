//! Puts the program together.

use crate::cli::{Part, Run};
use crate::contest::Contests;
use crate::error::chain;
use crate::events::Events;
use crate::health::{self, Health};
use crate::leader::{self, Leadership};
use crate::metrics::Metrics;
use crate::reconcile::{self, Context};
use crate::state::State;
use crate::stuck::Restarts;
use crate::traces::TraceError;
use crate::webhook::review::Reviewer;
use crate::webhook::server::{self, Certificates};
use crate::{certificate, sources, status, watches};
use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Controller, WatchStreamExt as _, controller};
use kube::{Api, Client, ResourceExt as _};
use postern_kube::{Cluster, KubeError, Target};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};

/// Namespaces at a time.
const CONCURRENCY: u16 = 16;
/// Changes of a namespace within this time are taken together.
const TOGETHER: Duration = Duration::from_millis(50);
/// After the signal to end, until Services no longer send requests.
const LEAVE: Duration = Duration::from_secs(5);
/// `--once` gives up when nothing changes for this time.
const STANDSTILL: Duration = Duration::from_secs(30);

/// The program cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] TraceError),
    /// The async runtime does not start.
    #[error("starting")]
    Runtime(#[source] io::Error),
    /// No client.
    #[error(transparent)]
    Connect(#[from] KubeError),
    /// An address is taken.
    #[error("listening at {address}")]
    Listen { address: SocketAddr, source: io::Error },
    /// Signals cannot be received.
    #[error("waiting for signals")]
    Signals(#[source] io::Error),
    /// The Lease cannot be used.
    #[error("taking part in the leader election")]
    Lease(#[source] kube_lease_manager::LeaseManagerError),
    /// The TLS library refuses its own defaults.
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
    /// `--once` did not finish.
    #[error("{0} namespaces are not as they are to be; the log says why")]
    Unfinished(usize),
}

/// Runs until a signal.
pub(crate) async fn run(args: Run) -> Result<ExitCode, RunError> {
    let target =
        Target { kubeconfig: args.kubeconfig.clone(), context: args.context.clone(), ..Target::default() };
    let client = Cluster::connect(&target).await?.client;
    let metrics = Arc::new(Metrics::default());
    let (sender, queue) = mpsc::unbounded_channel();
    let (reader, writer) = reflector::store();
    let state = Arc::new(State::new(reader.clone(), metrics.clone(), sender));
    let _watches = watches::start(&client, &state, &args.parts);
    let (stop, stopped) = watch::channel(false);

    let (leadership, election) = match args.once {
        true => (Leadership::always(), None),
        false => {
            let (leadership, task) =
                leader::elect(client.clone(), &args, metrics.clone(), wait(stopped.clone()))
                    .await
                    .map_err(RunError::Lease)?;
            (leadership, Some(task))
        }
    };
    let context = Arc::new(Context {
        client: client.clone(),
        state: state.clone(),
        leadership: leadership.clone(),
        events: Events::new(client.clone(), &args.name),
        contests: std::sync::Mutex::new(Contests::default()),
        parts: args.parts.clone(),
        restarts: Restarts::default(),
    });
    let namespaces = namespaces(client.clone(), state.clone(), writer);
    let controller = reconciler(namespaces, reader, queue, wait(stopped.clone()), context.clone());
    let controller = tokio::spawn(controller);
    tokio::spawn(sources::follow(client.clone(), state.clone()));
    if args.once {
        return once(&context).await;
    }
    tokio::spawn(status::follow(context.clone()));
    tokio::spawn(take_over(state.clone(), leadership.clone()));

    let certificates = Arc::new(Certificates::default());
    let changed = Arc::new(Notify::new());
    tokio::spawn(certificate::load(client.clone(), args.clone(), certificates.clone(), changed.clone()));
    if args.certificate_secret.is_none() {
        tokio::spawn(certificate::renew(client.clone(), args.clone(), leadership, changed));
    }
    let health = Arc::new(Health {
        state: state.clone(),
        certificates: certificates.clone(),
        ends: AtomicBool::new(false),
    });
    tokio::spawn(health::serve(listen(args.health_address).await?, health.clone()));
    let reviewer =
        Reviewer { client, state, parts: args.parts.clone(), agent_image: args.agent_image.clone() };
    let listener = listen(args.webhook_address).await?;
    let webhook = tokio::spawn(server::serve(listener, certificates, Arc::new(reviewer), wait(stopped)));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), parts = ?args.parts, "running");

    signalled().await.map_err(RunError::Signals)?;
    tracing::info!("ending");
    health.ends.store(true, Ordering::Relaxed);
    tokio::time::sleep(LEAVE).await;
    stop.send_replace(true);
    // What was begun is finished; the Lease is released.
    let (webhook, _, _) = tokio::join!(webhook, controller, async {
        match election {
            Some(task) => task.await.is_ok(),
            None => true,
        }
    });
    webhook.unwrap_or(Ok(())).map_err(RunError::Tls)?;
    Ok(ExitCode::SUCCESS)
}

async fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, RunError> {
    tokio::net::TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that the program ends too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn signalled() -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// The watch of namespaces, which fills the store. A changed label may change rules.
fn namespaces(
    client: Client,
    state: Arc<State>,
    writer: reflector::store::Writer<Namespace>,
) -> impl stream::Stream<Item = Result<Namespace, watcher::Error>> + Send {
    let config = watches::config();
    let events = watcher(Api::<Namespace>::all(client), config).default_backoff().modify(|namespace| {
        namespace.metadata.managed_fields = None;
        namespace.metadata.annotations = None;
        namespace.spec = None;
    });
    let mut labels: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let of = state.clone();
    let events = events.reflect(writer).inspect(move |event| {
        if let Ok(Event::InitDone) = event {
            of.namespaces_ready.send_replace(true);
        }
    });
    events.touched_objects().inspect(move |found| {
        let Ok(namespace) = found else { return };
        state.metrics.watch_event("Namespace");
        let now = namespace.labels().clone();
        if namespace.metadata.deletion_timestamp.is_some() {
            labels.remove(&namespace.name_any());
        } else if labels.insert(namespace.name_any(), now.clone()).as_ref() != Some(&now) {
            state.rules_changed.notify_one();
        }
    })
}

async fn reconciler(
    namespaces: impl stream::Stream<Item = Result<Namespace, watcher::Error>> + Send + 'static,
    reader: reflector::Store<Namespace>,
    mut queue: mpsc::UnboundedReceiver<Option<String>>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
    context: Arc<Context>,
) {
    let (one, ones) = mpsc::unbounded_channel();
    let (all, alls) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(wanted) = queue.recv().await {
            // Nobody receives while the program ends.
            let _ = match wanted {
                Some(name) => one.send(ObjectRef::new(&name)).map_err(|_| ()),
                None => all.send(()).map_err(|_| ()),
            };
        }
    });
    Controller::for_stream(namespaces, reader)
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(TOGETHER))
        .reconcile_on(received(ones))
        .reconcile_all_on(received(alls))
        .graceful_shutdown_on(stop)
        .run(reconcile::reconcile, reconcile::after_error, context)
        .for_each(|result| async {
            if let Err(controller::Error::QueueError(error)) = result {
                tracing::warn!(error = chain(&error), "watching namespaces failed; trying again");
            }
        })
        .await;
}

fn received<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl stream::Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) })
}

/// Looks at everything when this replica becomes the leader.
async fn take_over(state: Arc<State>, mut leadership: Leadership) {
    loop {
        leadership.gained().await;
        state.look_at_all();
        leadership.lost().await;
    }
}

/// Waits until everything is as it is to be.
async fn once(context: &Context) -> Result<ExitCode, RunError> {
    let state = &context.state;
    state.built().await;
    let (mut left, mut since) = (usize::MAX, Instant::now());
    loop {
        let known = state.sources();
        let unknown = state.rules().sources().iter().filter(|name| !known.contains_key(*name)).count();
        let namespaces = state.namespaces.state();
        let open = namespaces.iter().filter(|one| !reconcile::plan_of(state, one).is_empty()).count();
        if open + unknown == 0 {
            break;
        }
        if open + unknown < left {
            (left, since) = (open + unknown, Instant::now());
        } else if since.elapsed() > STANDSTILL {
            return Err(RunError::Unfinished(open));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if context.parts.contains(&Part::PullSecrets) {
        status::write_all(context).await;
    }
    tracing::info!("everything is as it is to be");
    Ok(ExitCode::SUCCESS)
}
