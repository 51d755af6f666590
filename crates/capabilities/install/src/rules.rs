//! Every permission of the controller, each with the reason.

use crate::names::{NAME, WEBHOOK};
use crate::settings::{Part, Settings};
use serde_json::{Value, json};

/// One rule and why it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The part that needs it; `None` for every part.
    pub part: Option<Part>,
    /// Whether it is about the controller's own namespace only.
    pub is_own: bool,
    /// Whether it is needed only if the controller makes its certificate itself.
    pub is_for_certificate: bool,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Resources.
    pub resources: &'static [&'static str],
    /// Names; all if empty.
    pub names: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// What fails without it.
    pub reason: &'static str,
}

const OWN: Rule = Rule {
    part: None,
    is_own: true,
    is_for_certificate: false,
    group: "",
    resources: &[],
    names: &[],
    verbs: &[],
    reason: "",
};
const CLUSTER: Rule = Rule { is_own: false, ..OWN };
const PULL_SECRETS: Rule = Rule { part: Some(Part::PullSecrets), ..CLUSTER };

/// All rules of the parts that are on. A given certificate needs fewer.
pub fn rules(settings: &Settings) -> Vec<Rule> {
    let is_on = |rule: &&Rule| {
        let is_needed = settings.certificate_secret.is_none() || !rule.is_for_certificate;
        is_needed && rule.part.is_none_or(|part| settings.has(part))
    };
    ALL.iter().filter(is_on).copied().collect()
}

const ALL: [Rule; 15] = [
    Rule {
        group: "coordination.k8s.io",
        resources: &["leases"],
        verbs: &["create"],
        reason: "Without it no replica becomes the leader where the Lease does not exist yet. A creation cannot be limited to a name.",
        ..OWN
    },
    Rule {
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &[NAME],
        verbs: &["get", "patch"],
        reason: "Without it no replica becomes or stays the leader, and nothing is reconciled.",
        ..OWN
    },
    Rule {
        resources: &["secrets"],
        names: &[WEBHOOK],
        verbs: &["get", "list", "watch", "update"],
        reason: "Without it the webhook has no certificate, or keeps one that has expired.",
        ..OWN
    },
    Rule {
        is_for_certificate: true,
        resources: &["secrets"],
        verbs: &["create"],
        reason: "Without it the Secret of the webhook's certificate does not come back when somebody deletes it. A creation cannot be limited to a name.",
        ..OWN
    },
    Rule {
        resources: &["namespaces"],
        verbs: &["list", "watch"],
        reason: "Without it namespaces cannot be selected by label.",
        ..CLUSTER
    },
    Rule {
        group: "events.k8s.io",
        resources: &["events"],
        verbs: &["create", "patch"],
        reason: "Without it problems are told in the controller's log only.",
        ..CLUSTER
    },
    Rule {
        is_for_certificate: true,
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations"],
        names: &[WEBHOOK],
        verbs: &["get", "patch"],
        reason: "Without it the API server does not learn the webhook's CA, and calls no webhook.",
        ..CLUSTER
    },
    Rule {
        group: "postern.dev",
        resources: &["clusterpullsecrets", "pullsecrets", "pullsecretgrants"],
        verbs: &["list", "watch"],
        reason: "Without it nobody can ask for a pull Secret.",
        ..PULL_SECRETS
    },
    Rule {
        group: "postern.dev",
        resources: &["clusterpullsecrets/status", "pullsecrets/status"],
        verbs: &["patch"],
        reason: "Without it kubectl get does not say whether a pull Secret can be used.",
        ..PULL_SECRETS
    },
    Rule {
        resources: &["secrets"],
        verbs: &["get", "list", "watch", "create", "update", "delete"],
        reason: "Without it pull Secrets are neither read nor copied. RBAC cannot limit it to a type or a label: the controller lists copies by label and reads sources by name.",
        ..PULL_SECRETS
    },
    Rule {
        resources: &["serviceaccounts"],
        verbs: &["list", "watch", "patch"],
        reason: "Without it ServiceAccounts do not name the copies.",
        ..PULL_SECRETS
    },
    Rule {
        group: "operators.coreos.com",
        resources: &["catalogsources", "subscriptions", "clusterserviceversions"],
        verbs: &["list", "watch"],
        reason: "Without it the Secrets of a CatalogSource do not reach the operators of the Operator Lifecycle Manager.",
        ..PULL_SECRETS
    },
    Rule {
        part: Some(Part::RestartStuck),
        resources: &["pods"],
        verbs: &["list", "delete"],
        reason: "Without it Pods that cannot pull wait for a person.",
        ..CLUSTER
    },
    Rule {
        part: Some(Part::Volumes),
        group: "postern.dev",
        resources: &["volumeownerships"],
        verbs: &["list", "watch"],
        reason: "Without it only annotations ask for the owner of a volume.",
        ..CLUSTER
    },
    Rule {
        part: Some(Part::Volumes),
        resources: &["persistentvolumeclaims"],
        verbs: &["get"],
        reason: "Without it volumes cannot be selected by StorageClass.",
        ..CLUSTER
    },
];

impl Rule {
    /// As in a Role. `certificate` is the name of the certificate's Secret, if it is not the usual one.
    pub(crate) fn value(&self, certificate: Option<&str>) -> Value {
        let Self { part: _, is_own, is_for_certificate, group, resources, names, verbs, reason: _ } = self;
        let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        let is_certificate = *is_own && *resources == ["secrets"] && !is_for_certificate;
        match certificate.filter(|_| is_certificate) {
            // Somebody else renews it.
            Some(name) => {
                rule["resourceNames"] = json!([name]);
                rule["verbs"] = json!(["get", "list", "watch"]);
            }
            None if !names.is_empty() => rule["resourceNames"] = json!(names),
            None => {}
        }
        rule
    }
}
