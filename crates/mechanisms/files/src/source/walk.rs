//! What was asked for, entry by entry, in memory that the depth of the tree and not its size decides.

use super::content::Item;
use super::tops::{self, Top};
use super::tree::Tree;
use crate::beneath::Base;
use crate::pattern::Rules;
use crate::share::Share;
use crate::{name, stat, verdict};
use postern_wire::copy::{Entry, Kind, Limits, SendSpec, UNSIZED};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{Dir, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// Files with several names that are remembered; what comes after is sent as files of their own.
const MOST_LINKED: usize = 200_000;

/// Files that stay open for their content, so that they need not be looked up twice.
const HELD: usize = 2_048;

/// What a step came to.
pub(super) enum Step {
    /// Something to copy; files come with what it takes to read them.
    Entry(Box<Entry>, Option<Item>),
    /// Something that cannot be copied, and why.
    Fault(Vec<u8>, String),
    /// All that is directly in this directory was told.
    DirectoryEnd(Vec<u8>),
    /// That was all.
    End,
    /// It cannot go on.
    Fatal(String),
}

/// A directory that is to be listed, or is being.
struct Place {
    tree: Arc<Tree>,
    /// Below the tree's root.
    below: Vec<u8>,
    /// As the destination has it.
    path: Vec<u8>,
    /// The directories on the way here, by device and inode, where symlinks are followed and may lead back.
    above: Vec<(u64, u64)>,
}

struct Listing {
    place: Place,
    entries: Dir,
    /// Where what it holds is looked up.
    directory: OwnedFd,
    /// Something in it could not be told, so that nobody may take it for complete.
    faulty: bool,
}

pub(super) struct Walk {
    base: Arc<Base>,
    tops: std::vec::IntoIter<Top>,
    count: usize,
    rules: Rules,
    dereference: bool,
    contents: bool,
    limits: Limits,
    next_id: u32,
    linked: HashMap<(u64, u64), Vec<u8>>,
    waiting: Vec<Place>,
    listing: Option<Listing>,
    /// One for each file that stays open until its content is asked for, and our own.
    share: Arc<Share>,
}

impl Walk {
    pub(super) fn new(spec: &SendSpec) -> Result<Self, String> {
        let root = spec.root.as_deref();
        let base = Base::new(root)
            .map_err(|error| format!("opening {}: {error}", name::show(root.unwrap_or_default())))?;
        let rules = crate::rules(&spec.rules)?;
        let tops = tops::expand(&base, spec, &rules)?;
        Ok(Self {
            base: Arc::new(base),
            count: tops.len(),
            tops: tops.into_iter(),
            rules,
            dereference: spec.dereference,
            contents: spec.contents,
            limits: spec.limits,
            next_id: 0,
            linked: HashMap::new(),
            waiting: Vec::new(),
            listing: None,
            share: Arc::new(Share::new()),
        })
    }

    /// How many things were asked for.
    pub(super) fn tops(&self) -> usize {
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
            let Some(top) = self.tops.next() else { return Step::End };
            return match Tree::open(&self.base, &top, self.dereference, self.contents) {
                Ok((tree, _, stat))
                    if top.name.is_empty() && stat::file_type(&stat) != FileType::Directory =>
                {
                    drop(tree);
                    Step::Fatal(format!("{} is no directory", name::show(&top.typed)))
                }
                Ok((tree, below, stat)) => {
                    let path = if tree.contents { Vec::new() } else { top.name };
                    self.tell(Found { tree: Arc::new(tree), below, path, stat, above: Vec::new() })
                }
                Err(error) if top.among && !top.name.is_empty() => Step::Fault(top.name, error.to_string()),
                Err(error) => Step::Fatal(format!("{}: {error}", name::show(&top.typed))),
            };
        }
    }

    /// The next entry of the directory that is being listed; nothing when none is.
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
                Err(Errno::NOENT) if !self.dereference => continue, // gone since
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
            let step = self.tell(Found { tree, below, path, stat, above });
            // What is there and cannot be told must not be taken for gone.
            listing.faulty |= matches!(step, Step::Fault(..));
            self.listing = Some(listing);
            return Some(step);
        }
    }

    /// What was found, as an entry; a directory is listed later.
    fn tell(&mut self, found: Found) -> Step {
        let Found { tree, below, path, stat, mut above } = found;
        if let Err(error) = name::check(&path, self.limits.depth) {
            return Step::Fault(path, error.to_string());
        }
        if u64::from(self.next_id) >= self.limits.entries {
            return Step::Fatal(verdict::many_found(self.limits.entries));
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
                        other => other.ok(), // why not is told when its content is
                    };
                    xattrs = opened.as_ref().map(stat::xattrs).unwrap_or_default();
                    let sizeless = opened.as_ref().is_some_and(|file| stat::says_no_size(file, &stat));
                    let held = opened
                        .filter(|_| Arc::strong_count(&self.share) <= HELD.min(self.share.quarter()))
                        .map(|file| (file, Arc::clone(&self.share)));
                    item = Some(Item { tree: Arc::clone(&tree), below: below.clone(), stat, sizeless, held });
                    Kind::File(if sizeless { UNSIZED } else { stat::size(&stat) })
                }
            },
            FileType::Directory => {
                let own = (stat.st_dev, stat.st_ino);
                if above.contains(&own) {
                    return Step::Fault(path, "a symlink leads back to a directory that holds it".to_owned());
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

    /// The path that the same file came by before.
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
