//! Instructions for a provider to trust one `ServiceAccount` of this cluster: documents, and the provider's own
//! commands. They contain no secrets, and nothing is sent.

mod cloud;
mod server;

pub use cloud::{aws, azure, gcp, ibm};
pub use server::{dex, keycloak};

use crate::issuer::Documents;
use serde::Serialize;
use serde_json::Value;

/// A document for the provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// The file from which the commands read it.
    pub file: String,
    /// Its content.
    pub content: Value,
}

/// The complete instructions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setup {
    /// The provider.
    pub provider: &'static str,
    /// The tokens' issuer.
    pub issuer: String,
    /// The tokens' subject.
    pub subject: String,
    /// The tokens' audience: the `audience` of the projected volume.
    pub audience: String,
    /// Documents.
    pub documents: Vec<Document>,
    /// The commands, in order.
    pub commands: Vec<String>,
    /// The provider's entry for Postern's configuration.
    pub config: Value,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// The cluster's part.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The cluster's issuer documents.
    pub cluster: &'a Documents,
    /// The `ServiceAccount`'s namespace.
    pub namespace: &'a str,
    /// The `ServiceAccount`.
    pub name: &'a str,
    /// An audience other than the provider's default.
    pub audience: Option<&'a str>,
}

impl Side<'_> {
    fn issuer(&self) -> &str {
        self.cluster.issuer()
    }

    fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// Returns a name that every provider accepts.
    fn label(&self) -> String {
        format!("{}-{}", self.namespace, self.name)
    }

    fn audience<'a>(&'a self, usual: &'a str) -> &'a str {
        self.audience.unwrap_or(usual)
    }

    /// Returns the notes for any provider. `reads_keys`: it reads the issuer's keys by itself.
    fn notes(&self, reads_keys: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if self.name == "default" {
            notes.push(format!(
                "every pod of {} that names no ServiceAccount runs as `default`: all of them would be trusted; make one \
                 for this workload",
                self.namespace
            ));
        }
        notes.extend(self.cluster.unreachable_outside().filter(|_| reads_keys));
        notes
    }
}

/// Quotes a word for a POSIX shell if necessary.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Returns a command; each word is quoted if necessary.
fn command(words: &[&str]) -> String {
    words.iter().map(|text| word(text)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn documents(issuer: &str) -> Documents {
        Documents {
            discovery: json!({"issuer": issuer, "jwks_uri": "https://k/openid/v1/jwks"}),
            keys: json!({"keys": [{"kid": "k1", "kty": "RSA", "alg": "RS256", "n": "n", "e": "AQAB"}]}),
        }
    }

    fn side<'a>(cluster: &'a Documents, name: &'a str) -> Side<'a> {
        Side { cluster, namespace: "jobs", name, audience: None }
    }

    #[test]
    fn aws_pins_subject_and_audience() {
        let cluster = documents("https://oidc.example.com/id/1");
        let setup = aws(&side(&cluster, "runner"), "123456789012", "runner");
        let condition = &setup.documents[0].content["Statement"][0]["Condition"]["StringEquals"];
        assert_eq!(
            *condition,
            json!({
                "oidc.example.com/id/1:sub": "system:serviceaccount:jobs:runner",
                "oidc.example.com/id/1:aud": "sts.amazonaws.com",
            })
        );
        assert!(setup.documents[0].content["Statement"][0].get("NotPrincipal").is_none());
        assert!(
            setup.commands[0]
                .starts_with("aws iam create-open-id-connect-provider --url https://oidc.example.com/id/1")
        );
    }

    #[test]
    fn a_shared_account_and_an_issuer_inside_are_told() {
        let cluster = documents("https://kubernetes.default.svc");
        let notes = azure(&side(&cluster, "default"), "tenant", "client").notes.join("\n");
        assert!(
            notes.contains("runs as `default`") && notes.contains("cannot be reached from outside"),
            "{notes}"
        );
        // Google gets the keys themselves, so nothing need be published.
        let google = gcp(&side(&cluster, "runner"), "42", "pool", "k8s", None);
        assert!(google.commands.iter().any(|command| command.contains("--jwk-json-path=jwks.json")));
        assert!(!google.notes.join("\n").contains("cannot be reached"));
    }

    #[test]
    fn words_of_commands_are_quoted_where_they_have_to_be() {
        assert_eq!(command(&["a", "b c", "d'e", "--x=y"]), "a 'b c' 'd'\\''e' --x=y");
    }

    #[test]
    fn what_is_printed_for_our_configuration_is_a_provider() {
        let cluster = documents("https://oidc.example.com");
        let side = side(&cluster, "runner");
        for setup in [
            aws(&side, "123456789012", "runner"),
            azure(&side, "tenant", "client"),
            gcp(&side, "42", "pool", "k8s", Some("sa@p.iam.gserviceaccount.com")),
            ibm(&side, "crn:v1:x", true, "jobs-runner"),
            keycloak(&side, "https://auth.example.com/realms/prod", "runner"),
            dex(&side, "https://dex.example.com", "kubernetes", "runner"),
        ] {
            let text = serde_json::to_string(&json!({"providers": {"x": setup.config}})).unwrap();
            let path = std::path::Path::new("c.yaml");
            postern_config::Config::parse(text.as_bytes(), path)
                .unwrap_or_else(|error| panic!("{}: {error}", setup.provider));
        }
    }
}
