//! Checks the fields of a kubeconfig before anything is sent: the library's own errors name neither a field nor a
//! file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// Removes fields that are `""`, as kubectl does, and removes line breaks from base64, as Go's decoder does: a YAML
/// block may contain them. `nothing` is the path that the library has made of `""`.
pub(crate) fn normalize(kubeconfig: &mut Kubeconfig, nothing: &str) {
    let absent = |field: &mut Option<String>| drop(field.take_if(|text| text.is_empty() || text == nothing));
    let unwrap = |field: &mut Option<String>| {
        field.iter_mut().for_each(|text| text.retain(|each| !BREAKS.contains(&each)));
        drop(field.take_if(|text| text.is_empty()));
    };
    let absent_secret = |field: &mut Option<SecretString>| {
        drop(field.take_if(|secret| secret.expose_secret().is_empty()));
    };
    absent(&mut kubeconfig.current_context);
    for context in kubeconfig.contexts.iter_mut().filter_map(|named| named.context.as_mut()) {
        absent(&mut context.user);
        absent(&mut context.namespace);
    }
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        absent(&mut cluster.server);
        absent(&mut cluster.proxy_url);
        absent(&mut cluster.tls_server_name);
        unwrap(&mut cluster.certificate_authority_data);
        absent(&mut cluster.certificate_authority);
        // The library would read the file if both are set.
        if cluster.certificate_authority_data.is_some() {
            cluster.certificate_authority = None;
        }
    }
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        absent(&mut user.username);
        absent_secret(&mut user.password);
        absent_secret(&mut user.token);
        absent(&mut user.token_file);
        absent(&mut user.impersonate);
        absent(&mut user.impersonate_uid);
        unwrap(&mut user.client_certificate_data);
        absent(&mut user.client_certificate);
        absent(&mut user.client_key);
        let key = user.client_key_data.as_ref().map_or("", |key| key.expose_secret());
        if key.contains(BREAKS) {
            user.client_key_data = Some(key.replace(BREAKS, "").into());
        }
        absent_secret(&mut user.client_key_data);
        if user.client_certificate_data.is_some() {
            user.client_certificate = None;
        }
        if user.client_key_data.is_some() {
            user.client_key = None;
        }
        if let Some(exec) = &mut user.exec {
            absent(&mut exec.command);
            absent(&mut exec.api_version);
            absent(&mut exec.install_hint);
        }
    }
}

const BREAKS: [char; 2] = ['\n', '\r'];

/// Checks the fields of a cluster; `name` is its name in the kubeconfig.
pub(crate) fn check_cluster(name: &str, cluster: &Cluster) -> Result<(), String> {
    let of = |field: &str| format!("{field} of the cluster {name:?}");
    let server = cluster.server.as_deref().unwrap_or_default();
    let uri = server.parse::<http::Uri>();
    if !uri.is_ok_and(|uri| matches!(uri.scheme_str(), Some("https" | "http"))) {
        let is = if server.is_empty() { "missing".to_owned() } else { format!("{server:?}") };
        return Err(format!("{} is {is}: a URL such as https://host:6443 is needed", of("server")));
    }
    let Cluster { certificate_authority: file, certificate_authority_data: data, .. } = cluster;
    material(of, "certificate-authority", (data.as_deref(), file.as_deref()), certificate)
}

