//! What the custom resources ask for, in one form.

use crate::types::{Accounts, ClusterPullSecret, PullSecret, PullSecretGrant};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{Resource, ResourceExt as _};
use postern_kube::crd::{Namespaces, selects};
use postern_registry::{DockerConfig, Format, InvalidDockerConfig, Pattern, intersection};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A name in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// `NAMESPACE/NAME`
impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name } = self;
        write!(f, "{namespace}/{name}")
    }
}

/// A pull Secret that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    /// What it holds.
    pub config: DockerConfig,
    /// How it holds it.
    pub format: Format,
}

/// What is known of a Secret that is named as a source.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretState {
    /// It does not exist.
    Missing,
    /// It has another type.
    WrongType(String),
    /// It is a copy itself, which would outlive the grant that it was made by.
    IsCopy,
    /// It has no data, or data that cannot be parsed.
    Invalid(InvalidDockerConfig),
    /// It can be used.
    Valid(Arc<Secret>),
}

/// What is known of each source. One that is not there has not been read yet.
pub type Sources = std::collections::BTreeMap<ObjectName, SecretState>;

impl SecretState {
    /// Reads a Secret.
    pub fn of(secret: &k8s_openapi::api::core::v1::Secret) -> Self {
        if secret.labels().contains_key(crate::names::COPY_LABEL) {
            return Self::IsCopy;
        }
        let kind = secret.type_.as_deref().unwrap_or("Opaque");
        let Some(format) = Format::of_type(kind) else { return Self::WrongType(kind.to_owned()) };
        let data = secret.data.as_ref().and_then(|data| data.get(format.key()));
        let data = data.map_or(&[][..], |data| data.0.as_slice());
        match DockerConfig::parse(format, data) {
            Ok(config) => Self::Valid(Arc::new(Secret { config, format })),
            Err(error) => Self::Invalid(error),
        }
    }
}

/// Who asks for a Secret. Copies are owned by it, so that they go with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Consumer {
    /// The API version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace; `None` for an object of the cluster.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
}

impl Consumer {
    /// An object.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
        }
    }

    /// The reference to it from a copy.
    pub fn reference(&self) -> OwnerReference {
        let Self { api_version, kind, namespace: _, name, uid } = self;
        OwnerReference {
            api_version: api_version.clone(),
            kind: kind.clone(),
            name: name.clone(),
            uid: uid.clone(),
            controller: None,
            block_owner_deletion: None,
        }
    }
}

/// The namespaces of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    /// One.
    One(String),
    /// All that these select.
    Selected(Namespaces),
}

/// A pull Secret for workloads.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Who asks for it.
    pub consumer: Consumer,
    /// The Secret.
    pub source: ObjectName,
    /// Where.
    pub scope: Scope,
    /// For whom; `None` for all `ServiceAccounts`.
    pub accounts: Option<Accounts>,
    /// For which Pods; `None` for all, and then `ServiceAccounts` name it.
    pub pods: Option<LabelSelector>,
    /// For which repositories; all if empty.
    pub patterns: Vec<Pattern>,
    /// Whether Pods that cannot pull are recreated.
    pub restart_stuck: bool,
    /// The `CatalogSource` that grants it.
    pub catalog: Option<ObjectName>,
    /// Whether what there is stays, and nothing is written.
    pub is_kept: bool,
}

impl Rule {
    /// Whether it is about this namespace.
    pub fn is_for(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        match &self.scope {
            Scope::One(name) => name == namespace,
            Scope::Selected(namespaces) => namespaces.contains(namespace, labels),
        }
    }

    /// Whether it is about this `ServiceAccount`.
    pub fn is_for_account(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.accounts.as_ref().is_none_or(|Accounts { names, selector }| {
            names.iter().any(|one| one == name)
                || selector.as_ref().is_some_and(|selector| selects(selector, labels))
        })
    }

