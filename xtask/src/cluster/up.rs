//! Bringing a cluster up, or back to health.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::layout::{API_PORT, API_SERVICE, Cluster};
use super::process::ensure;
use super::state::{self, State};
use super::{DEFAULT_ISSUER, UpArgs, components, configs, down, health, host, load, process};
use crate::images::{self, Tarball};
use crate::say::Progress;
use crate::testbed::{self, Programs};
use crate::{debian, paths, sh};

const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// A slow machine that also compiles something is still a machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn up(cluster: &Cluster, options: &UpArgs, progress: Progress) -> Result<()> {
    if let Some(issuer) = &options.issuer {
        check_issuer(issuer)?;
    }
    debian::install_tools(progress)?;
    let mut programs = testbed::programs(progress)?;
    programs.id = format!("{} {}", programs.id, made_of());
    let tarballs = if options.no_images {
        vec![images::sandbox(&programs, progress)?]
    } else {
        images::for_cluster(&programs, progress)?
    };
    let before = State::load(cluster);
    let wanted = options.issuer.clone().or_else(|| before.as_ref().map(|s| s.issuer.clone()));
    let issuer = wanted.unwrap_or_else(|| DEFAULT_ISSUER.to_owned());
    if let Some(mut state) = before {
        match whole(cluster, &state, &programs) {
            Ok(()) => match mend(cluster, &mut state, &issuer, &tarballs, progress) {
                Ok(()) => return Ok(()),
                Err(error) => progress.step(format!("could not be repaired, starting anew: {error:#}")),
            },
            Err(reason) => progress.step(format!("starting anew: {reason:#}")),
        }
    }
    let anything = cluster.run.exists() || cluster.nodes.iter().any(host::netns_exists);
    if anything || cluster.kubeconfig().exists() {
        down::down(cluster, progress)?;
        cluster.remember_nodes(cluster.nodes.len())?;
    }
    let mut state = State { boot: state::boot(), port: free_port(cluster)?, issuer, ..State::default() };
    state.programs.clone_from(&programs.id);
    host::remember(cluster, &mut state);
    state.save(cluster)?;
    prepare(cluster, &state, &programs)?;
    progress.step("keys, configuration, network");
    start(cluster, &mut state, &tarballs, progress)?;
    state.complete = true;
    state.save(cluster)?;
    let version = testbed::kubernetes_version()?;
    progress.step(format!("Kubernetes {version} is up: KUBECONFIG={}", cluster.kubeconfig().display()));
    Ok(())
}

/// Changes with how daemons are configured, as the programs' own id does with what they are.
fn made_of() -> String {
    let sources = [include_str!("components.rs"), include_str!("configs.rs"), include_str!("layout.rs")];
    paths::digest(sources.concat().as_bytes())[..16].to_owned()
}

/// Whether there is enough of a cluster to repair, or why not.
fn whole(cluster: &Cluster, state: &State, programs: &Programs) -> Result<()> {
    if !state.of_this_boot() {
        bail!("the machine was restarted");
    }
    if !state.complete {
        bail!("an earlier bring-up was cut short");
    }
    if state.programs != programs.id {
        bail!("the testbed's sources changed");
    }
    for file in
        [cluster.kubeconfig(), cluster.etc("etcd.yaml"), cluster.bin("kube-apiserver"), cluster.disk()]
    {
        if !file.exists() {
            bail!("{} is gone", file.display());
        }
    }
    if !host::mounts().contains(&cluster.data()) {
        bail!("{} is not mounted", cluster.data().display());
    }
    if let Some(node) = cluster.nodes.iter().find(|n| !host::netns_exists(n)) {
        bail!("the network namespace {} is gone", node.netns);
    }
    Ok(())
}

/// Leaves a healthy cluster alone; otherwise starts again what is missing.
fn mend(
    cluster: &Cluster,
    state: &mut State,
    issuer: &str,
    tarballs: &[Tarball],
    progress: Progress,
) -> Result<()> {
    if state.issuer != issuer {
        progress.step(format!("the issuer becomes {issuer}: restarting the API server"));
        issuer.clone_into(&mut state.issuer);
        process::stop(cluster, "kube-apiserver", Duration::from_secs(1));
        state.save(cluster)?;
    }
    let bad: Vec<String> =
        health::report(cluster, state).into_iter().filter(|c| !c.healthy).map(|c| c.name).collect();
    if bad.is_empty() {
        load::changed(cluster, state, tarballs, progress)?;
        progress.step(format!("healthy: KUBECONFIG={}", cluster.kubeconfig().display()));
        return Ok(());
    }
    progress.step(format!("repairing: {}", bad.join(", ")));
    start(cluster, state, tarballs, progress)?;
    health::wait_pods(cluster, PATIENCE)?;
    progress.step(format!("repaired: KUBECONFIG={}", cluster.kubeconfig().display()));
    Ok(())
}

