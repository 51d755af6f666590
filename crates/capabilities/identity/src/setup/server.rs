//! Self-hosted servers.

use super::{Document, Setup, Side, command};
use serde_json::json;

/// Keycloak from 26.4 on: the cluster as an identity provider of type `kubernetes`, and a client that the
/// `ServiceAccount`'s token authenticates (RFC 7523 section 2.2).
/// <https://www.keycloak.org/docs/latest/server_admin/#_identity_broker_kubernetes>
pub fn keycloak(side: &Side<'_>, realm_url: &str, client: &str) -> Setup {
    let realm_url = realm_url.trim_end_matches('/');
    let realm = realm_url.rsplit('/').next().unwrap_or_default();
    let provider = json!({
        "alias": "kubernetes", "providerId": "kubernetes", "enabled": true, "config": {"issuer": side.issuer()},
    });
    let trusted = json!({
        "clientId": client, "enabled": true, "publicClient": false, "serviceAccountsEnabled": true,
        "standardFlowEnabled": false, "clientAuthenticatorType": "federated-jwt",
        "attributes": {"jwt.credential.issuer": "kubernetes", "jwt.credential.sub": side.subject()},
    });
    // Keycloak requires the realm's issuer as the only audience.
    let audience = side.audience(realm_url);
    let mut notes = side.notes(true);
    notes.push(
        "a projected token that lives for longer than an hour is refused an hour after it was issued"
            .to_owned(),
    );
    Setup {
        provider: "keycloak",
        issuer: side.issuer().to_owned(),
        subject: side.subject(),
        audience: audience.to_owned(),
        documents: vec![
            Document { file: "provider.json".to_owned(), content: provider },
            Document { file: "client.json".to_owned(), content: trusted },
        ],
        commands: vec![
            command(&[
                "kcadm.sh",
                "create",
                "identity-provider/instances",
                "-r",
                realm,
                "-f",
                "provider.json",
            ]),
            command(&["kcadm.sh", "create", "clients", "-r", realm, "-f", "client.json"]),
        ],
        config: json!({
            "type": "oauth2", "issuer": realm_url, "grant": "client_credentials",
            "client_assertion": {"type": "kubernetes_sa", "audience": audience},
        }),
        notes,
    }
}

/// Dex: the cluster as an OIDC connector, whose tokens a client may exchange (RFC 8693).
/// <https://dexidp.io/docs/guides/token-exchange/>
pub fn dex(side: &Side<'_>, issuer_url: &str, connector: &str, client: &str) -> Setup {
    let issuer_url = issuer_url.trim_end_matches('/');
    let entry = json!({
        "oauth2": {"grantTypes": ["urn:ietf:params:oauth:grant-type:token-exchange"]},
        "connectors": [{
            "type": "oidc", "id": connector, "name": "Kubernetes",
            "config": {
                "issuer": side.issuer(), "clientID": "unused", "clientSecret": "unused",
                "redirectURI": format!("{issuer_url}/callback"), "scopes": ["openid"], "userNameKey": "sub",
            },
        }],
        "staticClients": [{"id": client, "name": client, "public": true}],
    });
    let mut notes = side.notes(true);
    notes.push(
        "Dex looks at neither audience nor subject of the token: every ServiceAccount of this cluster can exchange one; \
         what uses Dex's tokens must look at their `sub`"
            .to_owned(),
    );
    let audience = side.audience(issuer_url);
    Setup {
        provider: "dex",
        issuer: side.issuer().to_owned(),
        subject: side.subject(),
        audience: audience.to_owned(),
        documents: vec![Document { file: "dex.json".to_owned(), content: entry }],
        commands: vec![
            "# merge dex.json into Dex's configuration (YAML takes JSON), and start it again".to_owned(),
        ],
        config: json!({
            "type": "oauth2", "issuer": issuer_url, "client_id": client, "grant": "token_exchange",
            "subject_token": {"type": "kubernetes_sa", "audience": audience},
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "scopes": ["openid"], "extra_params": {"connector_id": connector},
        }),
        notes,
    }
}