    /// The name of the Secret in a namespace: of a copy, or of the source itself if it is there already and not
    /// narrowed. OLM's operators always have a copy, which remembers their catalog.
    pub fn secret_name(&self, namespace: &str) -> String {
        if self.source.namespace == namespace && self.patterns.is_empty() && self.catalog.is_none() {
            return self.source.name.clone();
        }
        copy_name(&self.source, &self.patterns)
    }
}

/// The name of a copy: the same for every namespace.
pub(crate) fn copy_name(source: &ObjectName, patterns: &[Pattern]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(source.to_string().as_bytes());
    for pattern in patterns {
        hasher.update(b"\0").update(pattern.to_string().as_bytes());
    }
    let hash = hasher.finalize().to_hex();
    format!("{}{}", crate::names::PREFIX, &hash[..16])
}

/// Why an object asks in vain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A repository cannot be read.
    #[error("spec.registries: {0}")]
    Registry(#[from] postern_registry::InvalidPattern),
    /// The source's namespace does not permit it.
    #[error("no PullSecretGrant in namespace {:?} permits Secret {:?} for namespace {namespace:?}", source_name.namespace, source_name.name)]
    NotGranted {
        /// The Secret.
        source_name: ObjectName,
        /// Who asks.
        namespace: String,
    },
    /// The source's namespace permits other repositories.
    #[error("the PullSecretGrant in namespace {:?} permits other registries for Secret {:?}", .0.namespace, .0.name)]
    OtherRegistries(ObjectName),
    /// The namespace's other objects name as many Secrets as it may.
    #[error(
        "the PullSecrets of namespace {0:?} name more than {MAX_SOURCES} Secrets; merge some of the Secrets, or delete a PullSecret"
    )]
    TooManySources(String),
}

impl Problem {
    /// For the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Registry(_) => "InvalidRegistry",
            Self::NotGranted { .. } => "NotGranted",
            Self::OtherRegistries(_) => "RegistriesNotGranted",
            Self::TooManySources(_) => "TooManySources",
        }
    }
}

/// How many Secrets the `PullSecrets` of a namespace may name. Each is watched, and whoever may write in a namespace may
/// name Secrets that do not exist.
pub(crate) const MAX_SOURCES: usize = 100;

/// All rules, by namespace.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Those that select namespaces.
    selected: Vec<Arc<Rule>>,
    /// Those for one namespace.
    by_namespace: BTreeMap<String, Vec<Arc<Rule>>>,
    /// What asks in vain, by UID.
    problems: BTreeMap<String, Problem>,
}

impl Rules {
    /// Adds the rule of an object, or why it has none.
    pub fn add(&mut self, uid: &str, rule: Result<Rule, Problem>) {
        match rule {
            Err(problem) => {
                self.problems.insert(uid.to_owned(), problem);
            }
            Ok(rule) => match &rule.scope {
                Scope::One(namespace) => {
                    let others = self.by_namespace.entry(namespace.clone()).or_default();
                    if rule.catalog.is_none() && exceeds(others, &rule.source) {
                        self.problems.insert(uid.to_owned(), Problem::TooManySources(namespace.clone()));
                    } else {
                        others.push(Arc::new(rule));
                    }
                }
                Scope::Selected(_) => self.selected.push(Arc::new(rule)),
            },
        }
    }

    /// Those for a namespace.
    pub fn of_namespace<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Arc<Rule>> {
        let selected = self.selected.iter().filter(|rule| rule.is_for(namespace, labels));
        selected.chain(self.by_namespace.get(namespace).into_iter().flatten())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.selected.iter().chain(self.by_namespace.values().flatten())
    }

    /// Why an object asks in vain.
    pub fn problem(&self, uid: &str) -> Option<&Problem> {
        self.problems.get(uid)
    }

    /// The Secrets that are named as sources.
    pub fn sources(&self) -> BTreeSet<ObjectName> {
        self.iter().map(|rule| rule.source.clone()).collect()
    }
}

