//! Cloud providers.

use super::{Document, Setup, Side, command};
use serde_json::{Value, json};

/// AWS: an OIDC provider of the account, and a role that trusts one subject with one audience.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc.html>
pub fn aws(side: &Side<'_>, account: &str, role: &str) -> Setup {
    let audience = side.audience("sts.amazonaws.com");
    let host = side.issuer().trim_start_matches("https://").trim_end_matches('/');
    let mut condition = serde_json::Map::new();
    // Without both conditions, any token of the issuer, or of any audience, would be accepted.
    condition.insert(format!("{host}:sub"), side.subject().into());
    condition.insert(format!("{host}:aud"), audience.into());
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Federated": format!("arn:aws:iam::{account}:oidc-provider/{host}")},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": Value::Object(condition)},
        }],
    });
    let mut notes = side.notes(true);
    if account.parse::<u64>().is_err() {
        notes.push(format!("replace {account} with the account's number (--account)"));
    }
    Setup {
        provider: "aws",
        issuer: side.issuer().to_owned(),
        subject: side.subject(),
        audience: audience.to_owned(),
        documents: vec![Document { file: "trust.json".to_owned(), content: policy }],
        commands: vec![
            command(&[
                "aws",
                "iam",
                "create-open-id-connect-provider",
                "--url",
                side.issuer(),
                "--client-id-list",
                audience,
            ]),
            command(&[
                "aws",
                "iam",
                "create-role",
                "--role-name",
                role,
                "--assume-role-policy-document",
                "file://trust.json",
            ]),
        ],
        config: json!({
            "type": "aws", "region": "us-east-1", "role_arn": format!("arn:aws:iam::{account}:role/{role}"),
        }),
        notes,
    }
}

/// Google Cloud: a pool, a provider in it that accepts one subject, and a service account that the subject may
/// impersonate. <https://cloud.google.com/iam/docs/workload-identity-federation-with-kubernetes>
pub fn gcp(
    side: &Side<'_>,
    project_number: &str,
    pool: &str,
    provider: &str,
    account: Option<&str>,
) -> Setup {
    let full = format!(
        "projects/{project_number}/locations/global/workloadIdentityPools/{pool}/providers/{provider}"
    );
    let usual = format!("https://iam.googleapis.com/{full}");
    let audience = side.audience(&usual).to_owned();
    let inside = side.cluster.unreachable_outside().is_some();
    let (pool_flag, issuer) =
        (format!("--workload-identity-pool={pool}"), format!("--issuer-uri={}", side.issuer()));
    let (allowed, condition) = (
        format!("--allowed-audiences={audience}"),
        format!("--attribute-condition=assertion.sub == '{}'", side.subject()),
    );
    let mut create = vec![
        "gcloud",
        "iam",
        "workload-identity-pools",
        "providers",
        "create-oidc",
        provider,
        "--location=global",
        &pool_flag,
        &issuer,
        &allowed,
        "--attribute-mapping=google.subject=assertion.sub",
        &condition,
    ];
    let mut documents = Vec::new();
    if inside {
        create.push("--jwk-json-path=jwks.json");
        documents.push(Document { file: "jwks.json".to_owned(), content: side.cluster.keys.clone() });
    }
    let mut commands = vec![
        command(&["gcloud", "iam", "workload-identity-pools", "create", pool, "--location=global"]),
        command(&create),
    ];
    let mut config = json!({
        "type": "gcp", "workload_identity_provider": full, "subject_token": {"type": "kubernetes_sa", "audience": audience},
    });
    if let Some(account) = account {
        let member = format!(
            "--member=principal://iam.googleapis.com/projects/{project_number}/locations/global/workloadIdentityPools/{pool}/subject/{}",
            side.subject()
        );
        commands.push(command(&[
            "gcloud",
            "iam",
            "service-accounts",
            "add-iam-policy-binding",
            account,
            "--role=roles/iam.workloadIdentityUser",
            &member,
        ]));
        config["service_account"] = account.into();
    }
    let mut notes = side.notes(!inside);
    if inside {
        notes.push(
            "the keys are given to Google by hand: give them again when the cluster's change".to_owned(),
        );
    }
    Setup {
        provider: "gcp",
        issuer: side.issuer().to_owned(),
        subject: side.subject(),
        audience,
        documents,
        commands,
        config,
        notes,
    }
}

/// Azure: a federated credential of an app registration.
/// <https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust>
pub fn azure(side: &Side<'_>, tenant: &str, client: &str) -> Setup {
    let audience = side.audience("api://AzureADTokenExchange");
    let credential = json!({
        "name": side.label(), "issuer": side.issuer(), "subject": side.subject(), "audiences": [audience],
    });
    Setup {
        provider: "azure",
        issuer: side.issuer().to_owned(),
        subject: side.subject(),
        audience: audience.to_owned(),
        documents: vec![Document { file: "credential.json".to_owned(), content: credential }],
        commands: vec![command(&[
            "az",
            "ad",
            "app",
            "federated-credential",
            "create",
            "--id",
            client,
            "--parameters",
            "@credential.json",
        ])],
        config: json!({"type": "azure", "tenant_id": tenant, "client_id": client}),
        notes: side.notes(true),
    }
}

/// IBM Cloud: a trusted profile, linked to the `ServiceAccount` of a registered cluster.
/// <https://cloud.ibm.com/docs/account?topic=account-trusted-profile-cli>
pub fn ibm(side: &Side<'_>, crn: &str, openshift: bool, profile: &str) -> Setup {
    let kind = if openshift { "ROKS_SA" } else { "IKS_SA" };
    let link = json!({
        "name": side.label(), "cr_type": kind,
        "link": {"crn": crn, "namespace": side.namespace, "name": side.name},
    });
    let label = side.label();
    let mut notes = side.notes(false);
    notes.push("a trusted profile has no permissions until a policy is attached to it".to_owned());
    Setup {
        provider: "ibm",
        issuer: side.issuer().to_owned(),
        subject: side.subject(),
        audience: side.audience("iam").to_owned(),
        documents: vec![Document { file: "link.json".to_owned(), content: link }],
        commands: vec![
            command(&["ibmcloud", "iam", "trusted-profile-create", profile]),
            command(&[
                "ibmcloud",
                "iam",
                "trusted-profile-link-create",
                profile,
                "--name",
                &label,
                "--cr-type",
                kind,
                "--link-crn",
                crn,
                "--link-namespace",
                side.namespace,
                "--link-name",
                side.name,
            ]),
        ],
        config: json!({"type": "ibm", "profile": profile}),
        notes,
    }
}
