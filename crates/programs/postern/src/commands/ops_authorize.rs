//! `postern ops authorize`.

use super::Context;
use crate::cli::ops::Authorize as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_exec::stream::Key;
use postern_ops::stream::{self, Authorization, OpenError};
use serde::Serialize;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The keys of operators, as `-o json` prints them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Authorized {
    dry_run: bool,
    added: Vec<String>,
    removed: Vec<String>,
    keys: Vec<String>,
}

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args { pod, file, generate, comment: name, list, revoke, dry_run } = args;
    let pod = context.ops_pod(pod)?;
    let mut made = None;
    let change = match (file, generate, revoke) {
        (Some(file), ..) => Some(Authorization::Add(line(&public_key(&file)?, name.as_deref(), &file)?)),
        (None, Some(path), _) => {
            let der = Key::generate().map_err(|error| Failure::denied(&error, None))?;
            let key = Key::from_pkcs8(&der, "the new key").map_err(|error| Failure::denied(&error, None))?;
            let written = format!("ssh-ed25519 {}", postern_wire::stream::openssh(&key.public()));
            made = Some((path, der));
            Some(Authorization::Add(line(&written, name.as_deref(), "the new key")?))
        }
        (None, None, Some(key)) => Some(Authorization::Revoke(key)),
        (None, None, None) if list => None,
        (None, None, None) => {
            return Err(Failure::usage(
                "no key is named",
                Some("name a public key's FILE, or --generate PATH, --list or --revoke KEY".to_owned()),
            ));
        }
    };
    let cluster = context.cluster().await?;
    // Written first: a key that is authorized and was not kept would be of no use to anyone.
    if let Some((path, der)) = made.as_ref().filter(|_| !dry_run) {
        write_private(path, &Key::pem(der))?;
    }
    let changed = stream::authorize(&cluster, &pod, change.as_ref(), dry_run).await;
    let (before, keys) = match changed {
        Ok(changed) => changed,
        Err(error) => {
            if let Some((path, _)) = made.filter(|_| !dry_run) {
                let _ = std::fs::remove_file(path);
            }
            return Err(error.into());
        }
    };
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|line| !other.contains(line)).cloned().collect()
    };
    let (added, removed) = (only(&keys, &before), only(&before, &keys));
    if let Some(Authorization::Revoke(name)) = &change
        && removed.is_empty()
    {
        return Err(Failure::denied(
            &std::io::Error::other(format!("no authorized key is or is called {name:?}")),
            Some("see `postern ops authorize --list`".to_owned()),
        ));
    }
    let result = Authorized { dry_run, added, removed, keys };
    printer.result(&result, || text(&result, list));
    Ok(0)
}

fn text(result: &Authorized, list: bool) -> String {
    let Authorized { dry_run, added, removed, keys } = result;
    if list {
        return keys.iter().fold(String::new(), |text, line| text + line + "\n");
    }
    let mut text = String::new();
    for (mark, lines) in [("✓ authorized", added), ("✓ revoked", removed)] {
        lines.iter().for_each(|line| text.push_str(&format!("{mark} {line}\n")));
    }
    if text.is_empty() {
        text.push_str("✓ unchanged\n");
    }
    text.push_str(if *dry_run {
        "Nothing was changed (--dry-run).\n"
    } else {
        "The pod takes it as soon as the kubelet has brought it there, within two minutes.\n"
    });
    text
}

fn public_key(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().take(64 * 1024).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(64 * 1024).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("reading the public key {file}: {error}"), None))?;
    if text.contains("PRIVATE KEY") {
        return Err(Failure::usage(
            format!("{file} is a private key, which nobody but you should have"),
            Some("name the public one, which ends in .pub".to_owned()),
        ));
    }
    Ok(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned())
}

fn line(text: &str, name: Option<&str>, from: &str) -> Result<String, Failure> {
    let named = name.map(|name| {
        let key = text.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ");
        format!("{key} {name}")
    });
    let (_, line) = stream::parse_line(named.as_deref().unwrap_or(text)).map_err(|why| {
        let hint = "give a line such as `ssh-ed25519 AAAA… name`; `--generate PATH` makes a key".to_owned();
        Failure::usage(format!("{from} is not a public key that can be authorized: {why}"), Some(hint))
    })?;
    Ok(line)
}

/// Writes a private key to a new file.
fn write_private(path: &Path, pem: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    // A directory for keys is nobody else's.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists());
    let made = parent.map_or(Ok(()), |parent| DirBuilder::new().recursive(true).mode(0o700).create(parent));
    let written = made
        .and_then(|()| options.open(path))
        .and_then(|mut file| file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        Failure::usage(
            format!("writing the private key {}: {error}", path.display()),
            Some("name a path in a directory of yours where no file is yet".to_owned()),
        )
    })
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Kube(error) => error.into(),
            OpenError::NotInstalled => {
                Self::denied(&error, Some("install it with: postern ops install --stream".to_owned()))
            }
            OpenError::Damaged(..) => {
                Self::denied(&error, Some("`postern ops install --stream` makes it anew".to_owned()))
            }
            OpenError::Several { ref keys, .. } => {
                let hint = format!("name one by its key: --revoke {}", keys.join(", or --revoke "));
                Self::denied(&error, Some(hint))
            }
            OpenError::Key(_) | OpenError::Stream(_) => Self::denied(&error, None),
        }
    }
}