/// Whether a namespace's rules name as many sources as they may, and not this one. What a catalog grants is not counted.
fn exceeds(rules: &[Arc<Rule>], source: &ObjectName) -> bool {
    let named: BTreeSet<_> =
        rules.iter().filter(|rule| rule.catalog.is_none()).map(|rule| &rule.source).collect();
    named.len() >= MAX_SOURCES && !named.contains(source)
}

impl TryFrom<&ClusterPullSecret> for Rule {
    type Error = Problem;

    fn try_from(object: &ClusterPullSecret) -> Result<Self, Problem> {
        let spec = &object.spec;
        Ok(Self {
            consumer: Consumer::of(object),
            source: ObjectName { namespace: spec.source.namespace.clone(), name: spec.source.name.clone() },
            scope: Scope::Selected(spec.namespaces.clone()),
            accounts: spec.service_accounts.clone(),
            pods: spec.pods.clone(),
            patterns: patterns(&spec.registries)?,
            restart_stuck: spec.restart_stuck,
            catalog: None,
            is_kept: false,
        })
    }
}

impl Rule {
    /// The rule of a `PullSecret`. `grants` are those of the source's namespace, and `labels` those of its own.
    pub fn of_pull_secret<'g>(
        object: &PullSecret,
        labels: &BTreeMap<String, String>,
        grants: impl IntoIterator<Item = &'g PullSecretGrant>,
    ) -> Result<Self, Problem> {
        let spec = &object.spec;
        let own = object.namespace().unwrap_or_default();
        let namespace = spec.source.namespace.clone().unwrap_or_else(|| own.clone());
        let source = ObjectName { namespace, name: spec.source.name.clone() };
        let mut asked = patterns(&spec.registries)?;
        if source.namespace != own {
            asked = granted(&source, &own, labels, &asked, grants)?;
        }
        Ok(Self {
            consumer: Consumer::of(object),
            source,
            scope: Scope::One(own),
            accounts: spec.service_accounts.clone(),
            pods: spec.pods.clone(),
            patterns: asked,
            restart_stuck: spec.restart_stuck,
            catalog: None,
            is_kept: false,
        })
    }
}

/// What is asked for and granted. Several grants add up.
fn granted<'g>(
    source: &ObjectName,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    asked: &[Pattern],
    grants: impl IntoIterator<Item = &'g PullSecretGrant>,
) -> Result<Vec<Pattern>, Problem> {
    let (mut is_granted, mut all) = (false, BTreeSet::new());
    for grant in grants {
        let is_its = grant.namespace().as_deref() == Some(source.namespace.as_str());
        if !is_its || !grant.spec.secrets.contains(&source.name) || !grant.spec.to.contains(namespace, labels)
        {
            continue;
        }
        is_granted = true;
        // A grant with a repository that cannot be read grants nothing, rather than everything.
        let Ok(permitted) = patterns(&grant.spec.registries) else { continue };
        match intersection(asked, &permitted) {
            Some(both) if both.is_empty() => return Ok(both),
            Some(both) => all.extend(both),
            None => {}
        }
    }
    if !is_granted {
        return Err(Problem::NotGranted { source_name: source.clone(), namespace: namespace.to_owned() });
    }
    if all.is_empty() {
        return Err(Problem::OtherRegistries(source.clone()));
    }
    Ok(all.into_iter().collect())
}

