//! `postern ops audit`.

use super::{Context, reports};
use crate::cli::ops::Audit as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_kube::k8s_openapi::api::core::v1::Namespace;
use postern_kube::kube::api::ListParams;
use postern_kube::kube::{Api, ResourceExt};
use postern_kube::{Cluster, Target};
use postern_ops::audit::{self, Audit};
use postern_ops::{Access, OpsPod};

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args { pod, within: namespace, reporting } = args;
    let pod = context.ops_pod(pod)?;
    let cluster = context.cluster().await?;
    let Some(declared) = audit::declared(&cluster, &pod).await? else {
        return Err(Failure {
            hint: Some("run `postern ops install` first".to_owned()),
            ..Failure::denied(&std::io::Error::other("the ops pod's ServiceAccount is not there"), None)
        });
    };
    exist(&cluster, &namespace).await?;
    let (namespaces, note) =
        if namespace.is_empty() { all(&cluster, &pod, &declared).await } else { (namespace, None) };
    let account = Target { impersonate: Some((pod.user(), pod.groups().into())), ..context.target() };
    let everyone = (audit::BASELINE_USER.to_owned(), vec!["system:authenticated".to_owned()]);
    let baseline = Target { impersonate: Some(everyone), ..context.target() };
    let (account, baseline) = (Cluster::connect(&account).await?, Cluster::connect(&baseline).await?);
    let found = audit::audit(&pod, &account, &baseline, &namespaces, &declared).await;
    let mut found = found.map_err(|error| {
        let forbidden = error.is_forbidden();
        let failure = Failure::from(error);
        let hint = "the audit asks in the ServiceAccount's name: you need the verb `impersonate` on users, groups and \
                    serviceaccounts; `postern ops rbac` prints the Role and ClusterRole postern-auditor that hold it";
        if forbidden { Failure { hint: Some(hint.to_owned()), refusal: None, ..failure } } else { failure }
    })?;
    found.notes.extend(note);
    let Audit { findings, notes } = found;
    let mut report = reports::new(format!("Permissions of {}", pod.user()));
    report.rule(
        audit::EXCESS,
        "The ServiceAccount may do nothing beyond what was declared at install.",
        None,
    );
    report.rule(audit::MISSING, "The ServiceAccount may do everything that was declared at install.", None);
    (report.findings, report.notes) = (findings, notes);
    report.sort();
    reports::print(&report, &reporting, printer)
}

/// Refuses namespaces that do not exist, as they would have no findings. Namespaces that may not be read are accepted.
async fn exist(cluster: &Cluster, namespaces: &[String]) -> Result<(), Failure> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    for name in namespaces {
        if let Ok(None) = api.get_opt(name).await {
            let why = std::io::Error::other(format!("there is no namespace {name} to audit"));
            return Err(Failure::denied(&why, Some("check the spelling of --within".to_owned())));
        }
    }
    Ok(())
}

/// All namespaces if they may be listed; else the ops pod's own and the declared ones.
async fn all(cluster: &Cluster, pod: &OpsPod, declared: &str) -> (Vec<String>, Option<String>) {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match api.list(&ListParams::default()).await {
        Ok(found) => (found.items.iter().map(ResourceExt::name_any).collect(), None),
        Err(_) => {
            let (mut known, _) = Access::parse(declared);
            known.insert(pod.namespace().to_owned());
            known.extend(pod.own_namespaces().iter().map(|name| (*name).to_owned()));
            let note = "you may not list namespaces: only the known ones were looked at";
            (known.into_iter().collect(), Some(note.to_owned()))
        }
    }
}
