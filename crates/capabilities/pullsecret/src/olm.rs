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
    /// Whether the catalog is in the same namespace, or OLM itself says that it is visible there. Whoever may change a
    /// Subscription may name any catalog.
    pub is_visible: bool,
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
        let own = object.namespace().unwrap_or_default();
        let namespace = text(&spec["sourceNamespace"]).unwrap_or_else(|| own.clone());
        let catalog = ObjectName { namespace, name: text(&spec["source"]).unwrap_or_default() };
        let csvs = ["installedCSV", "currentCSV"].iter().filter_map(|field| text(&status[field])).collect();
        let healths = status["catalogHealth"].as_array().into_iter().flatten();
        let is_visible = catalog.namespace == own
            || healths.map(|health| &health["catalogSourceRef"]).any(|reference| {
                reference["namespace"] == catalog.namespace.as_str()
                    && reference["name"] == catalog.name.as_str()
            });
        Self { catalog, is_visible, csvs }
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
    /// The catalogs of each operator, by the UID of its CSV, as Subscriptions name them now.
    pub fn catalogs_of_operators(&self) -> BTreeMap<String, BTreeSet<ObjectName>> {
        let mut found: BTreeMap<String, BTreeSet<ObjectName>> = BTreeMap::new();
        for (object, csv) in self.csvs.iter().filter(|(_, csv)| !csv.is_copied) {
            let subscriptions = self.subscriptions.iter().filter(|(name, one)| {
                one.is_visible && name.namespace == object.namespace && one.csvs.contains(&object.name)
            });
            let catalogs: BTreeSet<_> = subscriptions.map(|(_, one)| one.catalog.clone()).collect();
            if !catalogs.is_empty() {
                found.insert(csv.consumer.uid.clone(), catalogs);
            }
        }
        found
    }

    /// The rules of all operators.
    ///
    /// A deleted Subscription leaves the CSV and its Deployments. `remembered` gives the catalogs that a CSV had as long as
    /// this program runs. After that the copies themselves say it, which anyone may write who may write Secrets: for them
    /// nothing is written, and what there is stays with the CSV.
    pub fn rules(
        &self,
        remembered: &BTreeMap<String, BTreeSet<ObjectName>>,
        copies: impl Fn(&str) -> Vec<Arc<Copy>>,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        let none = BTreeSet::new();
        for (object, csv) in self.csvs {
            if csv.is_copied || csv.accounts.is_empty() || self.catalogs.is_empty() {
                continue;
            }
            let uid = &csv.consumer.uid;
            let known = remembered.get(uid).unwrap_or(&none);
            let copies = copies(&object.namespace);
            let owned =
                copies.iter().filter(|copy| copy.owners.contains(uid)).flat_map(|copy| copy.catalogs());
            let written: BTreeSet<_> = owned.filter(|catalog| !known.contains(catalog)).collect();
            let all = known.iter().map(|catalog| (catalog, false));
            for (catalog, is_kept) in all.chain(written.iter().map(|catalog| (catalog, true))) {
                let secrets = self.catalogs.get(catalog).into_iter().flat_map(|one| &one.secrets);
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
                        is_kept,
                    });
                }
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str, spec: &Value, status: &Value) -> DynamicObject {
        let value = json!({
            "apiVersion": "operators.coreos.com/v1alpha1", "kind": kind, "spec": spec, "status": status,
            "metadata": {"name": "x", "namespace": "own", "uid": "csv-uid"},
        });
        serde_json::from_value(value).unwrap()
    }

    fn name(namespace: &str, name: &str) -> ObjectName {
        ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_catalog_of_another_namespace_counts_only_by_olms_word() {
        let visible = |namespace: &str, health: Value| {
            let spec = json!({"source": "private", "sourceNamespace": namespace});
            Subscription::of(&object(SUBSCRIPTION, &spec, &json!({"catalogHealth": health}))).is_visible
        };
        let health =
            |namespace: &str| json!([{"catalogSourceRef": {"name": "private", "namespace": namespace}}]);
        assert!(visible("own", json!(null)) && visible("olm", health("olm")));
        assert!(!visible("victim", json!(null)) && !visible("victim", health("olm")));
    }

    #[test]
    fn what_a_copy_says_of_its_catalog_writes_nothing() {
        let deployments = json!([{"spec": {"template": {"spec": {"serviceAccountName": "app"}}}}]);
        let spec = json!({"install": {"spec": {"deployments": deployments}}});
        let csv = ClusterServiceVersion::of(&object(CSV, &spec, &json!({})));
        let catalogs = [name("victim", "catalog"), name("olm", "catalog")]
            .map(|name| (name, Arc::new(CatalogSource { secrets: vec!["s".to_owned()] })));
        let (catalogs, subscriptions) = (BTreeMap::from(catalogs), BTreeMap::new());
        let csvs = BTreeMap::from([(name("own", "x"), Arc::new(csv))]);
        let olm = Olm { catalogs: &catalogs, subscriptions: &subscriptions, csvs: &csvs };
        let forged = Arc::new(Copy {
            name: "postern-pull-0".to_owned(),
            resource_version: String::new(),
            kind: String::new(),
            data: None,
            is_immutable: false,
            owners: BTreeSet::from(["csv-uid".to_owned()]),
            annotations: BTreeMap::from([("postern.dev/catalogs".to_owned(), "victim/catalog".to_owned())]),
        });
        let remembered = BTreeMap::from([("csv-uid".to_owned(), BTreeSet::from([name("olm", "catalog")]))]);
        let rules = olm.rules(&remembered, |_| vec![forged.clone()]);
        let found: Vec<_> = rules.iter().map(|rule| (rule.source.namespace.as_str(), rule.is_kept)).collect();
        assert_eq!(found, [("olm", false), ("victim", true)]);
    }
}
