//! A tree with everything that a copy keeps, and what was kept of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Bytes that do not shrink.
pub fn random(count: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut state = u64::from(seed) + 0x9e37_79b9_7f4a_7c15;
    for eight in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
    bytes
}

/// A tree with one of each kind that a copy keeps, and many files.
pub fn torture(root: &Path, files: usize) {
    let name = |bytes: &[u8]| root.join(std::ffi::OsString::from_vec(bytes.to_vec()));
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for (path, content) in [
        (&b"a/zero"[..], Vec::new()),
        (b"a/small", b"hello".to_vec()),
        (b"a/text", b"line after line\n".repeat(50_000)),
        (b"a/random", random(2_000_000, 1)),
        (b" -rf", b"1".to_vec()),
        (b"new\nline \x1b[2J", b"2".to_vec()),
        (b"not \xff utf-8", b"3".to_vec()),
        (&[b'n'; 255], b"4".to_vec()),
        (b".hidden", b"5".to_vec()),
        (b"*", b"6".to_vec()),
    ] {
        fs::write(name(path), content).unwrap();
    }
    for number in 0..files {
        fs::write(root.join(format!("a/b/file-{number}")), format!("content of {number}")).unwrap();
    }
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    sparse.write_all_at(b"in the middle", 20_000_000).unwrap();
    symlink("small", root.join("a/link")).unwrap();
    symlink("../a/b", root.join("a/up")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("a/small"), root.join("other-name")).unwrap();
    fs::set_permissions(root.join("a/small"), fs::Permissions::from_mode(0o751)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for path in ["a/small", "a/b", "a", "empty", ""] {
        fs::File::open(root.join(path)).unwrap().set_modified(old).unwrap();
    }
}

/// Everything that a copy keeps of a tree, by path.
pub fn seen(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn walk(root: &Path, path: &Path, seen: &mut BTreeMap<Vec<u8>, String>) {
        let meta = path.symlink_metadata().unwrap();
        let kind = if meta.is_dir() {
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", path.read_link().unwrap().display())
        } else {
            let content = fs::read(path).unwrap();
            let sum =
                content.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
            format!("{} links, {} bytes, {sum:x}", meta.nlink(), content.len())
        };
        let mode = if meta.is_symlink() { 0 } else { meta.mode() & 0o7777 };
        let text = format!("{mode:o} {}.{} {kind}", meta.mtime(), meta.mtime_nsec());
        let path_bytes = path.strip_prefix(root).unwrap().to_owned().into_os_string().into_vec();
        seen.insert(path_bytes, text);
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