/// Lays out everything that is written once per cluster.
fn prepare(cluster: &Cluster, state: &State, programs: &Programs) -> Result<()> {
    let bin = cluster.bin("");
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(cluster.dir.join("log"))?;
    fs::set_permissions(&cluster.dir, fs::Permissions::from_mode(0o755))?;
    for name in ["postern-testbed", "testctl", "kubectl"] {
        let (from, to) = (programs.path(name), bin.join(name));
        // A link spares 200 MB, where the cache is on the same disk.
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).with_context(|| to.display().to_string())?;
        }
    }
    for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns"]
        .iter()
        .chain(&["kubelet", "kube-proxy", "local-path"])
    {
        symlink("postern-testbed", bin.join(name))?;
    }
    // Beside the release's own, which is what PATH is to lead to.
    let all_in_one = cluster.dir.join("all-in-one");
    fs::create_dir_all(&all_in_one)?;
    symlink("../bin/postern-testbed", all_in_one.join("kubectl"))?;
    for entry in fs::read_dir(cluster.dir.join("log"))?.flatten() {
        fs::remove_file(entry.path())?; // of the cluster before
    }
    let nodes: Vec<String> = cluster.nodes.iter().map(|n| format!("{}={}", n.name, n.ip)).collect();
    sh::run(
        sh::command(
            cluster.bin("testctl"),
            ["pki", "--server", &format!("https://127.0.0.1:{}", state.port)],
        )
        .args([
            "--inside",
            &format!("https://{}:{API_PORT}", cluster.first().ip),
            "--nodes",
            &nodes.join(","),
        ])
        .args(["--addresses", &format!("{},{API_SERVICE}", cluster.first().ip)])
        .arg(cluster.dir.join("pki")),
    )?;
    configs::write_all(cluster)?;
    host::bind_data(cluster)?;
    for node in &cluster.nodes {
        fs::create_dir_all(&node.run)?;
        fs::create_dir_all(configs::volumes(node))?;
        host::make_netns(node)?;
        host::make_cgroups(node)?;
    }
    for node in cluster.others() {
        host::connect(cluster.first(), node)?;
    }
    fs::copy(cluster.pki("admin.kubeconfig"), cluster.kubeconfig())?;
    fs::set_permissions(cluster.kubeconfig(), fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// Starts what does not run, each once that on which it stands answers.
fn start(cluster: &Cluster, state: &mut State, tarballs: &[Tarball], progress: Progress) -> Result<()> {
    let fresh = !state.complete;
    for node in &cluster.nodes {
        ensure(cluster, &components::containerd(cluster, node))?;
    }
    ensure(cluster, &components::etcd(cluster))?;
    health::wait(cluster, state, &["etcd"], PATIENCE)?;
    ensure(cluster, &components::apiserver(cluster, state))?;
    ensure(cluster, &components::forward(cluster, state))?;
    health::wait(cluster, state, &["kube-apiserver", "forward"], PATIENCE)?;
    progress.step("etcd and the API server answer");
    ensure(cluster, &components::controller_manager(cluster))?;
    ensure(cluster, &components::scheduler(cluster))?;
    for node in &cluster.nodes {
        ensure(cluster, &components::kubelet(cluster, node))?;
    }
    apply(cluster)?;
    ensure(cluster, &components::coredns(cluster))?;
    for node in &cluster.nodes {
        ensure(cluster, &components::proxy(cluster, node))?;
        ensure(cluster, &components::local_path(cluster, node))?;
    }
    if fresh {
        progress.step("all started");
    }
    // Meanwhile the controllers come to themselves, which takes as long.
    for node in &cluster.nodes {
        load::wait_runtime(node)?;
    }
    load::changed(cluster, state, tarballs, progress)?;
    health::wait(cluster, state, &[], PATIENCE)
}

/// The objects every cluster begins with.
fn apply(cluster: &Cluster) -> Result<()> {
    let kubeconfig = cluster.kubeconfig();
    let args = ["apply", "--server-side", "--force-conflicts", "--field-manager=postern-testbed", "-f"];
    let mut command = sh::command(cluster.bin("kubectl"), args);
    command.arg(cluster.etc("objects.yaml")).env_clear().env("KUBECONFIG", kubeconfig).env("HOME", "/root");
    sh::run(&mut command)
}

/// A port of the machine that this checkout tends to get again.
fn free_port(cluster: &Cluster) -> Result<u16> {
    let span = u32::from(PORTS.end - PORTS.start);
    let seed = u32::from_str_radix(&cluster.id, 16).unwrap_or(0) % span;
    (0..span)
        .filter_map(|i| u16::try_from((seed + i) % span).ok())
        .map(|offset| PORTS.start + offset)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port on 127.0.0.1")
}

fn check_issuer(issuer: &str) -> Result<()> {
    if !issuer.starts_with("https://") || issuer.contains(['?', '#', ' ']) {
        bail!("an issuer is an https URL without query or fragment; {issuer:?} is not");
    }
    Ok(())
}
