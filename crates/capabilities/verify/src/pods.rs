//! Pods and templates of Pods, wherever they were read.

use k8s_openapi::api::core::v1::PodSpec;
use postern_report::{Finding, Object};

/// A Pod, or an object that makes Pods.
#[derive(Debug, Clone, PartialEq)]
pub struct PodOf {
    /// The object, as findings name it.
    pub object: Object,
    /// Its file, line and column, if it was read from one.
    pub place: Option<(String, u32, u32)>,
    /// The namespace; empty if a manifest names none.
    pub namespace: String,
    /// The Pod's spec.
    pub spec: PodSpec,
    /// The path of the spec in the object, such as `spec.template.spec`.
    pub path: String,
    /// The volumes that a `StatefulSet` makes claims for, and their storage classes.
    pub claim_templates: Vec<(String, Option<String>)>,
}

impl PodOf {
    /// A finding about it.
    pub(crate) fn finding(
        &self,
        rule: &str,
        severity: postern_report::Severity,
        field: &str,
        message: String,
    ) -> Finding {
        let finding = Finding::new(rule, severity, self.object.clone(), message);
        let finding = finding.at_field(format!("{}.{field}", self.path));
        match &self.place {
            Some((file, line, column)) => finding.in_file(file.clone(), Some(*line), Some(*column)),
            None => finding,
        }
    }
}
