//! What a namespace is to have.

use crate::accounts::Account;
use crate::names::PREFIX;
use crate::rule::{Consumer, ObjectName, Rule, SecretState, Sources};
use kube::ResourceExt as _;
use postern_registry::Format;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The annotation with the source, `NAMESPACE/NAME`.
pub(crate) const SOURCE: &str = "postern.dev/source";
/// The annotation with the repositories that the copy is narrowed to.
pub(crate) const REGISTRIES: &str = "postern.dev/registries";
/// The annotation with the `CatalogSources` that grant the copy to OLM's operators.
pub(crate) const CATALOGS: &str = "postern.dev/catalogs";

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub is_terminating: bool,
}

/// A copy that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    /// The name.
    pub name: String,
    /// The resource version that a change is based on.
    pub resource_version: String,
    /// The type.
    pub kind: String,
    /// The hash of the data, if the Secret has exactly the key of its type.
    pub data: Option<blake3::Hash>,
    /// Whether it can only be replaced.
    pub is_immutable: bool,
    /// The UIDs of its owners.
    pub owners: BTreeSet<String>,
    /// The three annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Copy {
    /// Reads a Secret with the label of copies; `None` if its name is not one of a copy, or it has no source.
    pub fn of(secret: &k8s_openapi::api::core::v1::Secret) -> Option<Self> {
        if !secret.name_any().starts_with(PREFIX) || !secret.annotations().contains_key(SOURCE) {
            return None;
        }
        let kind = secret.type_.clone().unwrap_or_default();
        let key = Format::of_type(&kind).map(Format::key);
        let data = secret.data.as_ref().filter(|data| data.len() == 1);
        let ours = [SOURCE, REGISTRIES, CATALOGS];
        Some(Self {
            name: secret.name_any(),
            resource_version: secret.resource_version().unwrap_or_default(),
            data: key.and_then(|key| data?.get(key).map(|data| blake3::hash(&data.0))),
            is_immutable: secret.immutable == Some(true),
            kind,
            owners: secret.owner_references().iter().map(|owner| owner.uid.clone()).collect(),
            annotations: secret
                .annotations()
                .iter()
                .filter(|(name, _)| ours.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        })
    }

    /// The `CatalogSources` that granted it.
    pub fn catalogs(&self) -> impl Iterator<Item = ObjectName> {
        let list = self.annotations.get(CATALOGS).map(String::as_str).unwrap_or_default();
        list.split(',')
            .filter_map(|text| text.split_once('/'))
            .map(|(namespace, name)| ObjectName { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// A copy that is to exist.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredCopy {
    /// The name.
    pub name: String,
    /// How it holds the data.
    pub format: Format,
    /// The data.
    pub data: Vec<u8>,
    /// Who asks for it.
    pub consumers: BTreeSet<Consumer>,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

impl DesiredCopy {
    fn is(&self, copy: &Copy) -> bool {
        let Self { name: _, format, data, consumers, annotations } = self;
        format.secret_type() == copy.kind
            && copy.data == Some(blake3::hash(data))
            && consumers.iter().map(|consumer| consumer.uid.clone()).collect::<BTreeSet<_>>() == copy.owners
            && *annotations == copy.annotations
    }
}

/// A change of a copy.
#[derive(Debug, Clone, PartialEq)]
pub enum CopyChange {
    /// It is missing.
    Create(DesiredCopy),
    /// It differs. With the resource version.
    Update(DesiredCopy, String),
    /// Its type differs, which cannot be changed.
    Replace(DesiredCopy),
    /// Nobody asks for it any more.
    Delete(String),
}

/// A change of a `ServiceAccount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountChange {
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// The resource version that it is based on.
    pub resource_version: String,
    /// The list `imagePullSecrets`.
    pub names: Vec<String>,
    /// Of these, the ones that Postern added.
    pub recorded: BTreeSet<String>,
    /// The names that are added, rather than removed.
    pub added: Vec<String>,
}

/// All changes of a namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Of copies.
    pub copies: Vec<CopyChange>,
    /// Of `ServiceAccounts`.
    pub accounts: Vec<AccountChange>,
    /// Whether Pods that cannot pull are recreated.
    pub restart_stuck: bool,
}

impl Plan {
    /// Whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.accounts.is_empty()
    }
}

/// What was read of a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The namespace.
    pub namespace: &'a NamespaceInfo,
    /// Its `ServiceAccounts`.
    pub accounts: &'a [Arc<Account>],
    /// Its copies.
    pub copies: &'a [Arc<Copy>],
    /// The sources. One that is not there has not been read yet.
    pub sources: &'a Sources,
}

/// What is to become of a Secret's name in the namespace.
enum Wanted {
    /// It is the source itself.
    Source,
    /// A copy.
    Copy(DesiredCopy),
    /// What there is stays: the source is not known, or cannot be read.
    Kept,
}

