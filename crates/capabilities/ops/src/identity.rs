//! The ops pod's identity towards a provider: a federated one, or only a static key.

use crate::ops_pod::OpsPod;
use crate::reporter::Reporter;
use postern_identity::{Grant, PodIdentity, Provider, Subject, TrustError};
use serde::Serialize;

/// The modes of `--trusted-profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A federated identity if possible, otherwise the static key.
    Auto,
    /// A federated identity, or an error.
    On,
    /// The static key.
    Off,
}

/// The trust of a provider in the ops pod's `ServiceAccount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The provider.
    pub provider: &'static str,
    /// The provider's term for the grant.
    pub noun: &'static str,
    /// The grant's ID; `made-by-install` in a dry run that would create it.
    pub id: String,
    /// The grant's display name.
    pub name: String,
    /// Whether this install created it.
    pub created: bool,
    /// The credential that it replaces.
    #[serde(skip)]
    pub replaces: &'static str,
    /// The pod's settings for it.
    #[serde(skip)]
    pub pod: PodIdentity,
}

/// The placeholder for the ID of a grant that does not exist yet.
const UNKNOWN: &str = "made-by-install";

/// Obtains a provider's trust as `mode` requires; `None` for the static key. Reports the result in one line, before
/// anything in the cluster is changed.
pub async fn obtain<P: Provider>(
    mode: Mode,
    pod: &OpsPod,
    provider: &P,
    dry_run: bool,
    reporter: &mut impl Reporter,
) -> Result<Option<Identity>, TrustError> {
    if mode == Mode::Off {
        return Ok(None);
    }
    reporter.progress(&format!("requesting a {1} from {0}", provider.name(), provider.grant_noun()));
    let granted = match provider.observe().await {
        Ok(observed) if dry_run => Ok(Grant {
            id: P::existing(&observed).unwrap_or(UNKNOWN).to_owned(),
            name: provider.grant_name(),
            created: P::existing(&observed).is_none(),
        }),
        Ok(observed) => {
            let subject = Subject { namespace: pod.namespace(), name: pod.name() };
            provider.grant(&observed, subject).await
        }
        Err(error) => Err(error),
    };
    let grant = match granted {
        Ok(grant) => grant,
        Err(error) => {
            let Some(why) = fallback(&error).filter(|_| mode == Mode::Auto) else { return Err(error) };
            reporter.warn(&format!("{why}; using the static key (--trusted-profile=off silences this)"));
            return Ok(None);
        }
    };
    let pod = provider.pod(&grant.id);
    let (noun, reminder) = (provider.grant_noun(), provider.reminder(&grant));
    let Grant { id, name, created } = grant;
    let done = match (created, dry_run) {
        (true, true) => "would provision",
        (true, false) => "provisioned",
        (false, _) => "unchanged",
    };
    let suffix = if id == UNKNOWN { String::new() } else { format!(" ({id})") };
    reporter.receipt(&format!("✓ {done} {} {noun} {name}{suffix}", provider.name()));
    if created {
        reporter.receipt(&format!("  {reminder}"));
    }
    let (provider, replaces) = (provider.name(), provider.credential());
    let identity = Identity { provider, noun, id, name, created, replaces, pod };
    Ok(Some(identity))
}

