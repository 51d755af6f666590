//! IBM Cloud settings of a cluster.

use schemars::JsonSchema;
use serde::Deserialize;

/// The keys below `ibm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ibm {
    /// The registered cluster: its CRN or its id.
    pub cluster: Option<String>,
    /// The region that `ibmcloud` targets, such as `eu-de`.
    pub region: Option<String>,
    /// IAM's address, for a private endpoint or another cloud.
    pub iam_endpoint: Option<String>,
    /// The address of the Kubernetes Service's API.
    pub containers_endpoint: Option<String>,
    /// The `-a` argument of `ibmcloud login` in the ops pod.
    pub api_endpoint: Option<String>,
}

impl Ibm {
    /// Returns the key and the fix of an invalid value. Addresses are checked where they are used.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        let Self { cluster, region, iam_endpoint: _, containers_endpoint: _, api_endpoint } = self;
        let plain = |text: &String, more: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
        };
        if let Some(cluster) = cluster {
            let parts = cluster.split(':').count();
            let fine = match cluster.starts_with("crn:") {
                true => plain(cluster, ":/-_.") && parts == 10,
                false => plain(cluster, "-_."),
            };
            if !fine {
                let why = format!(
                    "{cluster:?} is neither a CRN (crn:v1:…, as `ibmcloud ks cluster get` shows it) nor an id"
                );
                return Err(("ibm.cluster", why));
            }
        }
        if let Some(region) = region.as_ref().filter(|region| !plain(region, "-")) {
            return Err(("ibm.region", format!("{region:?} is not a region; use one such as eu-de")));
        }
        if let Some(endpoint) = api_endpoint.as_ref().filter(|endpoint| !plain(endpoint, ":/-_.")) {
            return Err((
                "ibm.api_endpoint",
                format!("{endpoint:?} is not an address; use one such as https://cloud.ibm.com"),
            ));
        }
        Ok(())
    }
}
