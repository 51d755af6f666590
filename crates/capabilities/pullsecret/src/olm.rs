//! The Operator Lifecycle Manager: a `CatalogSource` names pull Secrets, and the operators that come from it need them.
//!
//! Objects: `operators.coreos.com/v1alpha1`, <https://olm.operatorframework.io/docs/concepts/crds/>. Requested since
//! <https://github.com/operator-framework/operator-lifecycle-manager/issues/2307>.

use crate::plan::Copy;
use crate::rule::{Consumer, ObjectName, Rule, Scope};
use crate::types::Accounts;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Resource as _, ResourceExt as _};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const GROUP: &str = "operators.coreos.com";
const VERSION: &str = "v1alpha1";
/// The kind of catalogs.
pub const CATALOG: &str = "CatalogSource";
/// The kind of subscriptions.
pub const SUBSCRIPTION: &str = "Subscription";
/// The kind of installed operators.
pub const CSV: &str = "ClusterServiceVersion";

/// The label of CSVs that OLM copied to other namespaces. They have no Deployments there.
pub const COPIED_FROM: &str = "olm.copiedFrom";

/// The resource of a kind.
pub fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind))
}

/// A catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogSource {
    /// The names in `spec.secrets`.
    pub secrets: Vec<String>,
}

/// A subscription to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The catalog.
    pub catalog: ObjectName,
    /// The CSVs that are installed, or being installed.
    pub csvs: BTreeSet<String>,
}

/// An installed operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterServiceVersion {
    /// The object.
    pub consumer: Consumer,
    /// The `ServiceAccounts` of its Deployments.
    pub accounts: BTreeSet<String>,
    /// Whether OLM copied it from another namespace.
    pub is_copied: bool,
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

impl CatalogSource {
    /// Reads the object.
    pub fn of(object: &DynamicObject) -> Self {
        let secrets = object.data["spec"]["secrets"].as_array().into_iter().flatten();
        Self { secrets: secrets.filter_map(text).collect() }
    }
}

impl Subscription {
    /// Reads the object.
    pub fn of(object: &DynamicObject) -> Self {
        let (spec, status) = (&object.data["spec"], &object.data["status"]);
        let namespace = text(&spec["sourceNamespace"]).or_else(|| object.namespace()).unwrap_or_default();
        let csvs = ["installedCSV", "currentCSV"].iter().filter_map(|field| text(&status[field])).collect();
        Self { catalog: ObjectName { namespace, name: text(&spec["source"]).unwrap_or_default() }, csvs }
    }
}

impl ClusterServiceVersion {
    /// Reads the object.
    pub fn of(object: &DynamicObject) -> Self {
        let deployments =
            object.data["spec"]["install"]["spec"]["deployments"].as_array().into_iter().flatten();
        let accounts = deployments.map(|deployment| {
            let pod = &deployment["spec"]["template"]["spec"];
            text(&pod["serviceAccountName"])
                .or_else(|| text(&pod["serviceAccount"]))
                .unwrap_or_else(|| "default".to_owned())
        });
        Self {
            consumer: Consumer {
                api_version: format!("{GROUP}/{VERSION}"),
                kind: CSV.to_owned(),
                namespace: object.namespace(),
                name: object.name_any(),
                uid: object.meta().uid.clone().unwrap_or_default(),
            },
            accounts: accounts.collect(),
            is_copied: object.labels().contains_key(COPIED_FROM)
                || object.annotations().contains_key(COPIED_FROM)
                || object.data["status"]["reason"] == "Copied",
        }
    }
}

/// Everything that was read of OLM.
#[derive(Debug, Clone, Copy)]
pub struct Olm<'a> {
    /// The catalogs.
    pub catalogs: &'a BTreeMap<ObjectName, Arc<CatalogSource>>,
    /// The subscriptions.
    pub subscriptions: &'a BTreeMap<ObjectName, Arc<Subscription>>,
    /// The CSVs.
    pub csvs: &'a BTreeMap<ObjectName, Arc<ClusterServiceVersion>>,
}

impl Olm<'_> {
    /// The rules of all operators. `copies` gives the copies of a namespace: they remember the catalog of an operator
    /// whose Subscription was deleted, which leaves the CSV and its Deployments.
    pub fn rules(&self, copies: impl Fn(&str) -> Vec<Arc<Copy>>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (object, csv) in self.csvs {
            if csv.is_copied || csv.accounts.is_empty() {
                continue;
            }
            let subscriptions = self
                .subscriptions
                .iter()
                .filter(|(name, one)| name.namespace == object.namespace && one.csvs.contains(&object.name));
            let mut catalogs: BTreeSet<ObjectName> =
                subscriptions.map(|(_, one)| one.catalog.clone()).collect();
            if !self.catalogs.is_empty() {
                let copies = copies(&object.namespace);
                let owned = copies.iter().filter(|copy| copy.owners.contains(&csv.consumer.uid));
                catalogs.extend(owned.flat_map(|copy| copy.catalogs()));
            }
            for catalog in catalogs {
                let secrets = self.catalogs.get(&catalog).into_iter().flat_map(|one| &one.secrets);
                for secret in secrets {
                    rules.push(Rule {
                        consumer: csv.consumer.clone(),
                        source: ObjectName { namespace: catalog.namespace.clone(), name: secret.clone() },
                        scope: Scope::One(object.namespace.clone()),
                        accounts: Some(Accounts {
                            names: csv.accounts.iter().cloned().collect(),
                            selector: None,
                        }),
                        pods: None,
                        patterns: Vec::new(),
                        restart_stuck: false,
                        catalog: Some(catalog.clone()),
                    });
                }
            }
        }
        rules
    }
}
