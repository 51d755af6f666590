//! Image tarballs in docker-archive form, the same bytes for the same content.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::paths;

const WHEN: u64 = 1_700_000_000;
const WHEN_TEXT: &str = "2023-11-14T22:13:20Z";

/// What lies at one path of a layer.
enum Content {
    Directory,
    Link(PathBuf),
    File(PathBuf),
    Text(String),
}

struct Entry {
    content: Content,
    mode: u32,
    owner: (u64, u64),
}

/// The files of one layer, by path: a map, so that they come out sorted.
#[derive(Default)]
pub(super) struct Files(BTreeMap<PathBuf, Entry>);

impl Files {
    /// Everything below a directory, owned by root.
    pub(super) fn tree(&mut self, root: &Path) -> Result<&mut Self> {
        self.walk(root, Path::new(""))?;
        Ok(self)
    }

    fn walk(&mut self, root: &Path, below: &Path) -> Result<()> {
        let dir = root.join(below);
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            let (path, kind) = (below.join(entry.file_name()), entry.file_type()?);
            let mode = entry.metadata()?.permissions().mode() & 0o7777;
            if kind.is_dir() {
                self.put(&path, Content::Directory, mode);
                self.walk(root, &path)?;
            } else if kind.is_symlink() {
                self.put(&path, Content::Link(fs::read_link(entry.path())?), 0o777);
            } else if kind.is_file() {
                self.put(&path, Content::File(entry.path()), mode);
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, content: Content, mode: u32) {
        self.0.insert(path.to_owned(), Entry { content, mode, owner: (0, 0) });
    }

    pub(super) fn directory(&mut self, path: &str, mode: u32) -> &mut Self {
        self.put(Path::new(path), Content::Directory, mode);
        self
    }

    pub(super) fn file(&mut self, path: &str, source: &Path, mode: u32) -> &mut Self {
        self.put(Path::new(path), Content::File(source.to_owned()), mode);
        self
    }

    pub(super) fn text(&mut self, path: &str, text: &str) -> &mut Self {
        self.put(Path::new(path), Content::Text(text.to_owned()), 0o644);
        self
    }

    pub(super) fn link(&mut self, path: &str, to: &str) -> &mut Self {
        self.put(Path::new(path), Content::Link(PathBuf::from(to)), 0o777);
        self
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }

    pub(super) fn owned(&mut self, path: &str, uid: u64, gid: u64) -> &mut Self {
        if let Some(entry) = self.0.get_mut(Path::new(path)) {
            entry.owner = (uid, gid);
        }
        self
    }

    /// The layer as an uncompressed tar.
    pub(super) fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.0);
            header.set_gid(entry.owner.1);
            header.set_mtime(WHEN);
            header.set_size(0);
            match &entry.content {
                Content::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    tar.append_data(&mut header, path.join(""), std::io::empty())?;
                }
                Content::Link(to) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, path, to)?;
                }
                Content::File(source) => {
                    let bytes = fs::read(source).with_context(|| source.display().to_string())?;
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, path, bytes.as_slice())?;
                }
                Content::Text(text) => {
                    header.set_size(text.len() as u64);
                    tar.append_data(&mut header, path, text.as_bytes())?;
                }
            }
        }
        Ok(tar.into_inner()?)
    }
}

/// Writes the image; returns the digest of its configuration, which changes with any of its content.
pub(super) fn write(to: &Path, reference: &str, config: &Value, layers: &[Vec<u8>]) -> Result<String> {
    let names: Vec<String> = layers.iter().map(|layer| paths::digest(layer)).collect();
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let image = serde_json::to_vec(&json!({
        "architecture": arch, "os": "linux", "created": WHEN_TEXT, "config": config,
        "rootfs": {"type": "layers", "diff_ids": names.iter().map(|n| format!("sha256:{n}")).collect::<Vec<_>>()},
        "history": names.iter().map(|_| json!({"created": WHEN_TEXT, "created_by": "cargo xtask images"}))
            .collect::<Vec<_>>(),
    }))?;
    let id = paths::digest(&image);
    let manifest = serde_json::to_vec(&json!([{
        "Config": format!("{id}.json"), "RepoTags": [reference],
        "Layers": names.iter().map(|n| format!("{n}.tar")).collect::<Vec<_>>(),
    }]))?;
    let unfinished = to.with_extension("unfinished");
    let mut tar = tar::Builder::new(fs::File::create(&unfinished)?);
    append(&mut tar, &format!("{id}.json"), &image)?;
    for (name, layer) in names.iter().zip(layers) {
        append(&mut tar, &format!("{name}.tar"), layer)?;
    }
    append(&mut tar, "manifest.json", &manifest)?;
    tar.into_inner()?.flush()?;
    fs::rename(&unfinished, to)?;
    Ok(id)
}

fn append(tar: &mut tar::Builder<fs::File>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(WHEN);
    Ok(tar.append_data(&mut header, name, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_bytes_whatever_the_order() {
        let (mut one, mut other) = (Files::default(), Files::default());
        one.directory("tmp", 0o1777).text("etc/passwd", "x").link("bin", "usr/bin");
        other.link("bin", "usr/bin").text("etc/passwd", "x").directory("tmp", 0o1777);
        assert_eq!(one.layer().unwrap(), other.layer().unwrap());
    }

    #[test]
    fn a_layer_keeps_modes_owners_and_links() {
        let mut files = Files::default();
        files.directory("tmp", 0o1777).owned("tmp", 7, 8).link("bin", "usr/bin");
        let layer = files.layer().unwrap();
        let mut tar = tar::Archive::new(layer.as_slice());
        let mut entries = tar.entries().unwrap().map(Result::unwrap);
        let link = entries.next().unwrap();
        assert_eq!(link.link_name().unwrap().unwrap(), Path::new("usr/bin"));
        let tmp = entries.next().unwrap();
        let header = tmp.header();
        let found = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        assert_eq!(found, (0o1777, 7, 8));
    }
}