/// Checks the fields of a user; `name` is its name in the kubeconfig.
pub(crate) fn check_user(name: &str, user: &AuthInfo) -> Result<(), String> {
    let of = |field: &str| format!("{field} of the user {name:?}");
    let AuthInfo { client_certificate: crt, client_certificate_data: crt_data, .. } = user;
    let AuthInfo { client_key: key, token, token_file, .. } = user;
    let key_data = user.client_key_data.as_ref().map(secrecy::ExposeSecret::expose_secret);
    material(of, "client-certificate", (crt_data.as_deref(), crt.as_deref()), client_certificate)?;
    material(of, "client-key", (key_data, key.as_deref()), private_key)?;
    let has = |file: &Option<String>, data: Option<&str>| file.is_some() || data.is_some();
    match (has(crt, crt_data.as_deref()), has(key, key_data)) {
        (true, false) => return Err(format!("{} is missing, which its certificate needs", of("client-key"))),
        (false, true) => return Err(format!("{} is missing, which its key needs", of("client-certificate"))),
        _ => {}
    }
    let token = token.as_ref().map_or("", |token| token.expose_secret());
    // The library would panic on it.
    if http::HeaderValue::try_from(token).is_err() {
        return Err(format!(
            "{} holds a line break or another character that no header may have",
            of("token")
        ));
    }
    match token_file.as_deref() {
        // The token is sent while the file is empty.
        Some(path) if token.is_empty() => {
            let held = read(&of("tokenFile"), path)?;
            // Requests would be anonymous.
            if held.trim_ascii().is_empty() {
                return Err(format!("{} is {path}, which is empty", of("tokenFile")));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn read(field: &str, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let read =
        std::fs::read(path).map_err(|error| format!("{field} is {path}, which cannot be read: {error}"));
    read.map(Zeroizing::new)
}

/// Checks the data of a field, in base64 or in a file; the first has precedence. `of` names the field and its object.
fn material(
    of: impl Fn(&str) -> String,
    name: &str,
    (data, file): (Option<&str>, Option<&str>),
    look: impl Fn(&[u8]) -> Option<&'static str>,
) -> Result<(), String> {
    let (field, pem) = match (data.filter(|data| !data.is_empty()), file) {
        (Some(data), _) => {
            let field = of(&format!("{name}-data"));
            let pem = STANDARD.decode(data).map_err(|error| format!("{field} is not base64: {error}"))?;
            (field, Zeroizing::new(pem))
        }
        (None, Some(path)) if !path.is_empty() => {
            let field = of(name);
            let pem = read(&field, path)?;
            (format!("{path} ({field})"), pem)
        }
        _ => return Ok(()),
    };
    look(&pem).map_or(Ok(()), |what| Err(format!("{field} holds no {what} in PEM")))
}

/// The TLS library rejects certificates of X.509 version 1, as `openssl x509 -req` creates them without extensions.
fn client_certificate(pem: &[u8]) -> Option<&'static str> {
    let first = CertificateDer::pem_slice_iter(pem).next().and_then(Result::ok);
    let Some(first) = first else { return certificate(pem) };
    // Certificate and TBSCertificate are sequences. The version comes first; version 1 omits it (RFC 5280 section
    // 4.1).
    let inside = |der: &[u8]| -> Option<usize> {
        let length = *der.get(1)?;
        Some(if length < 0x80 { 2 } else { 2 + usize::from(length & 0x7f) })
    };
    let within = inside(&first).and_then(|at| Some(at + inside(first.get(at..)?)?));
    let versioned = within.and_then(|at| first.get(at)).is_none_or(|tag| *tag == 0xa0);
    (!versioned).then_some(
        "certificate that can be used, but one of X.509 version 1 (make it with extensions: openssl x509 -req -extfile …),",
    )
}

fn certificate(pem: &[u8]) -> Option<&'static str> {
    let found = CertificateDer::pem_slice_iter(pem).next().is_some_and(|found| found.is_ok());
    (!found).then_some("certificate")
}

fn private_key(pem: &[u8]) -> Option<&'static str> {
    PrivateKeyDer::from_pem_slice(pem).is_err().then_some("private key")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";

    fn kubeconfig(cluster: &str, user: &str) -> Kubeconfig {
        let text = format!(
            "clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        );
        Kubeconfig::from_yaml(&text).unwrap()
    }

    fn checked(cluster: &str, user: &str) -> String {
        let mut kubeconfig = kubeconfig(cluster, user);
        normalize(&mut kubeconfig, "");
        let of_cluster = check_cluster("c", kubeconfig.clusters[0].cluster.as_ref().unwrap());
        let looked = of_cluster.and(check_user("u", kubeconfig.auth_infos[0].auth_info.as_ref().unwrap()));
        looked.err().unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_used_is_reported_by_field_and_file() {
        let (base64, server) = (|text: &str| STANDARD.encode(text), "server: 'https://x:6443'");
        let (crt, key, hello) = (base64(CERTIFICATE), base64(KEY), base64("hello"));
        for (cluster, user, said) in [
            (
                "",
                String::new(),
                "server of the cluster \"c\" is missing: a URL such as https://host:6443 is needed",
            ),
            (
                "server: 'host:6443'",
                String::new(),
                "server of the cluster \"c\" is \"host:6443\": a URL such",
            ),
            ("server: 'ftp://x'", String::new(), "server of the cluster \"c\" is \"ftp://x\": a URL such"),
            (
                server,
                "client-certificate-data: '!'".to_owned(),
                "client-certificate-data of the user \"u\" is not base64: ",
            ),
            (
                server,
                format!("client-key-data: {hello}"),
                "client-key-data of the user \"u\" holds no private key in PEM",
            ),
            (
                server,
                format!("client-key-data: {key}"),
                "client-certificate of the user \"u\" is missing, which its key",
            ),
            (
                server,
                format!("client-certificate-data: {crt}"),
                "client-key of the user \"u\" is missing, which its",
            ),
            (
                server,
                "client-key: /no/key".to_owned(),
                "client-key of the user \"u\" is /no/key, which cannot be read: No",
            ),
            (
                server,
                "client-key: /dev/null".to_owned(),
                "/dev/null (client-key of the user \"u\") holds no private key",
            ),
            (
                server,
                "tokenFile: /no/token".to_owned(),
                "tokenFile of the user \"u\" is /no/token, which cannot be",
            ),
        ] {
            let why = checked(cluster, &user);
            assert!(why.starts_with(said), "{why:?} is not {said:?}");
        }
        let of = |der: &[u8]| {
            let pem =
                format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
            checked(server, &format!("client-certificate-data: {}, client-key-data: {key}", base64(&pem)))
        };
        let first = of(&[0x30, 5, 0x30, 3, 2, 1, 5]);
        assert!(
            first.contains("user \"u\" holds no certificate that can be used, but one of X.509 version 1"),
            "{first}"
        );
        let third = of(&[0x30, 0x81, 7, 0x30, 5, 0xa0, 3, 2, 1, 2]);
        assert!(!third.contains("version 1"), "{third}");
        let broken = checked(server, "token: \"a\\nb\"");
        assert!(broken.starts_with("token of the user \"u\" holds a line break"), "{broken}");
        let authority = format!("{server}, certificate-authority-data: {hello}");
        let said = "certificate-authority-data of the cluster \"c\" holds no certificate in PEM";
        assert_eq!(checked(&authority, ""), said);
    }

    #[test]
    fn what_can_be_used_is_left_alone() {
        let (crt, key) = (STANDARD.encode(CERTIFICATE), STANDARD.encode(KEY));
        let server = "server: 'https://x:6443'";
        let both = format!("client-certificate-data: {crt}, client-key-data: {key}");
        assert_eq!(checked(server, &both), "");
        let empty = "tokenFile: \"\", client-certificate-data: \"\", client-key: \"\", token: \"\"";
        assert_eq!(
            checked("server: 'https://x:6443', tls-server-name: \"\", certificate-authority: \"\"", empty),
            ""
        );
        // As in a YAML block.
        let (head, tail) = crt.split_at(20);
        let wrapped = format!("{server}, certificate-authority-data: \"{head}\\n{tail}\\n\"");
        assert_eq!(
            checked(
                &wrapped,
                &format!("client-certificate-data: \"{head}\\r\\n{tail}\", client-key-data: \"{key}\\n\"")
            ),
            ""
        );
    }
}
