//! IBM Cloud: an IAM trusted profile, linked to the `ServiceAccount` as a compute resource.
//!
//! Protocol: IAM Identity Services API (`/identity/token`, `/v1/profiles`, `/v1/profiles/{id}/links`) and the
//! Kubernetes Service API (`/global/v2/getCluster`), as in IBM Cloud's API documentation.

mod api;

use crate::{CallError, Grant, PodIdentity, Provider, Subject, TrustError};
use api::{Api, Token};
use postern_net::error::WebError;
use postern_secret::Secret;
use postern_wire::login;

/// The annotation of a `ServiceAccount` with the profile's ID.
pub const ANNOTATION: &str = "iam.cloud.ibm.com/trusted-profile";

/// The API key's name.
pub const CREDENTIAL: &str = login::IBM_KEY;

/// The permission for managing profiles.
const PERMISSION: &str = "iam-identity";

/// IAM's address.
pub const IAM: &str = "https://iam.cloud.ibm.com";
/// The address of the Kubernetes Service's API.
pub const CONTAINERS: &str = "https://containers.cloud.ibm.com";
/// The directory where the pod's token is mounted.
const DIRECTORY: &str = "/var/run/secrets/tokens";
const FILE: &str = "token";

/// The settings for IBM Cloud.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The name that distinguishes this cluster's profile from others in the account.
    pub workspace: Option<String>,
    /// The cluster's CRN or ID.
    pub cluster: Option<String>,
    /// The target region.
    pub region: Option<String>,
    /// Replaces [`IAM`].
    pub iam_endpoint: Option<String>,
    /// Replaces [`CONTAINERS`].
    pub containers_endpoint: Option<String>,
    /// Replaces [`login::IBM_DEFAULT_ENDPOINT`].
    pub api_endpoint: Option<String>,
}

/// IBM Cloud, with an API key.
#[derive(Debug)]
pub struct Ibm {
    api: Api,
    settings: Settings,
}

/// The result of looking up the cluster and checking the permission.
#[derive(Debug)]
pub struct Observed {
    token: Token,
    cluster: api::Cluster,
    existing: Option<String>,
}

impl Ibm {
    /// Returns the provider for these settings and this API key. Sends nothing.
    pub fn new(settings: Settings, key: Secret) -> Result<Self, WebError> {
        let iam = settings.iam_endpoint.as_deref().unwrap_or(IAM);
        let containers = settings.containers_endpoint.as_deref().unwrap_or(CONTAINERS);
        Ok(Self { api: Api::new(iam, containers, key)?, settings })
    }

    /// Returns the profile's name, derived from the workspace's.
    fn profile_name(&self) -> Result<String, TrustError> {
        match self.settings.workspace.as_deref() {
            Some(workspace) => Ok(format!("postern-ops-{workspace}")),
            None => Err(TrustError::NotRegistered("the config names no `workspace`".to_owned())),
        }
    }

    async fn token(&self) -> Result<Token, TrustError> {
        let failed =
            |source| TrustError::Call { attempt: "getting an IAM token for the API key".to_owned(), source };
        self.api.token().await.map_err(failed)
    }

    async fn profile(&self, token: &Token, name: &str) -> Result<Option<String>, TrustError> {
        let failed = |source| of_iam(format!("looking for the trusted profile {name}"), source);
        self.api.profile(token, name).await.map_err(failed)
    }
}

/// Classifies a refusal of IAM: 403, or 401 that names the service, means the missing permission.
fn of_iam(attempt: String, source: CallError) -> TrustError {
    let missing = match source.status() {
        Some(403) => true,
        Some(401) => source.names(PERMISSION),
        _ => false,
    };
    match missing {
        true => TrustError::Permission { permission: PERMISSION, source },
        false => TrustError::Call { attempt, source },
    }
}

impl Provider for Ibm {
    type Observed = Observed;

