//! `postern ops rbac`.

use super::Context;
use crate::cli::Format;
use crate::cli::ops::Rbac as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_ops::rules;

pub(super) fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args { pod, cluster_access } = args;
    let pod = context.ops_pod(pod)?;
    if cluster_access.iter().any(|name| name == "all") {
        return Err(Failure::usage(
            "--cluster-access all: no Role can hold that",
            Some(
                "who grants access to all namespaces must be cluster-admin; name namespaces instead"
                    .to_owned(),
            ),
        ));
    }
    for namespace in &cluster_access {
        postern_ops::settings::dns_name("--cluster-access", namespace, 63)?;
    }
    if printer.format() == Format::Json {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": rules::roles(&pod, &cluster_access)});
        printer.result(&list, String::new);
    } else {
        // Text and YAML are the same here: the reasons are comments.
        printer.raw(&rules::manifests(&pod, &cluster_access));
    }
    Ok(0)
}
