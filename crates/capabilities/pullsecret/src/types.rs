//! The custom resources.
//!
//! The comments of fields are what `kubectl explain` prints, so they have no Markdown.
#![allow(clippy::doc_markdown, reason = "kubectl explain prints these comments as they are")]

use kube::CustomResource;
use postern_kube::crd::{Condition, Namespaces, conditions, label_selector};
use postern_kube::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A pull Secret that an administrator gives to namespaces.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    derive = "PartialEq",
    kind = "ClusterPullSecret",
    doc = "ClusterPullSecret gives a pull Secret to namespaces. Postern's controller copies the Secret to each namespace, names the copy in ServiceAccounts and adds it to Pods.",
    status = "PullSecretStatus",
    shortname = "cps",
    category = "postern",
    printcolumn = r#"{"name":"Source","type":"string","jsonPath":".spec.source.name","description":"The Secret"}"#,
    printcolumn = r#"{"name":"From","type":"string","jsonPath":".spec.source.namespace","description":"The namespace of the Secret"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status","description":"Whether the Secret can be used"}"#,
    printcolumn = r#"{"name":"Namespaces","type":"integer","jsonPath":".status.namespaces","description":"How many namespaces have the Secret"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason","priority":1,"description":"Why it is or is not ready"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"When it was created"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPullSecretSpec {
    /// The Secret to copy. Its type is kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg.
    pub source: ClusterSource,
    /// The namespaces that get it.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.names) || has(self.selector)", "message": "set names or selector; an empty selector selects every namespace"}]))]
    pub namespaces: Namespaces,
    /// The ServiceAccounts whose Pods get it. All of the namespace if this is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.names) || has(self.selector)", "message": "set names or selector"}]))]
    pub service_accounts: Option<Accounts>,
    /// Only Pods with these labels get it, when they are created. It is not added to ServiceAccounts then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub pods: Option<LabelSelector>,
    /// Only the credentials for these registries or repositories are copied, such as registry.example.com/team. All if
    /// this is empty. The host may have a * for a label, such as *.example.com.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9.*:\[\]-]+(/[a-z0-9._/-]*)?$"))
    )]
    pub registries: Vec<String>,
    /// Recreate Pods that cannot pull an image because they were created before the Secret was there. Only Pods whose
    /// controller makes new ones are deleted, a few per minute. Needs the part restart-stuck of the controller.
    #[serde(default)]
    pub restart_stuck: bool,
}

/// A pull Secret for workloads of this namespace.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    derive = "PartialEq",
    kind = "PullSecret",
    namespaced,
    doc = "PullSecret gives a pull Secret to the workloads of its namespace. The Secret is in the same namespace, or in one whose PullSecretGrant permits it.",
    status = "PullSecretStatus",
    shortname = "pls",
    category = "postern",
    printcolumn = r#"{"name":"Source","type":"string","jsonPath":".spec.source.name","description":"The Secret"}"#,
    printcolumn = r#"{"name":"From","type":"string","jsonPath":".spec.source.namespace","description":"The namespace of the Secret, if it is another one"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status","description":"Whether the Secret can be used"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason","priority":1,"description":"Why it is or is not ready"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"When it was created"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretSpec {
    /// The Secret. Its type is kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg.
    pub source: Source,
    /// The ServiceAccounts whose Pods get it. All of the namespace if this is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.names) || has(self.selector)", "message": "set names or selector"}]))]
    pub service_accounts: Option<Accounts>,
    /// Only Pods with these labels get it, when they are created. It is not added to ServiceAccounts then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub pods: Option<LabelSelector>,
    /// Only the credentials for these registries or repositories are used, such as registry.example.com/team. All if
    /// this is empty. The host may have a * for a label, such as *.example.com.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9.*:\[\]-]+(/[a-z0-9._/-]*)?$"))
    )]
    pub registries: Vec<String>,
    /// Recreate Pods that cannot pull an image because they were created before the Secret was there. Only Pods whose
    /// controller makes new ones are deleted, a few per minute. Needs the part restart-stuck of the controller.
    #[serde(default)]
    pub restart_stuck: bool,
}

/// Permits other namespaces to use pull Secrets of this one.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "postern.dev",
    version = "v1alpha1",
    derive = "PartialEq",
    kind = "PullSecretGrant",
    namespaced,
    doc = "PullSecretGrant permits PullSecrets of other namespaces to use pull Secrets of this one. Without it no Secret leaves its namespace.",
    shortname = "psg",
    category = "postern",
    printcolumn = r#"{"name":"Secrets","type":"string","jsonPath":".spec.secrets","description":"The Secrets"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"When it was created"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretGrantSpec {
    /// The Secrets of this namespace that may be used.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    pub secrets: Vec<String>,
    /// The namespaces that may use them.
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.names) || has(self.selector)", "message": "set names or selector; an empty selector selects every namespace"}]))]
    pub to: Namespaces,
    /// Only the credentials for these registries or repositories may be used. All if this is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9.*:\[\]-]+(/[a-z0-9._/-]*)?$"))
    )]
    pub registries: Vec<String>,
}

/// A Secret of any namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSource {
    /// The namespace of the Secret.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The namespace of the Secret, if it is another one. A PullSecretGrant there must permit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// ServiceAccounts of a namespace, by name or by label.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accounts {
    /// Names of ServiceAccounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,
    /// Labels of ServiceAccounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub selector: Option<LabelSelector>,
}

/// What the controller last found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many namespaces have the Secret.
    #[serde(default)]
    pub namespaces: i64,
    /// The state of the object.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// The definitions of all of them.
pub fn definitions()
-> Vec<postern_kube::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>{
    use kube::CustomResourceExt as _;
    vec![ClusterPullSecret::crd(), PullSecret::crd(), PullSecretGrant::crd()]
}
