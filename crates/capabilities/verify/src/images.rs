//! Which Secret an image would be pulled with, and whether it can be.
//!
//! As the kubelet does it: the Secrets that the Pod names, and else those of its `ServiceAccount`; of their credentials,
//! those whose key covers the image, the longest key first.

use crate::pods::PodOf;
use crate::request::{Answer, Login, Request};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::Secret;
use postern_registry::{DockerConfig, Format, Image};
use postern_report::{Finding, Object, Severity};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a Secret that is named exists and can be read.
pub const SECRET: &str = "pull-secret";
/// Whether a credential has expired.
pub const EXPIRED: &str = "pull-secret-expired";
/// Whether an image can be pulled.
pub const PULL: &str = "image-pull";
/// Whether a pull Secret is used by anything.
pub const UNUSED: &str = "pull-secret-unused";

/// What was read besides Pods, by namespace and name.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The pull Secrets.
    pub secrets: BTreeMap<(String, String), Secret>,
    /// The names in `imagePullSecrets` of each `ServiceAccount`.
    pub accounts: BTreeMap<(String, String), Vec<String>>,
    /// Secrets that are sources of copies.
    pub sources: BTreeSet<(String, String)>,
    /// Whether these are all there are: manifests alone may lack some.
    pub are_complete: bool,
}

/// What is to be asked of registries: each image with each set of credentials once.
pub fn requests(pods: &[PodOf], credentials: &Credentials) -> BTreeSet<Request> {
    pods.iter()
        .flat_map(|pod| uses(pod).into_iter().map(|(_, image)| request(pod, &image, credentials)))
        .collect()
}

/// Judges every image of every Pod, and every pull Secret. `answers` are those of registries; without them nothing is
/// said about pulls. `now` is in seconds since 1970.
pub fn judge(
    pods: &[PodOf],
    credentials: &Credentials,
    answers: &BTreeMap<Request, Answer>,
    now: i64,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for pod in pods {
        let (names, from) = named(pod, credentials);
        for name in &names {
            let key = (pod.namespace.clone(), name.clone());
            let field = if from.is_empty() { "imagePullSecrets" } else { "serviceAccountName" };
            let what = format!("{from}Secret {name:?}");
            findings.extend(judge_secret(pod, field, &what, credentials.secrets.get(&key), credentials));
            used.insert(key);
        }
        for (field, image) in uses(pod) {
            let request = request(pod, &image, credentials);
            if let Some(answer) = answers.get(&request) {
                findings.push(judge_answer(pod, &field, &request, answer, &names, credentials));
            }
        }
    }
    used.extend(
        credentials
            .accounts
            .iter()
            .flat_map(|((namespace, _), names)| names.iter().map(|name| (namespace.clone(), name.clone()))),
    );
    for (key, secret) in &credentials.secrets {
        let object = Object::new("Secret", key.1.clone()).namespace(key.0.clone()).api_version("v1");
        findings.extend(expired(&object, secret, now));
        if credentials.are_complete && !used.contains(key) && !credentials.sources.contains(key) {
            let message = "no Pod and no ServiceAccount of the namespace names it".to_owned();
            findings.push(Finding::new(UNUSED, Severity::Warning, object, message).fix("delete it"));
        }
    }
    findings
}

/// The names of Secrets that a Pod is pulled with, and where they come from, for messages.
fn named(pod: &PodOf, credentials: &Credentials) -> (Vec<String>, String) {
    let own: Vec<String> = pod.spec.image_pull_secrets.iter().flatten().map(|one| one.name.clone()).collect();
    if !own.is_empty() {
        return (own, String::new());
    }
    let account = pod.spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned());
    let names = credentials.accounts.get(&(pod.namespace.clone(), account.clone()));
    (names.cloned().unwrap_or_default(), format!("ServiceAccount {account:?} names "))
}

/// The images of a Pod, each once, with the first field that has it.
fn uses(pod: &PodOf) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let containers =
        pod.spec.containers.iter().enumerate().map(|(at, one)| (format!("containers[{at}]"), one));
    let init = pod.spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(at, one)| (format!("initContainers[{at}]"), one));
    for (field, container) in containers.chain(init) {
        let Some(image) = container.image.clone().filter(|image| !image.is_empty()) else { continue };
        if !found.iter().any(|(_, other)| *other == image) {
            found.push((format!("{field}.image"), image));
        }
    }
    found
}

fn config(secret: &Secret) -> Option<DockerConfig> {
    let format = Format::of_type(secret.type_.as_deref()?)?;
    DockerConfig::parse(format, &secret.data.as_ref()?.get(format.key())?.0).ok()
}

