//! What was asked for, entry by entry, as lists of directories come.

use super::roots::Top;
use crate::Trouble;
use crate::listing::{Stat, Type, entries};
use crate::quoting::{assign_path, cause};
use crate::session::{Lost, Session};
use postern_files::pattern::Rules;
use postern_files::{name, verdict};
use postern_wire::copy::{Entry, Kind, SendSpec};
use std::collections::{HashMap, VecDeque};

/// Files with several names that are remembered; what comes after is sent as files of their own.
const MOST_LINKED: usize = 200_000;

/// A file that was announced.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Its path in the container.
    pub(super) real: Vec<u8>,
    pub(super) stat: Stat,
}

pub(super) enum Step {
    Entry(Box<Entry>, Option<Item>),
    Fault(Vec<u8>, String),
    DirectoryEnd(Vec<u8>),
    End,
}

/// A directory that is to be listed.
struct Place {
    real: Vec<u8>,
    path: Vec<u8>,
    contents: bool,
    /// The directories on the way here, where symlinks are followed and may lead back.
    above: Vec<(u64, u64)>,
}

/// What of a directory is to be told yet.
type Rest = std::vec::IntoIter<(Vec<u8>, Stat)>;

pub(super) struct Walk {
    tops: VecDeque<Top>,
    rules: Rules,
    spec: SendSpec,
    next_id: u32,
    linked: HashMap<(u64, u64), Vec<u8>>,
    waiting: Vec<Place>,
    /// What is left of the directory that was listed last, and whether something in it could not be told.
    listed: Option<(Place, Rest, bool)>,
}

impl Walk {
    pub(super) fn new(spec: &SendSpec, tops: Vec<Top>) -> Result<Self, Trouble> {
        Ok(Self {
            tops: tops.into(),
            rules: postern_files::rules(&spec.rules).map_err(Trouble::Fatal)?,
            spec: spec.clone(),
            next_id: 0,
            linked: HashMap::new(),
            waiting: Vec::new(),
            listed: None,
        })
    }

    pub(super) async fn next(&mut self, session: &mut Session) -> Result<Step, Trouble> {
        loop {
            if let Some((place, mut rest, mut faulty)) = self.listed.take() {
                let Some((component, stat)) = rest.next() else {
                    if faulty {
                        continue;
                    }
                    return Ok(Step::DirectoryEnd(place.path));
                };
                let step = self.one(session, &place, &component, stat).await?;
                // What is there and cannot be told must not be taken for gone.
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
            let Some(Top { real, name, stat, .. }) = self.tops.pop_front() else { return Ok(Step::End) };
            let directory = stat.kind() == Type::Directory;
            if name.is_empty() && !directory {
                return Err(Trouble::Fatal(format!("{} is no directory", name::show(&real))));
            }
            let contents = directory && (self.spec.contents || name.is_empty());
            let path = if contents { Vec::new() } else { name };
            return self.tell(session, Place { real, path, contents, above: Vec::new() }, stat).await;
        }
    }

    /// An entry of a directory; nothing where it is left out.
    async fn one(
        &mut self,
        session: &mut Session,
        place: &Place,
        component: &[u8],
        mut stat: Stat,
    ) -> Result<Option<Step>, Trouble> {
        if name::is_partial(component) {
            return Ok(None);
        }
        let path = name::join(&place.path, component);
        let real = name::join(&place.real, component);
        if self.spec.dereference && stat.kind() == Type::Symlink {
            match look(session, &real, true).await? {
                Ok(found) => stat = found,
                Err(why) => return Ok(Some(Step::Fault(path, cause(&why)))),
            }
        }
        let directory = stat.kind() == Type::Directory;
        if self.rules.excludes(name::inner(&path, place.contents), directory) {
            return Ok(None);
        }
        let place = Place { real, path, contents: place.contents, above: place.above.clone() };
        self.tell(session, place, stat).await.map(Some)
    }

    async fn tell(&mut self, session: &mut Session, place: Place, stat: Stat) -> Result<Step, Trouble> {
        let Place { real, path, contents, mut above } = place;
        if let Err(error) = name::check(&path, self.spec.limits.depth) {
            return Ok(Step::Fault(path, error.to_string()));
        }
        if u64::from(self.next_id) >= self.spec.limits.entries {
            return Err(Trouble::Fatal(verdict::many_found(self.spec.limits.entries)));
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
                    let why = "a symlink leads back to a directory that holds it".to_owned();
                    return Ok(Step::Fault(path, why));
                }
                if self.spec.dereference {
                    above.push(own);
                }
                self.waiting.push(Place { real, path: path.clone(), contents, above });
                Kind::Directory
            }
            Type::Symlink => match link(session, &real, "-n").await? {
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

    /// The path that the same file came by before.
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

/// What a directory in the container holds, or why it cannot be listed.
pub(crate) async fn list(
    session: &mut Session,
    directory: &[u8],
) -> Result<Result<Vec<(Vec<u8>, Stat)>, String>, Lost> {
    let mut line = Vec::new();
    // With a slash at its end it is entered where it is a symlink, as one that was typed may be.
    let slash: &[u8] = if directory.is_empty() || directory.ends_with(b"/") { b"" } else { b"/" };
    assign_path(&mut line, 'a', &[directory, slash].concat());
    line.extend_from_slice(b"list\n");
    session.say(&line);
    Ok(match session.whole().await? {
        Ok(text) => {
            entries(&text, &session.mark).ok_or_else(|| "what stat says of it cannot be read".to_owned())
        }
        Err(why) => Err(cause(&why)),
    })
}

/// What is at a path, or what it leads to.
pub(crate) async fn look(
    session: &mut Session,
    path: &[u8],
    follow: bool,
) -> Result<Result<Stat, Vec<u8>>, Lost> {
    let mut line = Vec::new();
    assign_path(&mut line, 'a', path);
    line.extend_from_slice(if follow { b"look -L\n" } else { b"look\n" });
    Ok(match session.ask(&line).await? {
        Ok(text) => Stat::parse(&text).ok_or_else(|| b"what stat says of it cannot be read".to_vec()),
        Err(why) => Err(why.to_vec()),
    })
}

/// Where a symlink points (`-n`), or leads in the end (`-nf`).
pub(crate) async fn link(
    session: &mut Session,
    path: &[u8],
    how: &str,
) -> Result<Result<Vec<u8>, String>, Lost> {
    let mut line = Vec::new();
    assign_path(&mut line, 'a', path);
    line.extend_from_slice(format!("link {how}\n").as_bytes());
    session.say(&line);
    Ok(session.whole().await?.map_err(|why| cause(&why)))
}
