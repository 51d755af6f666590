//! Walks the sources entry by entry, as directory listings arrive.

use super::roots::SourceRoot;
use crate::TranslatorError;
use crate::inspect::{list, read_link, stat_path};
use crate::listing::{Stat, Type};
use crate::quoting::cause;
use crate::session::Session;
use postern_files::pattern::Rules;
use postern_files::{name, policy};
use postern_wire::copy::{Entry, Kind, SendSpec};
use std::collections::{HashMap, VecDeque};

/// Maximum number of remembered files with several names; later ones are sent as separate files.
const MOST_LINKED: usize = 200_000;

/// An announced file.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// The path in the container.
    pub(super) real: Vec<u8>,
    pub(super) stat: Stat,
}

pub(super) enum Step {
    Entry(Box<Entry>, Option<Item>),
    Fault(Vec<u8>, String),
    DirectoryEnd(Vec<u8>),
    End,
}

/// A directory to list.
struct Place {
    real: Vec<u8>,
    path: Vec<u8>,
    contents: bool,
    /// The parent directories, if symlinks are followed and may form a loop.
    above: Vec<(u64, u64)>,
}

/// The remaining entries of a directory.
type Rest = std::vec::IntoIter<(Vec<u8>, Stat)>;

pub(super) struct Walk {
    roots: VecDeque<SourceRoot>,
    rules: Rules,
    spec: SendSpec,
    next_id: u32,
    linked: HashMap<(u64, u64), Vec<u8>>,
    waiting: Vec<Place>,
    /// The rest of the directory listed last, and whether an entry in it failed.
    listed: Option<(Place, Rest, bool)>,
}

impl Walk {
    pub(super) fn new(spec: &SendSpec, roots: Vec<SourceRoot>) -> Result<Self, TranslatorError> {
        Ok(Self {
            roots: roots.into(),
            rules: postern_files::rules(&spec.rules).map_err(TranslatorError::Fatal)?,
            spec: spec.clone(),
            next_id: 0,
            linked: HashMap::new(),
            waiting: Vec::new(),
            listed: None,
        })
    }

    pub(super) async fn next(&mut self, session: &mut Session) -> Result<Step, TranslatorError> {
        loop {
            if let Some((place, mut rest, mut faulty)) = self.listed.take() {
                let Some((component, stat)) = rest.next() else {
                    if faulty {
                        continue;
                    }
                    return Ok(Step::DirectoryEnd(place.path));
                };
                let step = self.one(session, &place, &component, stat).await?;
                // An existing entry that cannot be returned must not be treated as removed.
                faulty |= matches!(step, Some(Step::Fault(..)));
                self.listed = Some((place, rest, faulty));
                let Some(step) = step else { continue };
                return Ok(step);
            }
            if let Some(place) = self.waiting.pop() {
                match list(session, &place.real).await? {
                    Ok(found) => self.listed = Some((place, found.into_iter(), false)),
                    Err(why) => return Ok(Step::Fault(place.path, format!("listing it: {why}"))),
                }
                continue;
            }
            let Some(SourceRoot { real, name, stat, .. }) = self.roots.pop_front() else {
                return Ok(Step::End);
            };
            let directory = stat.kind() == Type::Directory;
            if name.is_empty() && !directory {
                return Err(TranslatorError::Fatal(format!("{} is not a directory", name::show(&real))));
            }
            let contents = directory && (self.spec.contents || name.is_empty());
            let path = if contents { Vec::new() } else { name };
            return self.entry(session, Place { real, path, contents, above: Vec::new() }, stat).await;
        }
    }

    /// An entry of a directory; `None` if it is excluded.
    async fn one(
        &mut self,
        session: &mut Session,
        place: &Place,
        component: &[u8],
        mut stat: Stat,
    ) -> Result<Option<Step>, TranslatorError> {
        if name::is_partial(component) {
            return Ok(None);
        }
        let path = name::join(&place.path, component);
        let real = name::join(&place.real, component);
        if self.spec.dereference && stat.kind() == Type::Symlink {
            match stat_path(session, &real, true).await? {
                Ok(found) => stat = found,
                Err(why) => return Ok(Some(Step::Fault(path, cause(&why)))),
            }
        }
        let directory = stat.kind() == Type::Directory;
        if self.rules.excludes(name::inner(&path, place.contents), directory) {
            return Ok(None);
        }
        let place = Place { real, path, contents: place.contents, above: place.above.clone() };
        self.entry(session, place, stat).await.map(Some)
    }

    async fn entry(
        &mut self,
        session: &mut Session,
        place: Place,
        stat: Stat,
    ) -> Result<Step, TranslatorError> {
        let Place { real, path, contents, mut above } = place;
        if let Err(error) = name::check(&path, self.spec.limits.depth) {
            return Ok(Step::Fault(path, error.to_string()));
        }
        if u64::from(self.next_id) >= self.spec.limits.entries {
            return Err(TranslatorError::Fatal(policy::many_found(self.spec.limits.entries)));
        }
        let mut item = None;
        let kind = match stat.kind() {
            Type::File => match self.other_name(&stat, &path) {
                Some(other) => Kind::HardLink(other),
                None => {
                    item = Some(Item { real, stat: stat.clone() });
                    Kind::File(stat.size)
                }
            },
            Type::Directory => {
                let own = (stat.device, stat.inode);
                if above.contains(&own) {
                    let why = "a symlink loop: it points to one of its parent directories".to_owned();
                    return Ok(Step::Fault(path, why));
                }
                if self.spec.dereference {
                    above.push(own);
                }
                self.waiting.push(Place { real, path: path.clone(), contents, above });
                Kind::Directory
            }
            Type::Symlink => match read_link(session, &real, "-n").await? {
                Ok(target) => Kind::Symlink(target),
                Err(why) => return Ok(Step::Fault(path, why)),
            },
            Type::Other => match stat.special() {
                Some(kind) => kind,
                None => return Ok(Step::Fault(path, "sockets cannot be copied".to_owned())),
            },
        };
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry { id, path, kind, stamp: stat.stamp, xattrs: Vec::new(), settled: false };
        Ok(Step::Entry(Box::new(entry), item))
    }

    /// The path with which the same file was sent before.
    fn other_name(&mut self, stat: &Stat, path: &[u8]) -> Option<Vec<u8>> {
        if stat.links < 2 || self.spec.dereference {
            return None;
        }
        let file = (stat.device, stat.inode);
        if let Some(known) = self.linked.get(&file) {
            return Some(known.clone());
        }
        if self.linked.len() < MOST_LINKED {
            self.linked.insert(file, path.to_vec());
        }
        None
    }
}
