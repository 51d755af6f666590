//! Walks the sources entry by entry. Memory depends on the depth of the tree, not on its size.

use super::content::Item;
use super::roots::{self, SourceRoot};
use super::tree::Tree;
use crate::beneath::Base;
use crate::open_files::OpenFileShare;
use crate::pattern::Rules;
use crate::{name, policy, stat};
use postern_wire::copy::{Entry, Kind, Limits, SendSpec, UNSIZED};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{Dir, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// Maximum number of remembered files with several names; later ones are sent as separate files.
const MOST_LINKED: usize = 200_000;

/// Maximum number of files kept open for their content, so that they need not be looked up twice.
const HELD: usize = 2_048;

/// The result of a step.
pub(super) enum Step {
    /// An entry to copy, with the item to read if it is a file.
    Entry(Box<Entry>, Option<Item>),
    /// An entry that cannot be copied, and why.
    Fault(Vec<u8>, String),
    /// All entries directly in this directory were returned.
    DirectoryEnd(Vec<u8>),
    /// The end of the walk.
    End,
    /// The walk cannot continue.
    Fatal(String),
}

/// A directory that is or will be listed.
struct Place {
    tree: Arc<Tree>,
    /// The path below the tree's root.
    below: Vec<u8>,
    /// The path at the destination.
    path: Vec<u8>,
    /// Device and inode of the parent directories, if symlinks are followed and may form a loop.
    above: Vec<(u64, u64)>,
}

struct Listing {
    place: Place,
    entries: Dir,
    /// The directory for lookups of its entries.
    directory: OwnedFd,
    /// An entry in it could not be returned, so it must not be treated as complete.
    faulty: bool,
}

pub(super) struct Walk {
    base: Arc<Base>,
    roots: std::vec::IntoIter<SourceRoot>,
    count: usize,
    rules: Rules,
    dereference: bool,
    contents: bool,
    limits: Limits,
    next_id: u32,
    linked: HashMap<(u64, u64), Vec<u8>>,
    waiting: Vec<Place>,
    listing: Option<Listing>,
    /// Counts the files that stay open until their content is requested, and ourselves.
    share: Arc<OpenFileShare>,
}

impl Walk {
    pub(super) fn new(spec: &SendSpec) -> Result<Self, String> {
        let root = spec.root.as_deref();
        let base = Base::new(root)
            .map_err(|error| format!("opening {}: {error}", name::show(root.unwrap_or_default())))?;
        let rules = crate::rules(&spec.rules)?;
        let roots = roots::expand(&base, spec, &rules)?;
        Ok(Self {
            base: Arc::new(base),
            count: roots.len(),
            roots: roots.into_iter(),
            rules,
            dereference: spec.dereference,
            contents: spec.contents,
            limits: spec.limits,
            next_id: 0,
            linked: HashMap::new(),
            waiting: Vec::new(),
            listing: None,
            share: Arc::new(OpenFileShare::new()),
        })
    }

    /// The number of sources.
    pub(super) fn roots(&self) -> usize {
        self.count
    }

    pub(super) fn next(&mut self) -> Step {
        loop {
            if let Some(step) = self.listed() {
                return step;
            }
            if let Some(place) = self.waiting.pop() {
                let path = place.path.clone();
                match list(place) {
                    Ok(listing) => self.listing = Some(listing),
                    Err(error) => return Step::Fault(path, format!("listing it: {error}")),
                }
                continue;
            }
            let Some(top) = self.roots.next() else { return Step::End };
            return match Tree::open(&self.base, &top, self.dereference, self.contents) {
                Ok((tree, _, stat))
                    if top.name.is_empty() && stat::file_type(&stat) != FileType::Directory =>
                {
                    drop(tree);
                    Step::Fatal(format!("{} is not a directory", name::show(&top.typed)))
                }
                Ok((tree, below, stat)) => {
                    let path = if tree.contents { Vec::new() } else { top.name };
                    self.entry(Found { tree: Arc::new(tree), below, path, stat, above: Vec::new() })
                }
                Err(error) if top.optional && !top.name.is_empty() => {
                    Step::Fault(top.name, error.to_string())
                }
                Err(error) => Step::Fatal(format!("{}: {error}", name::show(&top.typed))),
            };
        }
    }

    /// The next entry of the directory that is being listed, if any.
    fn listed(&mut self) -> Option<Step> {
        let mut listing = self.listing.take()?;
        loop {
            let entry = match listing.entries.next() {
                None if listing.faulty => return None,
                None => return Some(Step::DirectoryEnd(listing.place.path)),
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    return Some(Step::Fault(listing.place.path, format!("listing it: {error}")));
                }
            };
            let component = entry.file_name().to_bytes();
            if component == b"." || component == b".." || name::is_partial(component) {
                continue;
            }
            let path = name::join(&listing.place.path, component);
            let below = name::join(&listing.place.below, component);
            let tree = &listing.place.tree;
            let stat = match tree.stat(listing.directory.as_fd(), component, &below) {
                Ok(stat) => stat,
                Err(Errno::NOENT) if !self.dereference => continue, // removed meanwhile
                Err(error) => {
                    listing.faulty = true;
                    self.listing = Some(listing);
                    return Some(Step::Fault(path, error.to_string()));
                }
            };
            let directory = stat::file_type(&stat) == FileType::Directory;
            if !self.rules.is_empty() && self.rules.excludes(name::inner(&path, tree.contents), directory) {
                continue;
            }
            let (tree, above) = (Arc::clone(tree), listing.place.above.clone());
            let step = self.entry(Found { tree, below, path, stat, above });
            // An existing entry that cannot be returned must not be treated as removed.
            listing.faulty |= matches!(step, Step::Fault(..));
            self.listing = Some(listing);
            return Some(step);
        }
    }

    /// Converts a found file to an entry; a directory is listed later.
    fn entry(&mut self, found: Found) -> Step {
        let Found { tree, below, path, stat, mut above } = found;
        if let Err(error) = name::check(&path, self.limits.depth) {
            return Step::Fault(path, error.to_string());
        }
        if u64::from(self.next_id) >= self.limits.entries {
            return Step::Fatal(policy::many_found(self.limits.entries));
        }
        let id = self.next_id;
        let (mut item, mut xattrs) = (None, Vec::new());
        let kind = match stat::file_type(&stat) {
            FileType::RegularFile => match self.other_name(&stat, &path) {
                Some(other) => Kind::HardLink(other),
                None => {
                    let opened = match tree.read(&below, OFlags::empty()) {
                        Err(error @ (Errno::MFILE | Errno::NFILE)) => {
                            return Step::Fault(path, format!("opening it: {error}"));
                        }
                        other => other.ok(), // the error is reported with its content
                    };
                    xattrs = opened.as_ref().map(stat::xattrs).unwrap_or_default();
                    let generated = opened.as_ref().is_some_and(|file| stat::is_generated(file, &stat));
                    let opened = opened
                        .filter(|_| Arc::strong_count(&self.share) <= HELD.min(self.share.quarter()))
                        .map(|file| (file, Arc::clone(&self.share)));
                    item =
                        Some(Item { tree: Arc::clone(&tree), below: below.clone(), stat, generated, opened });
                    Kind::File(if generated { UNSIZED } else { stat::size(&stat) })
                }
            },
            FileType::Directory => {
                let own = (stat.st_dev, stat.st_ino);
                if above.contains(&own) {
                    return Step::Fault(
                        path,
                        "a symlink loop: it points to one of its parent directories".to_owned(),
                    );
                }
                if self.dereference {
                    above.push(own);
                }
                xattrs = tree.read(&below, OFlags::empty()).map(stat::xattrs).unwrap_or_default();
                self.waiting.push(Place {
                    tree: Arc::clone(&tree),
                    below: below.clone(),
                    path: path.clone(),
                    above,
                });
                Kind::Directory
            }
            FileType::Symlink => match tree.link(&below) {
                Ok(target) => Kind::Symlink(target),
                Err(error) => return Step::Fault(path, format!("reading the symlink: {error}")),
            },
            _ => match stat::special(&stat) {
                Some(kind) => kind,
                None => return Step::Fault(path, "sockets cannot be copied".to_owned()),
            },
        };
        self.next_id += 1;
        Step::Entry(
            Box::new(Entry { id, path, kind, stamp: stat::stamp(&stat), xattrs, settled: false }),
            item,
        )
    }

    /// The path with which the same file was sent before.
    fn other_name(&mut self, stat: &Stat, path: &[u8]) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 || self.dereference {
            return None;
        }
        let file = (stat.st_dev, stat.st_ino);
        if let Some(known) = self.linked.get(&file) {
            return Some(known.clone());
        }
        if self.linked.len() < MOST_LINKED {
            self.linked.insert(file, path.to_vec());
        }
        None
    }
}

struct Found {
    tree: Arc<Tree>,
    below: Vec<u8>,
    path: Vec<u8>,
    stat: Stat,
    above: Vec<(u64, u64)>,
}

fn list(place: Place) -> Result<Listing, Errno> {
    let directory = place.tree.read(&place.below, OFlags::DIRECTORY)?;
    let entries = Dir::read_from(&directory)?;
    Ok(Listing { place, entries, directory, faulty: false })
}