    fn name(&self) -> &'static str {
        "IBM Cloud"
    }

    fn credential(&self) -> &'static str {
        CREDENTIAL
    }

    fn grant_noun(&self) -> &'static str {
        "trusted profile"
    }

    async fn observe(&self) -> Result<Observed, TrustError> {
        let name = self.profile_name()?;
        let Some(registered) = self.settings.cluster.as_deref() else {
            return Err(TrustError::NotRegistered("the config has no `ibm.cluster`".to_owned()));
        };
        let failed = |source| TrustError::LookUp { cluster: registered.to_owned(), source };
        let token = self.api.token().await.map_err(failed)?;
        let cluster = self.api.cluster(&token, registered).await.map_err(failed)?;
        let existing = match self.profile(&token, &name).await {
            // The token was rejected, for another reason than the missing permission.
            Err(TrustError::Call { attempt: _, source }) => return Err(failed(source)),
            other => other?,
        };
        Ok(Observed { token, cluster, existing })
    }

    fn existing(observed: &Observed) -> Option<&str> {
        observed.existing.as_deref()
    }

    fn grant_name(&self) -> String {
        self.profile_name().unwrap_or_default()
    }

    async fn grant(&self, observed: &Observed, subject: Subject<'_>) -> Result<Grant, TrustError> {
        let Observed { token, cluster, existing } = observed;
        let name = self.profile_name()?;
        let (id, created) = match existing {
            Some(id) => (id.clone(), false),
            None => {
                let failed = |source| of_iam(format!("creating the trusted profile {name}"), source);
                match self.api.create_profile(token, &name).await {
                    Ok(id) => (id, true),
                    // Another client created it at the same time.
                    Err(error) if error.status() == Some(409) => match self.profile(token, &name).await? {
                        Some(id) => (id, false),
                        None => return Err(failed(error)),
                    },
                    Err(error) => return Err(failed(error)),
                }
            }
        };
        match self.api.link(token, &id, cluster, subject).await {
            Ok(()) => Ok(Grant { id, name, created }),
            Err(error) if error.status() == Some(409) => Ok(Grant { id, name, created }),
            Err(error) => {
                if created {
                    // It cannot be used yet. If deleting fails too, the next run finds it by its name.
                    let _ = self.api.delete_profile(token, &id).await;
                }
                let Subject { namespace, name: account } = subject;
                Err(of_iam(
                    format!("linking the trusted profile {name} to ServiceAccount {namespace}/{account}"),
                    error,
                ))
            }
        }
    }

    async fn revoke(&self, id: &str) -> Result<bool, TrustError> {
        let token = self.token().await?;
        match self.api.delete_profile(&token, id).await {
            Ok(()) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(of_iam(format!("deleting the trusted profile {id}"), error)),
        }
    }

    async fn find(&self) -> Result<Option<Grant>, TrustError> {
        let name = self.profile_name()?;
        let token = self.token().await?;
        Ok(self.profile(&token, &name).await?.map(|id| Grant { id, name, created: false }))
    }

    fn pod(&self, id: &str) -> PodIdentity {
        let Settings {
            workspace: _,
            cluster: _,
            region,
            iam_endpoint: _,
            containers_endpoint: _,
            api_endpoint,
        } = &self.settings;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        PodIdentity {
            annotations: vec![pair(ANNOTATION, id)],
            env: vec![
                // The same name that IBM's SDKs use.
                pair(login::IBM_PROFILE, id),
                pair(login::IBM_REGION, region.as_deref().unwrap_or(login::IBM_DEFAULT_REGION)),
                pair(login::PROVIDER, login::IBM),
                pair(login::ENDPOINT, api_endpoint.as_deref().unwrap_or(login::IBM_DEFAULT_ENDPOINT)),
                pair(login::TOKEN, &format!("{DIRECTORY}/{FILE}")),
            ],
            audience: "iam".to_owned(),
            expiration_seconds: 3_600,
            directory: DIRECTORY.to_owned(),
            file: FILE.to_owned(),
        }
    }

    fn by_hand(id: &str) -> String {
        format!("ibmcloud iam trusted-profile-delete {id}")
    }

    fn reminder(&self, grant: &Grant) -> String {
        format!(
            "no policy is attached to {name} yet, so it allows nothing; attach one, for example: ibmcloud iam \
             trusted-profile-policy-create {name} --roles Viewer --service-name containers-kubernetes",
            name = grant.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str, message: &str) -> CallError {
        CallError::Refused { status, code: Some(code.to_owned()), message: message.to_owned() }
    }

    #[test]
    fn the_missing_permission_is_told_from_a_bad_token() {
        let is_permission = |error| {
            matches!(of_iam("x".to_owned(), error), TrustError::Permission { permission: PERMISSION, .. })
        };
        assert!(is_permission(refused(403, "insufficient_permissions", "no")));
        assert!(is_permission(refused(401, "unauthorized", "missing action iam-identity.profile.create")));
        assert!(!is_permission(refused(401, "token_expired", "Token is expired")));
        assert!(!is_permission(refused(500, "", "iam-identity is down")));
    }

    #[tokio::test]
    async fn nothing_that_a_pod_gets_is_secret() {
        let key = Secret::new("IBMCLOUD_API_KEY", "a-key-of-some-length").unwrap();
        let ibm = Ibm::new(Settings::default(), key).unwrap();
        let text = format!("{:?} {ibm:?}", ibm.pod("Profile-1"));
        assert!(text.contains("Profile-1") && !text.contains("a-key-of-some-length"), "{text}");
    }
}
