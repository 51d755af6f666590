//! The step `chart`: Helm itself reads the chart, and what it renders is what the program installs.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{paths, say, sh};

/// Helm, as a Go module.
const HELM: &str = "helm.sh/helm/v4/cmd/helm@v4.3.0";
const CHART: &str = "charts/postern-controller";
const NAMESPACE: &str = "somewhere";

pub(crate) fn run() -> Result<()> {
    let helm = helm()?;
    let lint = sh::output(&mut command(&helm, &["lint", "--strict", CHART]))?;
    say::note(lint.trim_end());
    for (values, parts) in [
        (&[][..], "pull-secrets,volumes"),
        (&["restartStuck=true"], "pull-secrets,restart-stuck,volumes"),
        (&["volumes=false"], "pull-secrets"),
        (&["pullSecrets=false", "replicas=1"], "volumes"),
    ] {
        let mut render = command(&helm, &["template", "postern-controller", CHART, "--namespace", NAMESPACE]);
        values.iter().for_each(|value| {
            render.args(["--set", value]);
        });
        let rendered = objects(&sh::output(&mut render)?)?;
        let replicas = if values.contains(&"replicas=1") { "1" } else { "3" };
        compare(rendered, &installed(parts, replicas)?).with_context(|| format!("with {values:?}"))?;
    }
    for wrong in ["restartStuck=true,pullSecrets=false", "pullSecrets=false,volumes=false", "volume=true"] {
        let mut render = command(&helm, &["template", "x", CHART, "--set", wrong]);
        ensure!(!render.output()?.status.success(), "helm template accepts {wrong}");
    }
    say::note("what helm template renders is what `postern controller install` applies");
    Ok(())
}

fn command(helm: &PathBuf, args: &[&str]) -> Command {
    let mut command = Command::new(helm);
    command.args(args).current_dir(paths::root());
    // Helm looks for plug-ins and repositories of the user.
    command.env("HOME", paths::target()).env_remove("KUBECONFIG");
    command
}

fn objects(yaml: &str) -> Result<Vec<Value>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(yaml).context("what helm renders is no YAML")?;
    // Numbers of YAML and of JSON have types of their own.
    let objects = objects.into_iter().filter(Value::is_object);
    objects.map(|object| Ok(serde_json::from_str(&object.to_string())?)).collect()
}

fn installed(parts: &str, replicas: &str) -> Result<Vec<Value>> {
    let mut program = sh::command(crate::tools::cargo(), ["run", "--quiet", "-p", "postern", "--"]);
    program.args(["controller", "manifests", "-o", "json", "--namespace", NAMESPACE]);
    program.args(["--parts", parts, "--replicas", replicas]).current_dir(paths::root());
    let list: Value = serde_json::from_str(&sh::output(&mut program)?)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Objects are the same but for what Helm needs of its own.
fn compare(rendered: Vec<Value>, installed: &[Value]) -> Result<()> {
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    let wanted: Vec<&Value> = installed.iter().filter(|object| object["kind"] != "Namespace").collect();
    if rendered.len() != wanted.len() {
        let names = |objects: &[&Value]| objects.iter().map(|one| name(one)).collect::<Vec<_>>().join(", ");
        let rendered: Vec<&Value> = rendered.iter().collect();
        bail!("helm renders {}; the install has {}", names(&rendered), names(&wanted));
    }
    for mut object in rendered {
        let metadata = &mut object["metadata"];
        metadata["labels"]["app.kubernetes.io/managed-by"] = json!("postern");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("helm.sh/resource-policy");
            if annotations.is_empty() {
                metadata.as_object_mut().map(|metadata| metadata.remove("annotations"));
            }
        }
        let Some(want) = wanted.iter().find(|want| name(want) == name(&object)) else {
            bail!("{} is not of the install", name(&object));
        };
        ensure!(object == **want, "{} differs:\n{object:#}\n{want:#}", name(&object));
    }
    Ok(())
}

/// Returns Helm, building it when this version was never built on this machine.
fn helm() -> Result<PathBuf> {
    let folder =
        paths::cache()?.join("tools").join(format!("helm-{}", &paths::digest(HELM.as_bytes())[..16]));
    let program = folder.join("helm");
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    if program.is_file() {
        return Ok(program);
    }
    say::note("building Helm from source, once");
    let unfinished = folder.join("unfinished");
    let mut build = sh::command("go", ["install", "-trimpath", "-ldflags", "-s -w", HELM]);
    build.env("GOBIN", &unfinished).env("CGO_ENABLED", "0").env("GOWORK", "off").env_remove("GOFLAGS");
    build.current_dir(&folder);
    sh::run(&mut build).context("build Helm")?;
    // A build cut short never looks finished.
    fs::rename(unfinished.join("helm"), &program)?;
    Ok(program)
}
