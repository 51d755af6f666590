//! The Helm chart and the Kustomize base, made from the same objects.
//!
//! The objects are built with placeholders as their settings. In the chart, each placeholder becomes an expression, and
//! what belongs to a part stands in an `if`.

use crate::objects::objects;
use crate::settings::{Part, Settings};
use serde_json::Value;
use std::collections::BTreeMap;

/// A placeholder and what stands for it in the chart.
const VALUES: [(&str, &str); 5] = [
    ("placeholder-namespace", "{{ .Release.Namespace }}"),
    ("placeholder-image", "{{ .Values.image }}"),
    ("placeholder-agent-image", "{{ .Values.agentImage }}"),
    ("placeholder-version", "{{ .Chart.AppVersion }}"),
    ("placeholder-service", "{{ .Release.Service }}"),
];
/// The number of replicas, which is no text.
const REPLICAS: u16 = 65_432;

const PARTS: &str = "pull-secrets,restart-stuck,volumes";
const PARTS_EXPRESSION: &str = r#"{{ include "postern.parts" . }}"#;

/// Files by path.
pub type Files = BTreeMap<String, String>;

fn settings(namespace: &str, image: &str, agent_image: &str, version: &str, replicas: u16) -> Settings {
    Settings {
        namespace: namespace.to_owned(),
        image: image.to_owned(),
        agent_image: agent_image.to_owned(),
        replicas,
        parts: Part::ALL.to_vec(),
        certificate_secret: None,
        image_pull_secret: None,
        trace_endpoint: None,
        version: version.to_owned(),
    }
}

/// The chart of a release. `yaml` renders an object.
pub fn helm(version: &str, yaml: impl Fn(&Value) -> String) -> Files {
    let [namespace, image, agent_image, release, _] = VALUES.map(|(placeholder, _)| placeholder);
    let settings = settings(namespace, image, agent_image, release, REPLICAS);
    let mut files = Files::new();
    for object in objects(&settings) {
        // Helm makes the namespace itself.
        if object["kind"] == "Namespace" {
            continue;
        }
        let mut object = object.clone();
        if object["kind"] == "CustomResourceDefinition" {
            // With it all objects of the kind would go, which are the users' own.
            object["metadata"]["annotations"]["helm.sh/resource-policy"] = "keep".into();
        }
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "placeholder-service".into();
        let mut text = yaml(&object);
        for (placeholder, expression) in VALUES {
            text = text.replace(placeholder, expression);
        }
        text = text.replace(PARTS, PARTS_EXPRESSION).replace(&REPLICAS.to_string(), "{{ .Values.replicas }}");
        // An expression at the start of a value would be a flow mapping.
        text = quoted(&text);
        if let Some(part) = part_of(&object) {
            text = format!("{{{{- if .Values.{} }}}}\n{text}{{{{- end }}}}\n", value_of(part));
        }
        files.insert(format!("templates/{}.yaml", file_of(&object)), text);
    }
    files.insert("templates/_helpers.tpl".to_owned(), helpers());
    files.insert("Chart.yaml".to_owned(), chart(version));
    files.insert("values.yaml".to_owned(), values(version));
    files.insert("values.schema.json".to_owned(), schema());
    files.insert("templates/NOTES.txt".to_owned(), NOTES.to_owned());
    files
}

/// The Kustomize base of a release.
pub fn kustomize(version: &str, image: &str, agent_image: &str, yaml: impl Fn(&Value) -> String) -> Files {
    let settings = settings(crate::NAMESPACE, image, agent_image, version, 3);
    let mut files = Files::new();
    let mut list =
        String::from("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n");
    for object in objects(&settings) {
        let name = format!("{}.yaml", file_of(&object));
        list.push_str(&format!("- {name}\n"));
        files.insert(name, yaml(&object));
    }
    files.insert("kustomization.yaml".to_owned(), list);
    files
}

/// Quotes values that start with an expression.
fn quoted(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(": {{ ") {
        Some((key, rest)) if !rest.starts_with("include") && !key.ends_with("replicas") => {
            format!("{key}: \"{{{{ {rest}\"\n")
        }
        _ => match line.split_once("- {{ ") {
            Some((indent, rest)) if indent.trim().is_empty() => format!("{indent}- \"{{{{ {rest}\"\n"),
            _ => format!("{line}\n"),
        },
    });
    lines.collect()
}

fn file_of(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if kind == "namespace" { kind } else { format!("{kind}-{name}") }
}

/// The part that an object belongs to.
fn part_of(object: &Value) -> Option<Part> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match object["kind"].as_str() {
        Some("CustomResourceDefinition") if name.starts_with("volume") => Some(Part::Volumes),
        Some("CustomResourceDefinition") => Some(Part::PullSecrets),
        _ => Part::ALL.into_iter().find(|part| name.ends_with(part.name())),
    }
}

fn value_of(part: Part) -> &'static str {
    match part {
        Part::PullSecrets => "pullSecrets",
        Part::RestartStuck => "restartStuck",
        Part::Volumes => "volumes",
    }
}

fn helpers() -> String {
    let mut text = String::from("{{- define \"postern.parts\" -}}\n{{- $parts := list -}}\n");
    for part in Part::ALL {
        text.push_str(&format!(
            "{{{{- if .Values.{} }}}}{{{{ $parts = append $parts \"{part}\" }}}}{{{{ end -}}}}\n",
            value_of(part)
        ));
    }
    text.push_str(
        "{{- if not $parts }}{{ fail \"switch on pullSecrets or volumes\" }}{{ end -}}\n{{- if and .Values.restartStuck (not \
         .Values.pullSecrets) }}{{ fail \"restartStuck needs pullSecrets\" }}{{ end -}}\n{{- join \",\" $parts -}}\n{{- end -}}\n",
    );
    text
}

fn chart(version: &str) -> String {
    format!(
        "apiVersion: v2\nname: postern-controller\ndescription: Pull Secrets where workloads need them, and volumes \
         owned by the right user\ntype: application\nversion: {version}\nappVersion: \"{version}\"\nkubeVersion: \
         \">=1.30.0-0\"\nhome: https://github.com/postern-dev/postern\n"
    )
}

fn values(version: &str) -> String {
    let tag = if version.contains("-dev") { "dev" } else { version };
    format!(
        "# The controller's image.\nimage: ghcr.io/postern-dev/postern-controller:{tag}\n# The image of init containers that \
         change the owner of volumes.\nagentImage: ghcr.io/postern-dev/postern-agent:{tag}\n# One replica reconciles; every \
         replica serves the webhook.\nreplicas: 3\n# Copies of pull Secrets, ServiceAccounts that name them, and Pods at \
         admission.\npullSecrets: true\n# Pods that cannot pull are recreated, for objects with restartStuck. Needs \
         pullSecrets.\nrestartStuck: false\n# Init containers that give volumes to the workload's user.\nvolumes: true\n"
    )
}

/// So that a misspelled value is an error.
fn schema() -> String {
    let schema = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
        "properties": {
            "image": {"type": "string", "minLength": 1}, "agentImage": {"type": "string", "minLength": 1},
            "replicas": {"type": "integer", "minimum": 0, "maximum": 100}, "pullSecrets": {"type": "boolean"},
            "restartStuck": {"type": "boolean"}, "volumes": {"type": "boolean"}, "global": {"type": "object"},
        },
    });
    format!("{schema:#}\n")
}

const NOTES: &str = "kubectl -n {{ .Release.Namespace }} rollout status deployment/postern-controller\n";
