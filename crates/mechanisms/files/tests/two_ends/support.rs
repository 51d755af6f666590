//! Two ends joined by pipes, one end driven by a test, and files to copy.

use postern_files::link::{Arrived, Descriptor, Incoming as _, LinkError, Outbox};
use postern_files::{destination, source};
use postern_wire::Decoder;
use postern_wire::copy::{
    Compare, Compression, Delete, Entry, Fate, FromDestination, FromSource, Kind, Limits, Owner, ReceiveSpec,
    SendSpec, Stamp,
};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub(super) fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

pub(super) fn sending(sources: &[PathBuf]) -> SendSpec {
    SendSpec {
        root: None,
        sources: sources.iter().map(|path| bytes(path)).collect(),
        glob: true,
        contents: false,
        rules: Vec::new(),
        dereference: false,
        compression: Compression::Auto,
        limits: Limits::default(),
    }
}

pub(super) fn receiving(target: &Path) -> ReceiveSpec {
    ReceiveSpec {
        root: None,
        target: bytes(target),
        directory: false,
        named: false,
        parents: false,
        compare: Compare::Verify,
        delta: false,
        update: false,
        delete: Delete::Nothing,
        dry_run: false,
        inplace: false,
        preserve: false,
        owner: Owner::default(),
        unsafe_links: false,
        specials: false,
        clean: false,
        rules: Vec::new(),
        limits: Limits::default(),
    }
}

/// Records the bytes that pass to a pipe.
struct Tee(std::io::PipeWriter, std::sync::Arc<std::sync::Mutex<Vec<u8>>>, usize);

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.2 == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let count = self.0.write(&bytes[..bytes.len().min(self.2)])?;
        self.2 -= count;
        self.1.lock().unwrap().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(super) struct Report {
    /// What became of each path.
    pub(super) fates: BTreeMap<Vec<u8>, (Fate, String)>,
    pub(super) faults: Vec<(Vec<u8>, String)>,
    pub(super) deleted: Vec<Vec<u8>>,
    /// Entries that the destination stopped.
    pub(super) stopped: Vec<u32>,
    pub(super) fatal: Option<String>,
    pub(super) finished: bool,
    /// Bytes sent by the source.
    pub(super) sent: usize,
}

impl Report {
    pub(super) fn fate(&self, path: &str) -> Fate {
        self.fates.get(path.as_bytes()).unwrap_or_else(|| panic!("{path}: {:?}", self.fatal)).0
    }

    pub(super) fn count(&self, fate: Fate) -> usize {
        self.fates.values().filter(|(own, _)| *own == fate).count()
    }
}

/// Copies, with the source cut off after this many bytes.
pub(super) fn copy_cut(from: &SendSpec, to: &ReceiveSpec, cut: usize) -> Report {
    let said = [std::sync::Arc::default(), std::sync::Arc::default()];
    let (to_destination, from_source) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader, Tee(writer, std::sync::Arc::clone(&said[0]), cut))
    };
    let (to_source, from_destination) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader, Tee(writer, std::sync::Arc::clone(&said[1]), usize::MAX))
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let out = Outbox::new(from_source);
            let input = Descriptor::new(to_source);
            let _ = source::send(from, input, Decoder::default(), &out, None, || ());
        });
        scope.spawn(move || {
            let out = Outbox::new(from_destination);
            let mut input = Descriptor::new(to_destination);
            let _ = destination::receive(to, &mut input, Decoder::default(), &out, None);
        });
    });
    let [from_source, from_destination] = said.map(|said| std::mem::take(&mut *said.lock().unwrap()));
    report(&from_source, &from_destination)
}

pub(super) fn copy(from: &SendSpec, to: &ReceiveSpec) -> Report {
    copy_cut(from, to, usize::MAX)
}

fn report(from_source: &[u8], from_destination: &[u8]) -> Report {
    let mut report = Report { sent: from_source.len(), ..Report::default() };
    let mut paths = BTreeMap::new();
    let mut decoder = Decoder::default();
    decoder.push(from_source);
    while let Some((kind, payload)) = decoder.next_frame().unwrap() {
        match FromSource::decode(kind, payload).unwrap() {
            FromSource::Entry(entry) => drop(paths.insert(entry.id, entry.path)),
            FromSource::Fault { path, message } => report.faults.push((path.to_vec(), message)),
            FromSource::Fatal(message) => report.fatal = Some(message),
            _ => {}
        }
    }
    let mut decoder = Decoder::default();
    decoder.push(from_destination);
    while let Some((kind, payload)) = decoder.next_frame().unwrap() {
        match FromDestination::decode(kind, payload).unwrap() {
            FromDestination::EntryResult(settled) => {
                report.fates.insert(paths[&settled.id].clone(), (settled.fate, settled.note));
            }
            FromDestination::Deleted(path) => report.deleted.push(path.to_vec()),
            FromDestination::Stop(id) => report.stopped.push(id),
            FromDestination::Fatal(message) => report.fatal = Some(message),
            FromDestination::Finished => report.finished = true,
            _ => {}
        }
    }
    report
}

/// Everything that a copy preserves of a tree, by path.
pub(super) fn seen(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn walk(root: &Path, path: &Path, seen: &mut BTreeMap<Vec<u8>, String>) {
        let meta = path.symlink_metadata().unwrap();
        let kind = if meta.is_dir() {
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", path.read_link().unwrap().display())
        } else {
            format!("{} {}", meta.nlink(), blake3::hash(&fs::read(path).unwrap()).to_hex())
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        let text = format!("{mode:o} {}.{} {kind}", meta.mtime(), meta.mtime_nsec());
        seen.insert(bytes(path.strip_prefix(root).unwrap()), text);
        if meta.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(root, &entry.unwrap().path(), seen);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

pub(super) fn random(count: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A source that sends the frames of a test and ignores the answers.
pub(super) fn hostile(to: &ReceiveSpec, frames: &[FromSource<'_>]) -> Report {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (answers, answering) = std::io::pipe().unwrap();
    let mut said = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut said));
    let spoken = said.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = writer.write_all(&spoken); // the destination may have ended
        });
        scope.spawn(move || {
            let out = Outbox::new(answering);
            let _: Result<(), LinkError> =
                destination::receive(to, &mut Descriptor::new(reader), Decoder::default(), &out, None);
        });
        let mut decoder = Decoder::default();
        let mut answers = Descriptor::new(answers);
        while answers.read(&mut decoder, None).unwrap() != Arrived::Ended {}
        report(&said, decoder.pending())
    })
}

pub(super) fn entry(id: u32, path: &[u8], kind: Kind) -> FromSource<'static> {
    let stamp = Stamp { mode: 0o6777, user: 0, group: 0, seconds: 1, nanos: 0 };
    FromSource::Entry(Box::new(Entry {
        id,
        path: path.to_vec(),
        kind,
        stamp,
        xattrs: Vec::new(),
        settled: false,
    }))
}

pub(super) fn content(id: u32, bytes: &'static [u8]) -> [FromSource<'static>; 3] {
    [
        FromSource::From { id, offset: 0 },
        FromSource::Data(bytes),
        FromSource::FileEnd { id, hash: blake3::hash(bytes).into() },
    ]
}