/// Says which changes a namespace needs. `rules` are those for this namespace.
pub fn plan<'r>(observed: &Observed, rules: impl IntoIterator<Item = &'r Arc<Rule>>) -> Plan {
    let Observed { namespace, accounts, copies, sources } = *observed;
    let mut plan = Plan::default();
    if namespace.is_terminating {
        return plan;
    }
    let rules: Vec<_> = rules.into_iter().collect();
    let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
    for rule in &rules {
        let Some((name, one)) = want(rule, &namespace.name, sources) else { continue };
        match (wanted.get_mut(&name), one) {
            (Some(Wanted::Copy(first)), Wanted::Copy(other)) => merge(first, other),
            (Some(_), _) => {}
            (None, one) => {
                wanted.insert(name, one);
            }
        }
        plan.restart_stuck |= rule.restart_stuck;
    }
    for copy in copies {
        match wanted.get(&copy.name) {
            Some(Wanted::Kept | Wanted::Source) => {}
            Some(Wanted::Copy(desired)) if desired.is(copy) => {}
            Some(Wanted::Copy(desired)) if desired.format.secret_type() != copy.kind || copy.is_immutable => {
                plan.copies.push(CopyChange::Replace(desired.clone()));
            }
            Some(Wanted::Copy(desired)) => {
                plan.copies.push(CopyChange::Update(desired.clone(), copy.resource_version.clone()));
            }
            None => plan.copies.push(CopyChange::Delete(copy.name.clone())),
        }
    }
    let exists = |name: &str| copies.iter().any(|copy| copy.name == name);
    plan.copies.extend(wanted.values().filter_map(|one| match one {
        Wanted::Copy(desired) if !exists(&desired.name) => Some(CopyChange::Create(desired.clone())),
        _ => None,
    }));
    for account in accounts {
        let names = rules
            .iter()
            .filter(|rule| rule.pods.is_none() && rule.is_for_account(&account.name, &account.labels))
            .map(|rule| rule.secret_name(&namespace.name))
            .filter(|name| match wanted.get(name) {
                // Nothing is added before it is known, and nothing is taken away.
                Some(Wanted::Kept) => account.recorded.contains(name),
                Some(_) => true,
                None => false,
            });
        if let Some((names, recorded)) = account.with(&names.collect()) {
            plan.accounts.push(AccountChange {
                name: account.name.clone(),
                uid: account.uid.clone(),
                resource_version: account.resource_version.clone(),
                added: names.iter().filter(|name| !account.names.contains(*name)).cloned().collect(),
                names,
                recorded,
            });
        }
    }
    plan
}

/// What a rule wants, and by which name.
fn want(rule: &Rule, namespace: &str, sources: &Sources) -> Option<(String, Wanted)> {
    let name = rule.secret_name(namespace);
    let secret = match sources.get(&rule.source) {
        Some(SecretState::Missing | SecretState::WrongType(_) | SecretState::IsCopy) => return None,
        None | Some(SecretState::Invalid(_)) => return Some((name, Wanted::Kept)),
        // Somebody may have forged what this follows from: nothing is written for it.
        Some(_) if rule.is_kept => return Some((name, Wanted::Kept)),
        Some(SecretState::Valid(secret)) => secret,
    };
    if name == rule.source.name && rule.source.namespace == namespace {
        return Some((name, Wanted::Source));
    }
    let config = secret.config.narrowed(&rule.patterns);
    if config.is_empty() {
        return None;
    }
    let mut annotations = BTreeMap::from([(SOURCE.to_owned(), rule.source.to_string())]);
    if !rule.patterns.is_empty() {
        annotations.insert(REGISTRIES.to_owned(), joined(&rule.patterns));
    }
    if let Some(catalog) = &rule.catalog {
        annotations.insert(CATALOGS.to_owned(), catalog.to_string());
    }
    let desired = DesiredCopy {
        name: name.clone(),
        format: secret.format,
        data: config.to_bytes(),
        consumers: BTreeSet::from([rule.consumer.clone()]),
        annotations,
    };
    Some((name, Wanted::Copy(desired)))
}

/// Adds what another rule wants of the same copy.
fn merge(first: &mut DesiredCopy, other: DesiredCopy) {
    first.consumers.extend(other.consumers);
    if let Some(more) = other.annotations.get(CATALOGS) {
        let before = first.annotations.get(CATALOGS).map(String::as_str).unwrap_or_default();
        let all: BTreeSet<&str> =
            before.split(',').chain(more.split(',')).filter(|one| !one.is_empty()).collect();
        let all = all.into_iter().collect::<Vec<_>>().join(",");
        first.annotations.insert(CATALOGS.to_owned(), all);
    }
}

fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