fn request(pod: &PodOf, text: &str, credentials: &Credentials) -> Request {
    let mut logins: Vec<(String, Login)> = Vec::new();
    if let Ok(image) = text.parse::<Image>() {
        for name in named(pod, credentials).0 {
            let secret = credentials.secrets.get(&(pod.namespace.clone(), name));
            let Some(config) = secret.and_then(config) else { continue };
            for key in config.keys_for(&image) {
                if let Some((user, password)) = config.login(key) {
                    logins.push((key.to_owned(), Login { user, password }));
                }
            }
        }
    }
    // Over all Secrets, the longest key first.
    logins.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut unique = Vec::new();
    for (_, login) in logins {
        if !unique.contains(&login) {
            unique.push(login);
        }
    }
    Request { image: text.to_owned(), logins: unique }
}

fn judge_secret(
    pod: &PodOf,
    field: &str,
    what: &str,
    secret: Option<&Secret>,
    credentials: &Credentials,
) -> Option<Finding> {
    let finding = |severity, why: String| pod.finding(SECRET, severity, field, format!("{what} {why}"));
    let Some(secret) = secret else {
        return Some(if credentials.are_complete {
            finding(Severity::Problem, "does not exist, so that images are pulled without it".to_owned())
                .fix("create it, or have it copied by a ClusterPullSecret or a PullSecret")
        } else {
            finding(Severity::Inconclusive, "is not in the manifests".to_owned())
        });
    };
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    let Some(format) = Format::of_type(kind) else {
        let why = format!("has the type {kind}, which the kubelet ignores");
        return Some(finding(Severity::Problem, why).fix("use the type kubernetes.io/dockerconfigjson"));
    };
    let data = secret.data.as_ref().and_then(|data| data.get(format.key())).map_or(&[][..], |data| &data.0);
    match DockerConfig::parse(format, data) {
        Err(error) => Some(finding(Severity::Problem, format!("cannot be read: {error}"))),
        Ok(config) if config.is_empty() => Some(finding(Severity::Warning, "has no credential".to_owned())),
        Ok(_) => None,
    }
}

fn judge_answer(
    pod: &PodOf,
    field: &str,
    request: &Request,
    answer: &Answer,
    names: &[String],
    credentials: &Credentials,
) -> Finding {
    let Request { image, logins } = request;
    let with = match (logins.len(), names.len()) {
        (0, 0) => "without a credential".to_owned(),
        (0, _) => {
            format!("without a credential, as no credential of {} is for this registry", names.join(", "))
        }
        (_, _) => format!("with the credential of {}", names.join(", ")),
    };
    let finding = |severity, text: String| pod.finding(PULL, severity, field, text);
    match answer {
        Answer::Found => finding(Severity::Ok, format!("{image} can be pulled {with}")),
        Answer::Denied(why) => {
            let fix = if credentials.are_complete {
                "name a Secret with a credential for this repository in imagePullSecrets of the Pod or its ServiceAccount"
            } else {
                "check the credential in the cluster: postern verify images -n NAMESPACE"
            };
            finding(Severity::Problem, format!("{image} cannot be pulled {with}: {why}")).fix(fix)
        }
        Answer::NotFound => {
            finding(Severity::Problem, format!("{image} does not exist, or may not be seen {with}"))
                .fix("check the name and the tag")
        }
        Answer::Unreachable(why) => finding(
            Severity::Inconclusive,
            format!("{image}: the registry cannot be reached from here: {why}"),
        ),
        Answer::Invalid(why) => {
            finding(Severity::Problem, format!("{image:?} is not the name of an image: {why}"))
        }
    }
}

fn expired(object: &Object, secret: &Secret, now: i64) -> Vec<Finding> {
    let Some(config) = config(secret) else { return Vec::new() };
    let ends = config.keys().filter_map(|key| Some((key.to_owned(), end(&config.login(key)?.1)?)));
    let over = ends.filter(|(_, end)| *end <= now).map(|(key, end)| {
        let when = jiff::Timestamp::from_second(end).map(|time| time.to_string()).unwrap_or_default();
        Finding::new(
            EXPIRED,
            Severity::Problem,
            object.clone(),
            format!("the credential for {key} expired at {when}"),
        )
        .at_item(key)
        .fix("renew it at its source")
    });
    over.collect()
}

