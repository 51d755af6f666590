//! What the controller is measured against (`cargo xtask bench controller`): a client that makes the same writes and does
//! nothing else, and one that sends admissions at a steady rate.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a tool of benchmarks")]

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use postern_kube::k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use postern_kube::kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use postern_kube::kube::{Api, Client, Error};
use postern_kube::{Cluster, Target};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// As many requests at a time as the controller sends.
const CONCURRENCY: usize = 16;
const ACCOUNTS: [&str; 3] = ["default", "one", "two"];
const SECRETS: [&str; 2] = ["bare-one", "bare-two"];
const LABEL: &str = "postern-bench";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["make", count] => each(count, make).await,
        ["write", count] => each(count, write).await,
        ["undo", count] => each(count, undo).await,
        ["delete"] => delete().await,
        ["admissions", address, ca, rate, seconds] => {
            admissions(address, ca, rate.parse().unwrap(), seconds.parse().unwrap()).await;
        }
        _ => panic!("load make|write|undo COUNT, load delete, load admissions ADDRESS CA RATE SECONDS"),
    }
}

async fn client() -> Client {
    Cluster::connect(&Target::default()).await.unwrap().client
}

/// Does something for each namespace, several at a time.
async fn each<F: Future<Output = Result<(), Error>>>(count: &str, what: impl Fn(Client, String) -> F) {
    let (client, count) = (client().await, count.parse::<usize>().unwrap());
    let futures = (0..count).map(|number| what(client.clone(), format!("bench-{number}")));
    stream::iter(futures).buffer_unordered(CONCURRENCY).try_collect::<()>().await.unwrap();
}

fn exists(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(()),
        other => other,
    }
}

async fn make(client: Client, name: String) -> Result<(), Error> {
    let namespace: Namespace = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {LABEL: "true"}},
    }))
    .unwrap();
    let params = PostParams::default();
    exists(Api::all(client.clone()).create(&params, &namespace).await.map(|_| ()))?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &name);
    for account in ACCOUNTS {
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": account}})).unwrap();
        exists(accounts.create(&params, &account).await.map(|_| ()))?;
    }
    Ok(())
}

async fn write(client: Client, name: String) -> Result<(), Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &name);
    for secret in SECRETS {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": secret}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": e2e::registry::docker_config(("user", "password"))},
        }))
        .unwrap();
        secrets.create(&PostParams::default(), &secret).await?;
    }
    let list = SECRETS.map(|name| json!({"name": name}));
    patch_accounts(client, &name, &json!(list)).await
}

async fn undo(client: Client, name: String) -> Result<(), Error> {
    patch_accounts(client.clone(), &name, &Value::Null).await?;
    let secrets: Api<Secret> = Api::namespaced(client, &name);
    for secret in SECRETS {
        exists(secrets.delete(secret, &DeleteParams::default()).await.map(|_| ()))?;
    }
    Ok(())
}

async fn patch_accounts(client: Client, name: &str, list: &Value) -> Result<(), Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, name);
    let patch = json!({"imagePullSecrets": list});
    for account in ACCOUNTS {
        accounts.patch_metadata(account, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(())
}

async fn delete() {
    let namespaces: Api<Namespace> = Api::all(client().await);
    let params = ListParams::default().labels(LABEL);
    let found = namespaces.list_metadata(&params).await.unwrap();
    let names = found.items.into_iter().filter_map(|one| one.metadata.name);
    let deletions = names.map(|name| {
        let namespaces = namespaces.clone();
        async move { exists(namespaces.delete(&name, &DeleteParams::default()).await.map(|_| ())) }
    });
    stream::iter(deletions).buffer_unordered(CONCURRENCY).try_collect::<()>().await.unwrap();
}

/// Sends admissions at a steady rate, however long an answer takes, and prints the percentiles of the times from when a
/// request was due.
async fn admissions(address: &str, ca: &str, rate: u64, seconds: u64) {
    const CONNECTIONS: u64 = 8;
    let mut roots = RootCertStore::empty();
    CertificateDer::pem_file_iter(ca).unwrap().for_each(|one| roots.add(one.unwrap()).unwrap());
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let body = review();
    let head = format!(
        "POST /mutate/pods HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = Arc::new([head.into_bytes(), body].concat());
    let start = Instant::now() + Duration::from_millis(200);
    let tasks = (0..CONNECTIONS).map(|number| {
        let (connector, request, address) = (connector.clone(), request.clone(), address.to_owned());
        tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let name = ServerName::try_from("postern-controller.postern-bench.svc").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            let mut times = Vec::new();
            for at in (number..rate * seconds).step_by(usize::try_from(CONNECTIONS).unwrap()) {
                let due = start + Duration::from_nanos(at * 1_000_000_000 / rate);
                tokio::time::sleep_until(due.into()).await;
                stream.write_all(&request).await.unwrap();
                Box::pin(answer(&mut stream)).await;
                times.push(due.elapsed());
            }
            times
        })
    });
    let mut times = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        times.extend(task.await.unwrap());
    }
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{}", json!({"p50": at(50), "p99": at(99), "max": at(100), "count": times.len()}));
}

/// Reads one answer, which must permit the Pod with a patch.
async fn answer(stream: &mut TlsStream<TcpStream>) {
    let (mut text, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the connection was closed");
        text.extend_from_slice(&buffer[..count]);
        let Some(end) = text.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if text.len() >= end + 4 + length.parse::<usize>().unwrap() {
            let body = String::from_utf8_lossy(&text[end + 4..]);
            assert!(body.contains("\"allowed\":true") && body.contains("JSONPatch"), "{body}");
            return;
        }
    }
}

/// A Pod of the usual size, as the API server sends it.
fn review() -> Vec<u8> {
    let container = |name: &str| {
        let env: Vec<_> =
            (0..20).map(|number| json!({"name": format!("NAME_{number}"), "value": "value"})).collect();
        json!({
            "name": name, "image": "registry.test/team/app:1", "env": env,
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        })
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-", "labels": {"app": "web"}, "namespace": "bench-0"},
        "spec": {
            "serviceAccountName": "default", "containers": [container("main"), container("sidecar")],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    });
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": kind, "resource": resource, "requestKind": kind,
            "requestResource": resource, "name": "", "namespace": "bench-0", "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"}, "object": pod,
            "oldObject": null, "dryRun": false, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    });
    review.to_string().into_bytes()
}