fn patterns(registries: &[String]) -> Result<Vec<Pattern>, Problem> {
    let mut patterns = registries.iter().map(|text| text.parse()).collect::<Result<Vec<Pattern>, _>>()?;
    patterns.sort();
    patterns.dedup();
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pull_secret(spec: &Value) -> PullSecret {
        let object = json!({
            "apiVersion": "postern.dev/v1alpha1", "kind": "PullSecret", "spec": spec,
            "metadata": {"name": "p", "namespace": "b", "uid": "u"},
        });
        serde_json::from_value(object).unwrap()
    }

    fn grant(namespace: &str, spec: &Value) -> PullSecretGrant {
        let object = json!({
            "apiVersion": "postern.dev/v1alpha1", "kind": "PullSecretGrant", "spec": spec,
            "metadata": {"name": "g", "namespace": namespace},
        });
        serde_json::from_value(object).unwrap()
    }

    fn rule(spec: &Value, grants: &[PullSecretGrant]) -> Result<Rule, Problem> {
        Rule::of_pull_secret(&pull_secret(spec), &BTreeMap::new(), grants)
    }

    #[test]
    fn no_secret_leaves_its_namespace_without_a_grant() {
        let from_a = json!({"source": {"namespace": "a", "name": "s"}});
        let to_b = json!({"names": ["b"]});
        for grants in [
            vec![],
            vec![grant("a", &json!({"secrets": ["other"], "to": to_b}))],
            vec![grant("a", &json!({"secrets": ["s"], "to": {"names": ["c"]}}))],
            // A grant in the asking namespace, or in a third one, is none.
            vec![grant("b", &json!({"secrets": ["s"], "to": to_b}))],
            vec![grant("c", &json!({"secrets": ["s"], "to": to_b}))],
        ] {
            assert_eq!(rule(&from_a, &grants).unwrap_err().reason(), "NotGranted", "{grants:?}");
        }
        let granted = rule(&from_a, &[grant("a", &json!({"secrets": ["s"], "to": to_b}))]).unwrap();
        assert_eq!((granted.source.to_string(), granted.patterns.len()), ("a/s".to_owned(), 0));
        assert_eq!(granted.secret_name("b"), copy_name(&granted.source, &[]));
        // In its own namespace none is needed, and there is no copy.
        let own = rule(&json!({"source": {"name": "s"}}), &[]).unwrap();
        assert_eq!(own.secret_name("b"), "s");
    }

    #[test]
    fn a_namespace_names_a_limited_number_of_sources() {
        let mut rules = Rules::default();
        let named = |name: &str| rule(&json!({"source": {"name": name}}), &[]).unwrap();
        for number in 0..=MAX_SOURCES {
            rules.add(&number.to_string(), Ok(named(&format!("s{number}"))));
        }
        assert_eq!(rules.sources().len(), MAX_SOURCES);
        assert_eq!(rules.problem(&MAX_SOURCES.to_string()).unwrap().reason(), "TooManySources");
        // A source that is named already needs no second watch. A catalog's source does not count.
        rules.add("again", Ok(named("s0")));
        let catalog = Some(ObjectName { namespace: "c".to_owned(), name: "c".to_owned() });
        rules.add("", Ok(Rule { catalog, ..named("of-catalog") }));
        assert_eq!((rules.problem("again"), rules.sources().len()), (None, MAX_SOURCES + 1));
    }

    #[test]
    fn a_grant_narrows_what_is_asked_for() {
        let asks = |registries: Value| {
            let spec = json!({"source": {"namespace": "a", "name": "s"}, "registries": registries});
            let grants = [
                grant("a", &json!({"secrets": ["s"], "to": {"names": ["b"]}, "registries": ["a.io/x"]})),
                grant("a", &json!({"secrets": ["s"], "to": {"names": ["b"]}, "registries": ["b.io"]})),
            ];
            rule(&spec, &grants)
        };
        let patterns = |registries| {
            let rule = asks(registries).unwrap();
            rule.patterns.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(patterns(json!([])), ["a.io/x", "b.io"]);
        assert_eq!(patterns(json!(["a.io"])), ["a.io/x"]);
        assert_eq!(patterns(json!(["b.io/y", "c.io"])), ["b.io/y"]);
        assert_eq!(asks(json!(["c.io"])).unwrap_err().reason(), "RegistriesNotGranted");
        assert_eq!(asks(json!(["https://c.io"])).unwrap_err().reason(), "InvalidRegistry");
    }
}
