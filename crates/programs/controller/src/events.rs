//! Events on the objects concerned.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Publishes events. The library counts repetitions.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

impl Events {
    pub(crate) fn new(client: Client, instance: &str) -> Self {
        let reporter =
            Reporter { controller: "postern-controller".to_owned(), instance: Some(instance.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Warns about an object. That an event cannot be written is no reason to stop.
    pub(crate) async fn warn(&self, about: &ObjectReference, reason: &str, note: String) {
        self.publish(EventType::Warning, about, reason, note).await;
    }

    /// Tells of something that went well.
    pub(crate) async fn tell(&self, about: &ObjectReference, reason: &str, note: String) {
        self.publish(EventType::Normal, about, reason, note).await;
    }

    async fn publish(&self, type_: EventType, about: &ObjectReference, reason: &str, note: String) {
        // The API server takes 1 KiB.
        let note = note.chars().take(900).collect();
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // With the version, the same about a changed object would be no repetition.
        let about = ObjectReference { resource_version: None, ..about.clone() };
        if let Err(error) = self.recorder.publish(&event, &about).await {
            tracing::warn!(reason, error = crate::error::chain(&error), "an event could not be written");
        }
    }
}
