//! Leader election by a Lease.

use crate::cli::Run;
use crate::metrics::Metrics;
use kube::Client;
use kube_lease_manager::{LeaseCreateMode, LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The name of the Lease.
const LEASE: &str = "postern-controller";
/// Seconds for which the Lease is held without a renewal.
const DURATION: u64 = 15;
/// Seconds before its end in which it is renewed.
const GRACE: u64 = 7;

/// Whether this replica leads, now and later.
#[derive(Debug, Clone)]
pub(crate) struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Leads for ever, without a Lease.
    pub(crate) fn always() -> Self {
        let (sender, receiver) = watch::channel(true);
        // The value stays when the sender is gone.
        drop(sender);
        Self(receiver)
    }

    /// Whether this replica leads now.
    pub(crate) fn leads(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until this replica leads.
    pub(crate) async fn gained(&mut self) {
        if self.0.wait_for(|leads| *leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until this replica no longer leads.
    pub(crate) async fn lost(&mut self) {
        if self.0.wait_for(|leads| !*leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Takes part in the election until `stop`; then the Lease is released, so that another replica need not wait.
pub(crate) async fn elect(
    client: Client,
    args: &Run,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(Leadership, tokio::task::JoinHandle<()>), LeaseManagerError> {
    let mut manager = manager(&client, args).await?;
    let (sender, receiver) = watch::channel(false);
    let args = args.clone();
    let task = tokio::spawn(async move {
        tokio::select! {
            () = follow(&client, &args, &mut manager, &sender, &metrics) => {}
            () = stop => {}
        }
        sender.send_replace(false);
        metrics.leads(false);
        if let Err(error) = manager.release().await {
            tracing::warn!(error = crate::error::chain(&error), "the Lease could not be released");
        }
    });
    Ok((Leadership(receiver), task))
}

async fn manager(client: &Client, args: &Run) -> Result<LeaseManager, LeaseManagerError> {
    LeaseManagerBuilder::new(client.clone(), LEASE)
        .with_namespace(&args.namespace)
        .with_identity(&args.name)
        .with_duration(DURATION)
        .with_grace(GRACE)
        .with_create_mode(LeaseCreateMode::AutoCreate)
        .with_field_manager(postern_pullsecret::apply::FIELD_MANAGER)
        .build()
        .await
}

async fn follow(
    client: &Client,
    args: &Run,
    current: &mut LeaseManager,
    sender: &watch::Sender<bool>,
    metrics: &Metrics,
) {
    loop {
        match current.changed().await {
            Ok(leads) => {
                tracing::info!(name = args.name, leads, "leader election");
                metrics.leads(leads);
                sender.send_replace(leads);
            }
            Err(error) => {
                // Whoever cannot renew the Lease does not lead.
                tracing::warn!(error = crate::error::chain(&error), "the Lease could not be renewed");
                metrics.leads(false);
                sender.send_replace(false);
                tokio::time::sleep(Duration::from_secs(2)).await;
                // After an error the library may believe that it still leads, and then tells of no change any more.
                if let Ok(new) = manager(client, args).await {
                    *current = new;
                }
            }
        }
    }
}
