//! What a finding is about.

use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;

/// What a finding is about. Where in it, is the finding's [`Place`](crate::Place).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Subject {
    /// A Kubernetes object.
    Object(Object),
    /// A file.
    File(File),
    /// Something that is neither, such as an identity provider.
    Named(Named),
}

/// A Kubernetes object, which need not exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The kubeconfig context of its cluster, where more than one cluster is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Its namespace; none for an object of the whole cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its kind, such as `Pod`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its API version, such as `apps/v1`, where it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct File {
    /// Its path, as the user would write it.
    pub path: String,
}

/// Something with a kind and a name that is neither a file nor a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Named {
    /// What kind of thing it is, such as `provider`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Object {
    /// An object of the whole cluster; [`Object::namespace`] puts it into a namespace.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self { context: None, namespace: None, kind: kind.into(), name: name.into(), api_version: None }
    }

    /// Sets the namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets the kubeconfig context.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Sets the API version.
    #[must_use]
    pub fn api_version(mut self, api_version: impl Into<String>) -> Self {
        self.api_version = Some(api_version.into());
        self
    }
}

impl From<Object> for Subject {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl Subject {
    /// A file.
    pub fn file(path: impl Into<String>) -> Self {
        Self::File(File { path: path.into() })
    }

    /// A thing that is neither a file nor a Kubernetes object.
    pub fn named(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Named(Named { kind: kind.into(), name: name.into() })
    }

    /// Its kind: that of the object, `File`, or the one given.
    pub fn kind(&self) -> &str {
        match self {
            Self::Object(object) => &object.kind,
            Self::File(_) => "File",
            Self::Named(named) => &named.kind,
        }
    }

    /// Its name, without namespace; of a file, its path.
    pub fn name(&self) -> &str {
        match self {
            Self::Object(object) => &object.name,
            Self::File(file) => &file.path,
            Self::Named(named) => &named.name,
        }
    }

    /// Its namespace, if it is an object that has one.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Object(object) => object.namespace.as_deref(),
            Self::File(_) | Self::Named(_) => None,
        }
    }

    /// Its kubeconfig context, if it is an object that names one.
    pub fn context(&self) -> Option<&str> {
        match self {
            Self::Object(object) => object.context.as_deref(),
            Self::File(_) | Self::Named(_) => None,
        }
    }

    /// The same as its `Display`, without the context.
    pub(crate) fn without_context(&self) -> String {
        match (self, self.namespace()) {
            (Self::File(file), _) => file.path.clone(),
            (_, Some(namespace)) => format!("{} {namespace}/{}", self.kind(), self.name()),
            (_, None) => format!("{} {}", self.kind(), self.name()),
        }
    }

    /// Context, namespace, kind and name, as far as there are any, joined by slashes.
    pub fn qualified_name(&self) -> String {
        let parts = [self.context(), self.namespace(), Some(self.kind()), Some(self.name())];
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    }
}

/// `Pod NAMESPACE/NAME`, `Node NAME (context CONTEXT)`, `PATH`, `provider NAME`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(_) | Self::Named(_) => f.write_str(&self.without_context()),
            Self::Object(object) => {
                f.write_str(&self.without_context())?;
                match &object.context {
                    Some(context) => write!(f, " (context {context})"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_written_for_people_and_for_programs() {
        let pod = Object::new("Pod", "api").namespace("shop").context("prod").api_version("v1");
        let pod = Subject::from(pod);
        assert_eq!(pod.to_string(), "Pod shop/api (context prod)");
        assert_eq!(pod.qualified_name(), "prod/shop/Pod/api");
        assert_eq!(Subject::from(Object::new("Node", "n1")).to_string(), "Node n1");
        assert_eq!(Subject::file("a/b.yaml").qualified_name(), "File/a/b.yaml");
        assert_eq!(Subject::named("provider", "aws").to_string(), "provider aws");
        let json = serde_json::to_string(&pod).unwrap();
        let expected = r#"{"type":"object","context":"prod","namespace":"shop","kind":"Pod","name":"api","apiVersion":"v1"}"#;
        assert_eq!(json, expected);
        assert_eq!(
            serde_json::to_string(&Subject::named("provider", "aws")).unwrap(),
            r#"{"type":"named","kind":"provider","name":"aws"}"#
        );
    }
}