/// Returns why the static key is used, for causes that the user cannot remove.
fn fallback(error: &TrustError) -> Option<String> {
    match error {
        TrustError::NotRegistered(why) => {
            Some(format!("trusted-profile mode 'auto' needs a registered cluster ({why})"))
        }
        TrustError::LookUp { cluster, source } => {
            Some(format!("trusted-profile mode 'auto' could not look up the cluster {cluster} ({source})"))
        }
        TrustError::Permission { permission, source } => {
            Some(format!("the IAM permission '{permission}' is missing ({source})"))
        }
        TrustError::Call { .. } => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use postern_identity::CallError;

    pub(crate) fn identity(id: &str) -> Identity {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Identity {
            provider: "A Cloud",
            noun: "trusted profile",
            id: id.to_owned(),
            name: "postern-ops-test".to_owned(),
            created: false,
            replaces: "A_KEY",
            pod: PodIdentity {
                annotations: vec![pair(postern_identity::ANNOTATIONS[0], id)],
                env: vec![pair("PROFILE", id)],
                audience: "a-cloud".to_owned(),
                expiration_seconds: 3_600,
                directory: "/var/run/secrets/tokens".to_owned(),
                file: "token".to_owned(),
            },
        }
    }

    #[derive(Default)]
    struct Reported(Vec<String>);

    impl Reporter for Reported {
        fn changed(
            &mut self,
            _: postern_kube::apply::Change,
            _: &postern_kube::apply::ObjectRef,
            _: &[String],
        ) {
        }
        fn progress(&mut self, _: &str) {}
        fn receipt(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
        fn warn(&mut self, text: &str) {
            self.0.push(format!("warning: {text}"));
        }
    }

    type Observation = fn() -> Result<Option<String>, TrustError>;

    /// A provider whose `observe` returns a given result.
    struct Cloud(Observation);

    impl Provider for Cloud {
        type Observed = Option<String>;
        fn name(&self) -> &'static str {
            "A Cloud"
        }
        fn credential(&self) -> &'static str {
            "A_KEY"
        }
        fn grant_noun(&self) -> &'static str {
            "trusted profile"
        }
        async fn observe(&self) -> Result<Option<String>, TrustError> {
            (self.0)()
        }
        fn existing(observed: &Option<String>) -> Option<&str> {
            observed.as_deref()
        }
        fn grant_name(&self) -> String {
            "postern-ops-test".to_owned()
        }
        async fn grant(&self, observed: &Option<String>, _: Subject<'_>) -> Result<Grant, TrustError> {
            let id = observed.clone().unwrap_or_else(|| "Profile-1".to_owned());
            Ok(Grant { id, name: self.grant_name(), created: observed.is_none() })
        }
        async fn revoke(&self, _: &str) -> Result<bool, TrustError> {
            Ok(true)
        }
        async fn find(&self) -> Result<Option<Grant>, TrustError> {
            Ok(None)
        }
        fn pod(&self, id: &str) -> PodIdentity {
            identity(id).pod
        }
        fn by_hand(_: &str) -> String {
            String::new()
        }
        fn reminder(&self, _: &Grant) -> String {
            "no policy yet".to_owned()
        }
    }

    async fn reported(mode: Mode, dry_run: bool, cloud: Observation) -> (bool, Vec<String>) {
        let mut reported = Reported::default();
        let obtained = obtain(mode, &OpsPod::default(), &Cloud(cloud), dry_run, &mut reported).await;
        (obtained.is_ok_and(|identity| identity.is_some()), reported.0)
    }

    #[tokio::test]
    async fn a_grant_is_one_line_and_a_new_one_is_followed_by_what_it_lacks() {
        let (granted, lines) = reported(Mode::Auto, false, || Ok(None)).await;
        assert!(granted);
        let receipt = "✓ provisioned A Cloud trusted profile postern-ops-test (Profile-1)";
        assert_eq!(lines, [receipt, "  no policy yet"]);
        let (_, lines) = reported(Mode::On, false, || Ok(Some("Profile-7".to_owned()))).await;
        assert_eq!(lines, ["✓ unchanged A Cloud trusted profile postern-ops-test (Profile-7)"]);
        let (_, lines) = reported(Mode::Auto, true, || Ok(None)).await;
        assert_eq!(lines[0], "✓ would provision A Cloud trusted profile postern-ops-test");
    }

    #[tokio::test]
    async fn each_cause_is_one_warning_by_auto_and_the_end_by_on() {
        let causes: [(Observation, &str); 3] = [
            (
                || Err(TrustError::NotRegistered("the config has no `ibm.cluster`".to_owned())),
                "needs a registered cluster",
            ),
            (
                || Err(TrustError::LookUp { cluster: "abc".to_owned(), source: no() }),
                "could not look up the cluster abc",
            ),
            (
                || Err(TrustError::Permission { permission: "iam-identity", source: no() }),
                "'iam-identity' is missing",
            ),
        ];
        for (cause, words) in causes {
            let (granted, lines) = reported(Mode::Auto, false, cause).await;
            assert!(
                !granted && lines.len() == 1 && lines[0].starts_with("warning: ") && lines[0].contains(words),
                "{lines:?}"
            );
            assert_eq!(reported(Mode::On, false, cause).await, (false, Vec::new()));
            assert_eq!(reported(Mode::Off, false, cause).await, (false, Vec::new()));
        }
        // Any other error is not hidden by the fallback to a key.
        let other = || Err(TrustError::Call { attempt: "making it".to_owned(), source: no() });
        assert_eq!(reported(Mode::Auto, false, other).await, (false, Vec::new()));
        assert!(
            obtain(Mode::Auto, &OpsPod::default(), &Cloud(other), false, &mut Reported::default())
                .await
                .is_err()
        );
    }

    fn no() -> CallError {
        CallError::Refused { status: 403, code: None, message: "no".to_owned() }
    }
}
