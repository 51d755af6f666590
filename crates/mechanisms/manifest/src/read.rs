//! Files, folders and standard input.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::{Document, Plain, parse, parse_plain};
use crate::error::ManifestError;
use crate::limits::Limits;

type Result<T> = std::result::Result<T, ManifestError>;

/// What a `-f` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input, written as `-`.
    Stdin,
    /// A file of any name, or a folder.
    Path(PathBuf),
}

impl From<&Path> for Input {
    fn from(path: &Path) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::Path(path.to_owned()) }
    }
}

/// How inputs are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Whether folders in a folder are read too.
    pub recursive: bool,
    /// The limits.
    pub limits: Limits,
}

/// A text with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The path as it was given, or `stdin`.
    pub file: Arc<str>,
    /// The file; nothing for standard input.
    pub path: Option<PathBuf>,
    /// Its text, byte for byte.
    pub text: String,
}

/// Reads the texts that the inputs name, in their order.
///
/// Of a folder, the files `*.yaml`, `*.yml` and `*.json` are read, sorted by path. Files and folders whose name begins
/// with a dot are left out. Symbolic links to files are followed; those to folders are not, as in kubectl, so that a
/// loop of links does no harm. A folder that is named by an input may be a link.
pub fn read(inputs: &[Input], options: &ReadOptions, stdin: &mut dyn io::Read) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    for input in inputs {
        match input {
            Input::Stdin => {
                let text = bounded(stdin, Path::new("-"), "stdin", &options.limits)?;
                texts.push(Text { file: "stdin".into(), path: None, text });
            }
            Input::Path(path) => {
                let metadata = fs::metadata(path).map_err(|source| failed(path, source))?;
                let files = if metadata.is_dir() { folder(path, options)? } else { vec![path.clone()] };
                for path in files {
                    let file: Arc<str> = path.display().to_string().into();
                    let mut reader = File::open(&path).map_err(|source| failed(&path, source))?;
                    let text = bounded(&mut reader, &path, &file, &options.limits)?;
                    texts.push(Text { file, path: Some(path), text });
                }
            }
        }
    }
    Ok(texts)
}

/// Reads the Kubernetes objects that the inputs hold. See [`read()`] and [`parse()`].
pub fn load(inputs: &[Input], options: &ReadOptions, stdin: &mut dyn io::Read) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for Text { file, text, .. } in read(inputs, options, stdin)? {
        documents.extend(parse(&file, &text, &options.limits)?);
    }
    Ok(documents)
}

/// Reads the documents that the inputs hold, whatever they are. See [`read()`] and [`parse_plain`].
pub fn load_plain(inputs: &[Input], options: &ReadOptions, stdin: &mut dyn io::Read) -> Result<Vec<Plain>> {
    let mut plains = Vec::new();
    for Text { file, text, .. } in read(inputs, options, stdin)? {
        plains.extend(parse_plain(&file, &text, &options.limits)?);
    }
    Ok(plains)
}

fn failed(path: &Path, source: io::Error) -> ManifestError {
    ManifestError::Read { path: path.to_owned(), source }
}

/// Reads all of a stream, but no more than the limit.
fn bounded(reader: &mut dyn io::Read, path: &Path, file: &str, limits: &Limits) -> Result<String> {
    let limit = u64::try_from(limits.bytes).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let mut reader = io::Read::take(reader, limit.saturating_add(1));
    io::Read::read_to_end(&mut reader, &mut bytes).map_err(|source| failed(path, source))?;
    if bytes.len() > limits.bytes {
        return Err(ManifestError::TooLarge { file: file.into(), limit: limits.bytes, unit: "bytes" });
    }
    String::from_utf8(bytes)
        .map_err(|error| ManifestError::NotUtf8 { file: file.into(), at: error.utf8_error().valid_up_to() })
}

/// The files of a folder, sorted.
fn folder(root: &Path, options: &ReadOptions) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = folders.pop() {
        for entry in fs::read_dir(&path).map_err(|source| failed(&path, source))? {
            let entry = entry.map_err(|source| failed(&path, source))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().map_err(|source| failed(&path, source))?;
            if kind.is_dir() {
                if options.recursive {
                    folders.push(path);
                }
                continue;
            }
            let known = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
            if !known {
                continue;
            }
            // A link without a target is an error, as the file it stands for would be missing from the result.
            if fs::metadata(&path).map_err(|source| failed(&path, source))?.is_file() {
                files.push(path);
            }
            if files.len() > options.limits.files {
                let file = root.display().to_string().into();
                return Err(ManifestError::TooLarge { file, limit: options.limits.files, unit: "files" });
            }
        }
    }
    if files.is_empty() {
        return Err(ManifestError::NoFiles { path: root.to_owned(), recursive: options.recursive });
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(inputs: &[Input], recursive: bool) -> Vec<String> {
        let options = ReadOptions { recursive, ..ReadOptions::default() };
        let texts = read(inputs, &options, &mut &b"from stdin"[..]).unwrap();
        texts.into_iter().map(|text| text.file.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_folder_gives_its_manifests_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("sub")).unwrap();
        fs::create_dir(root.join(".git")).unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "d.txt", ".hidden.yaml", "sub/e.yaml", ".git/f.yaml"] {
            fs::write(root.join(name), "").unwrap();
        }
        symlink(root, root.join("sub/loop")).unwrap();
        symlink(root.join("d.txt"), root.join("link.yaml")).unwrap();
        let input = [Input::Path(root.to_owned())];
        assert_eq!(names(&input, false), ["a.yml", "b.yaml", "c.json", "link.yaml"]);
        assert_eq!(names(&input, true), ["a.yml", "b.yaml", "c.json", "link.yaml", "e.yaml"]);
        let linked = [Input::Path(root.join("sub/loop/sub")), Input::from(Path::new("-"))];
        assert_eq!(names(&linked, false), ["e.yaml", "stdin"]);
        assert_eq!(names(&[Input::Path(root.join("d.txt"))], false), ["d.txt"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let said = |options: ReadOptions, path: PathBuf| {
            read(&[Input::Path(path)], &options, &mut io::empty()).unwrap_err().to_string()
        };
        let options = ReadOptions::default();
        assert!(said(options, root.to_owned()).contains("--recursive"));
        assert!(said(options, root.join("none.yaml")).contains("none.yaml"));
        fs::write(root.join("bad.yaml"), b"a: \xff").unwrap();
        assert!(said(options, root.join("bad.yaml")).ends_with("bad.yaml is not UTF-8 (at byte 3)"));
        let limits = Limits { bytes: 3, files: 1, ..Limits::default() };
        let options = ReadOptions { limits, ..options };
        assert!(said(options, root.join("bad.yaml")).contains("more than 3 bytes"));
        fs::write(root.join("other.yaml"), "a").unwrap();
        assert!(said(options, root.to_owned()).contains("more than 1 files"));
        symlink(root.join("none"), root.join("dangling.yaml")).unwrap();
        assert!(said(ReadOptions::default(), root.to_owned()).contains("dangling.yaml"));
    }
}
