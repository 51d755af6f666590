//! What custom resources of Postern share: selectors and conditions, with their schemas.
//!
//! The comments of fields are what `kubectl explain` prints, so they have no Markdown.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::core::{Selector, SelectorExt as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The API group of Postern's custom resources.
pub const GROUP: &str = "postern.dev";

/// Namespaces that a selector never selects; only a name does.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Namespaces, by name or by label.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Namespaces {
    /// Names of namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    pub names: Vec<String>,
    /// Labels of namespaces. An empty selector selects every namespace. Namespaces of Kubernetes itself (kube-system,
    /// kube-public, kube-node-lease) are selected by name only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub selector: Option<LabelSelector>,
}

impl Namespaces {
    /// Whether a namespace with these labels is one of them.
    pub fn contains(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let Self { names, selector } = self;
        names.iter().any(|one| one == name)
            || (!SYSTEM.contains(&name)
                && selector.as_ref().is_some_and(|selector| selects(selector, labels)))
    }
}

/// Whether a selector selects these labels. One with an invalid expression selects nothing.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// The schema of a label selector, as Kubernetes' own API has it.
pub fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Labels of objects. All requirements must hold. An empty selector selects everything.",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object", "additionalProperties": {"type": "string"},
                "description": "Labels and their values.",
            },
            "matchExpressions": {
                "type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic",
                "description": "Requirements on labels.",
                "items": {
                    "type": "object", "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "description": "The label."},
                        "operator": {
                            "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label's value relates to the values.",
                        },
                        "values": {
                            "type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic",
                            "description": "The values of In and NotIn.",
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
                        "message": "In and NotIn need values; Exists and DoesNotExist have none",
                    }],
                },
            },
        },
    })
}

/// A condition of an object's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The kind of condition.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When the status last changed.
    pub last_transition_time: String,
    /// The generation of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// The condition `Ready`. The time is the one of `before` if the status is the same.
    pub fn ready(
        is_ready: bool,
        reason: &str,
        message: &str,
        generation: Option<i64>,
        before: &[Self],
    ) -> Self {
        let status = if is_ready { "True" } else { "False" };
        let same = before.iter().find(|one| one.kind == "Ready" && one.status == status);
        Self {
            kind: "Ready".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: same.map_or_else(now, |one| one.last_transition_time.clone()),
            observed_generation: generation,
        }
    }
}

/// Now, as Kubernetes writes it, in seconds.
fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second())
        .map_or_else(|_| String::new(), |time| time.to_string())
}

/// The schema of a list of conditions: a map by type.
pub fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let items = Condition::json_schema(generator);
    json_schema!({
        "type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "description": "The state of the object, for people and for kubectl wait.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn namespaces_are_selected_by_name_or_label() {
        let namespaces = |value| serde_json::from_value::<Namespaces>(value).unwrap();
        let some = namespaces(json!({"names": ["kube-system"], "selector": {"matchLabels": {"team": "a"}}}));
        assert!(some.contains("kube-system", &labels("")));
        assert!(some.contains("x", &labels("team=a,z=1")));
        assert!(!some.contains("x", &labels("team=b")));
        let all = namespaces(json!({"selector": {}}));
        assert!(all.contains("x", &labels("")) && !all.contains("kube-system", &labels("")));
        assert!(!namespaces(json!({})).contains("x", &labels("")));
        let invalid = json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}});
        assert!(!namespaces(invalid).contains("x", &labels("a=1")));
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut before = Condition::ready(true, "Ready", "", Some(1), &[]);
        before.last_transition_time = "2026-01-01T00:00:00Z".to_owned();
        let same = Condition::ready(true, "Ready", "", Some(2), &[before.clone()]);
        assert_eq!(same.last_transition_time, before.last_transition_time);
        let other = Condition::ready(false, "SourceNotFound", "", Some(2), &[before.clone()]);
        assert!(other.last_transition_time > before.last_transition_time);
    }
}