/// When a password ends, if it says so: a JSON Web Token, or a token of Amazon's registry.
fn end(password: &str) -> Option<i64> {
    let json = |bytes: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&bytes).ok();
    if let Some(claims) = password.split('.').nth(1) {
        return json(URL_SAFE_NO_PAD.decode(claims).ok()?)?["exp"].as_i64();
    }
    json(STANDARD.decode(password).ok()?)?["expiration"].as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::json;

    fn secret(auths: &serde_json::Value) -> Secret {
        let text = json!({"auths": auths}).to_string();
        Secret {
            type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
            data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(text.into_bytes()))])),
            ..Secret::default()
        }
    }

    fn pod(names: &[&str]) -> PodOf {
        let names: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        let spec = json!({
            "imagePullSecrets": names, "serviceAccountName": "web",
            "containers": [{"name": "main", "image": "a.io/team/app:1"}],
        });
        PodOf {
            object: Object::new("Pod", "web").namespace("a"),
            place: None,
            namespace: "a".to_owned(),
            spec: serde_json::from_value(spec).unwrap(),
            path: "spec".to_owned(),
            claim_templates: Vec::new(),
        }
    }

    fn credentials(secrets: &[(&str, Secret)], account: &[&str]) -> Credentials {
        let key = |name: &str| ("a".to_owned(), name.to_owned());
        Credentials {
            secrets: secrets.iter().map(|(name, secret)| (key(name), secret.clone())).collect(),
            sources: BTreeSet::new(),
            accounts: [(key("web"), account.iter().map(|name| (*name).to_owned()).collect())].into(),
            are_complete: true,
        }
    }

    fn rules(findings: &[Finding]) -> Vec<(&str, Severity)> {
        findings.iter().map(|one| (one.rule.as_str(), one.severity)).collect()
    }

    #[test]
    fn the_pods_own_secrets_come_before_those_of_its_account() {
        let login = |user: &str| json!({"username": user, "password": "p"});
        let all = credentials(
            &[
                ("own", secret(&json!({"a.io": login("own"), "a.io/team": login("narrow")}))),
                ("account", secret(&json!({"a.io": login("account")}))),
            ],
            &["account"],
        );
        let users = |names: &[&str]| {
            let request = requests(&[pod(names)], &all).pop_first().unwrap();
            request.logins.into_iter().map(|login| login.user).collect::<Vec<_>>()
        };
        assert_eq!(users(&["own"]), ["narrow", "own"]);
        assert_eq!(users(&[]), ["account"]);
        assert_eq!(users(&["none"]), [""; 0]);
    }

    #[test]
    fn secrets_that_do_not_help_are_found() {
        let opaque = Secret { type_: Some("Opaque".to_owned()), ..Secret::default() };
        let broken = Secret { data: None, ..secret(&json!({})) };
        for (named, want) in [
            (None, Severity::Problem),
            (Some(opaque), Severity::Problem),
            (Some(broken), Severity::Problem),
            (Some(secret(&json!({}))), Severity::Warning),
        ] {
            let secrets: Vec<_> = named.into_iter().map(|secret| ("s", secret)).collect();
            let found = judge(&[pod(&["s"])], &credentials(&secrets, &[]), &BTreeMap::new(), 0);
            assert_eq!(rules(&found), [(SECRET, want)]);
        }
        let unused = credentials(&[("s", secret(&json!({"a.io": {}})))], &[]);
        assert_eq!(rules(&judge(&[], &unused, &BTreeMap::new(), 0)), [(UNUSED, Severity::Warning)]);
        let used = credentials(&[("s", secret(&json!({"a.io": {}})))], &["s"]);
        assert_eq!(rules(&judge(&[], &used, &BTreeMap::new(), 0)), []);
    }

    #[test]
    fn expired_credentials_are_found() {
        let jwt = format!("x.{}.y", URL_SAFE_NO_PAD.encode(json!({"exp": 100}).to_string()));
        let ecr = STANDARD.encode(json!({"payload": "x", "expiration": 100}).to_string());
        let auths = json!({
            "jwt.io": {"username": "u", "password": jwt}, "ecr.io": {"username": "AWS", "password": ecr},
            "plain.io": {"username": "u", "password": "p.q.r"},
        });
        let all = credentials(&[("s", secret(&auths))], &["s"]);
        assert_eq!(judge(&[], &all, &BTreeMap::new(), 100).len(), 2);
        assert_eq!(judge(&[], &all, &BTreeMap::new(), 99).len(), 0);
    }

    #[test]
    fn an_answer_says_with_what_it_was_asked() {
        let all =
            credentials(&[("s", secret(&json!({"b.io": {"username": "u", "password": "hunter2"}})))], &[]);
        let request = requests(&[pod(&["s"])], &all).pop_first().unwrap();
        let answers = BTreeMap::from([(request, Answer::Denied("401".to_owned()))]);
        let found = judge(&[pod(&["s"])], &all, &answers, 0);
        assert_eq!(rules(&found), [(PULL, Severity::Problem)]);
        assert!(found[0].message.contains("no credential of s is for this registry"), "{}", found[0].message);
        assert!(!format!("{found:?}").contains("hunter2"));
    }
}
