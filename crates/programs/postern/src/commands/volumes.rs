//! `postern volumes`.

use super::Context;
use crate::cli::Format;
use crate::cli::volumes::{By, ChownCommand, InitContainer as InitContainerArgs, Own, Patch, Selection};
use crate::failure::Failure;
use crate::printer::Printer;
use postern_kube::k8s_openapi::api::core::v1::Container;
use postern_manifest::{Input, Limits, ManifestError, ReadOptions, Text, parse};
use postern_volume::{
    Change, InitContainer, Mount, Options, PatchError, PlanError, Program, Workload, init_containers,
};
use serde_json::json;
use std::path::Path;

/// `postern volumes patch`.
pub(super) fn patch(context: &Context, args: &Patch, printer: &mut Printer) -> Result<u8, Failure> {
    let Patch { filename, recursive, write, dry_run, selection, own } = args;
    let prints_manifests = !write && !dry_run;
    if prints_manifests && printer.format() != Format::Text {
        let hint = "with -o, add --dry-run or --write; without it, the manifests are printed as they are";
        return Err(Failure::usage(
            "the patched manifests have the format of the files",
            Some(hint.to_owned()),
        ));
    }
    let inputs: Vec<_> = filename.iter().map(|file| Input::from(file.as_path())).collect();
    if *write && inputs.contains(&Input::Stdin) {
        return Err(Failure::usage("--write cannot change stdin", Some("leave it out".to_owned())));
    }
    let options = options(context, own, selection);
    let limits = Limits::default();
    let texts = read(&inputs, ReadOptions { recursive: *recursive, limits })?;
    let mut patched = Vec::new();
    let mut nothing = None;
    for Text { file, path, text } in texts {
        match postern_volume::patch(&file, &text, &options) {
            Ok(found) => patched.push((file, path, Some(text), found.text, found.changes)),
            // Of a folder, some files have no workload.
            Err(error @ PatchError::Nothing { .. }) => {
                nothing = Some(error);
                patched.push((file, path, None, text, Vec::new()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(error) = nothing.filter(|_| patched.iter().all(|(.., changes)| changes.is_empty())) {
        return Err(error.into());
    }
    let mut changes = Vec::new();
    for (at, (file, path, before, text, of_file)) in patched.iter().enumerate() {
        if prints_manifests {
            let separator = if at > 0 && !text.starts_with("---") { "---\n" } else { "" };
            let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
            printer.raw(&format!("{separator}{text}{end}"));
        }
        if let (true, false, Some(path), Some(before)) = (*write, *dry_run, path, before)
            && before != text
        {
            postern_manifest::write(path, text).map_err(|error| manifest(&error))?;
        }
        changes.extend(of_file.iter().map(|(object, change)| (file.clone(), object.clone(), *change)));
    }
    if prints_manifests {
        for (file, object, change) in changes {
            printer.note(&line(&file, &object, change, false));
        }
        return Ok(0);
    }
    let list: Vec<_> = changes
        .iter()
        .map(|(file, object, change)| {
            json!({"file": file.as_ref(), "object": object, "change": change.to_string()})
        })
        .collect();
    printer.result(&json!({"changes": list, "dryRun": dry_run}), || {
        let lines = changes.iter().map(|(file, object, change)| line(file, object, *change, *dry_run) + "\n");
        lines.collect()
    });
    Ok(0)
}

fn line(file: &str, object: &str, change: Change, dry_run: bool) -> String {
    let done = match (change, dry_run) {
        (Change::Added, false) => "✓ added the init container to",
        (Change::Added, true) => "✓ would add the init container to",
        (Change::Updated, false) => "✓ updated the init container of",
        (Change::Updated, true) => "✓ would update the init container of",
        (Change::Unchanged, _) => "✓ the init container is there already:",
        (Change::NotNeeded, _) => "✓ no init container is needed:",
    };
    format!("{done} {object} ({file})")
}

/// `postern volumes init-container`.
pub(super) fn init_container(
    context: &Context,
    args: InitContainerArgs,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let InitContainerArgs { filename, owner, mount, name, selection, own } = args;
    let containers = match (filename, owner) {
        (Some(file), _) => of_file(&file, &options(context, &own, &selection))?,
        (None, Some(owner)) => {
            let options = options(context, &own, &selection);
            let Some(image) = options.image else {
                let hint =
                    "--by chown runs in the workload's image: name it with --image, or the manifest with -f";
                return Err(Failure::usage("no image is set", Some(hint.to_owned())));
            };
            let mounts = mount.into_iter().map(|(volume, path)| Mount { volume, path, sub_path: None });
            let mounts = mounts.collect();
            let Options { program, keep_setuid, allow_hard_links, .. } = options;
            vec![InitContainer { name, image, program, owner, mounts, keep_setuid, allow_hard_links }.build()]
        }
        // clap requires one of them.
        (None, None) => Vec::new(),
    };
    match printer.format() {
        // An item of a YAML list, to be pasted below `initContainers:`.
        Format::Text | Format::Yaml => printer.raw(&crate::printer::yaml(&containers)),
        Format::Json => printer.result(&containers, String::new),
    }
    Ok(0)
}

fn of_file(file: &Path, options: &Options) -> Result<Vec<Container>, Failure> {
    let mut found = None;
    let limits = Limits::default();
    for Text { file, text, .. } in read(&[Input::from(file)], ReadOptions { recursive: false, limits })? {
        for document in parse(&file, &text, &limits).map_err(|error| manifest(&error))? {
            let workload = Workload::of(&document.value).map_err(|error| Failure::denied(&error, None))?;
            let Some(workload) = workload else { continue };
            if found.replace((document.at(&workload.path), workload)).is_some() {
                let hint = "name a file with one workload; `postern volumes patch` takes several";
                let message = format!("{file} has several workloads");
                return Err(Failure::usage(message, Some(hint.to_owned())));
            }
        }
    }
    let Some((at, workload)) = found else {
        let message = format!("{} has no workload", file.display());
        return Err(Failure::usage(
            message,
            Some("name a manifest with a Pod, Deployment or the like".to_owned()),
        ));
    };
    let containers = init_containers(&workload, options).map_err(|error| {
        let hint = error.hint();
        let mut failure = Failure::denied(&error, hint);
        failure.message = format!("{at}: {}", failure.message);
        failure
    })?;
    if containers.is_empty() {
        let error = std::io::Error::other(format!(
            "{at}: the workload writes no volume that keeps data, or runs as root"
        ));
        return Err(Failure::denied(&error, Some("name a volume with --volume".to_owned())));
    }
    Ok(containers)
}

/// `postern volumes chown-command`.
pub(super) fn chown_command(args: &ChownCommand, printer: &mut Printer) -> u8 {
    let ChownCommand { owner, paths } = args;
    let command = postern_volume::chown_command(owner.uid, owner.gid, paths);
    printer.result(&json!({"command": command}), || format!("{command}\n"));
    0
}

fn options(context: &Context, own: &Own, selection: &Selection) -> Options {
    let Own { by, image, keep_setuid, allow_hard_links } = own;
    let Selection { container, volume } = selection;
    let (program, image) = match by {
        By::Agent => (Program::Agent, Some(context.agent_image(image.as_deref()))),
        By::Chown => (Program::Shell, image.clone()),
    };
    let selection = postern_volume::Selection { container: container.clone(), volumes: volume.clone() };
    Options { program, image, selection, keep_setuid: *keep_setuid, allow_hard_links: *allow_hard_links }
}

fn read(inputs: &[Input], options: ReadOptions) -> Result<Vec<Text>, Failure> {
    postern_manifest::read(inputs, &options, &mut std::io::stdin()).map_err(|error| manifest(&error))
}

fn manifest(error: &ManifestError) -> Failure {
    Failure::denied(error, None)
}

impl From<PatchError> for Failure {
    fn from(error: PatchError) -> Self {
        let hint = match &error {
            PatchError::Manifest(error) => return manifest(error),
            other => other.hint(),
        };
        Self::denied(&error, hint)
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::denied(&error, error.hint())
    }
}
