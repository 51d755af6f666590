//! The custom resource.
//!
//! The comments of fields are what `kubectl explain` prints, so they have no Markdown.
#![allow(clippy::doc_markdown, reason = "kubectl explain prints these comments as they are")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use postern_kube::crd::{Namespaces, label_selector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Volumes that are to belong to the user that writes them.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    kind = "VolumeOwnership",
    derive = "PartialEq",
    doc = "VolumeOwnership makes volumes belong to the user that writes them. New Pods get an init container that changes the owner, where fsGroup has no effect. Of several objects for a Pod, the first by name is used.",
    shortname = "vo",
    category = "postern",
    printcolumn = r#"{"name":"Program","type":"string","jsonPath":".spec.program","description":"What changes the owner"}"#,
    printcolumn = r#"{"name":"Classes","type":"string","jsonPath":".spec.storageClasses","description":"The StorageClasses"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"When it was created"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "self.program != 'Agent' || !has(self.image) || size(self.image) > 0", "message": "image must not be empty"}, {"rule": "self.program == 'Agent' || !self.keepSetuid", "message": "keepSetuid needs the program Agent"}]))]
pub struct VolumeOwnershipSpec {
    /// The namespaces of the Pods.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.names) || has(self.selector)", "message": "set names or selector; an empty selector selects every namespace"}]))]
    pub namespaces: Namespaces,
    /// The labels of the Pods. All Pods if this is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub pods: Option<LabelSelector>,
    /// Only volumes of claims of these StorageClasses. All volumes that keep data if this is empty, but not hostPath.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub storage_classes: Vec<String>,
    /// What changes the owner: Agent uses Postern's agent and needs no shell; Chown uses chown in the workload's own
    /// image.
    #[serde(default)]
    pub program: ProgramName,
    /// The image of the init container, instead of the usual one of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Keep set-user-ID and set-group-ID bits, which the kernel clears when the owner changes.
    #[serde(default)]
    pub keep_setuid: bool,
    /// Also change files with several hard links. Another one may be outside the volume.
    #[serde(default)]
    pub allow_hard_links: bool,
}

/// What changes the owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProgramName {
    /// postern-agent own
    #[default]
    Agent,
    /// chown -R
    Chown,
}
