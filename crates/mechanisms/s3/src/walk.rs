//! Walks the requested objects as a tree.

use crate::glob;
use crate::link::EndError;
use crate::listing::Item;
use crate::listing::Listed;
use crate::posix::Type;
use crate::store::Store;
use futures_util::StreamExt as _;
use postern_files::pattern::{Glob, Rules};
use postern_files::{name, pattern, policy};
use postern_wire::copy::{Kind, Limits, SendSpec, Stamp};
use std::collections::HashSet;
use std::time::SystemTime;
use tokio::sync::mpsc;

/// Maximum number of objects inspected concurrently.
const AT_A_TIME: usize = 16;

/// A step of the walk.
#[derive(Debug)]
pub(crate) enum Step {
    Entry { path: Vec<u8>, kind: Kind, stamp: Stamp, item: Option<Box<Item>> },
    Fault { path: Vec<u8>, message: String },
    DirectoryEnd(Vec<u8>),
    Fatal(String),
    End,
}

/// A source.
enum SourceRoot {
    Object(String),
    /// Everything below a prefix, as a directory with this name, or as the contents of a directory.
    Prefix {
        prefix: String,
        name: String,
    },
}

/// The receiver of the walk is gone.
struct ReceiverGone;

type Walked = Result<(), ReceiverGone>;

pub(crate) struct Walk {
    store: Store,
    roots: Vec<SourceRoot>,
    rules: Rules,
    limits: Limits,
}

impl Walk {
    /// Resolves each source. One that does not exist ends the copy before it begins.
    pub(crate) async fn new(store: &Store, spec: &SendSpec) -> Result<Self, EndError> {
        let SendSpec { root: _, sources, glob, contents, rules, dereference: _, compression: _, limits } =
            spec;
        let rules = postern_files::rules(rules).map_err(EndError::Fatal)?;
        let mut roots = Vec::new();
        for source in sources {
            let key = std::str::from_utf8(source);
            let key = key.map_err(|_| EndError::Fatal("S3 requires names in UTF-8".to_owned()))?;
            // An existing key is taken literally, whatever characters it has.
            if !*glob || !pattern::is_special(source) {
                roots.push(top(store, key, *contents).await?);
                continue;
            }
            if let Some(top) = find(store, key, *contents).await? {
                roots.push(top);
                continue;
            }
            if let Some(plain) = pattern::unquoted(source) {
                roots.push(top(store, &String::from_utf8_lossy(&plain), *contents).await?);
                continue;
            }
            let mut found = matches(store, key, &rules).await?;
            if found.is_empty() {
                return Err(EndError::Fatal(format!("{}: no match", store.show(key))));
            }
            roots.append(&mut found);
        }
        Ok(Self { store: store.clone(), roots, rules, limits: *limits })
    }

    /// The number of sources.
    pub(crate) fn roots(&self) -> u32 {
        u32::try_from(self.roots.len()).unwrap_or(u32::MAX)
    }

    /// Walks as fast as steps are received.
    pub(crate) async fn run(self, steps: mpsc::Sender<Step>) {
        let Self { store, roots, rules, limits } = self;
        let mut tree = Tree { store: &store, steps, rules: &rules, limits, entries: 0, contents: false };
        for top in roots {
            if tree.top(top).await.is_err() {
                return;
            }
        }
        let _ = tree.steps.send(Step::End).await; // the receiver may be gone
    }
}

/// The source with this key, or the keys below it.
async fn top(store: &Store, key: &str, contents: bool) -> Result<SourceRoot, EndError> {
    let none = || {
        let shown = store.show(key.strip_suffix('.').filter(|prefix| prefix.ends_with('/')).unwrap_or(key));
        EndError::Fatal(match shown.ends_with('/') {
            true => format!("there is no object below {shown}"),
            false => format!("there is no object {shown}, and none below it"),
        })
    };
    find(store, key, contents).await?.ok_or_else(none)
}

/// The same; `None` if nothing exists.
async fn find(store: &Store, key: &str, contents: bool) -> Result<Option<SourceRoot>, EndError> {
    // `a/.` means everything below `a/`, even if an object `a` exists.
    let (key, inside) = match key.strip_suffix("/.").map(|rest| &key[..=rest.len()]) {
        Some(prefix) => (prefix, true),
        None if key == "." => ("", true),
        None => (key, contents),
    };
    let whole = key.is_empty() || key.ends_with('/');
    if !whole && store.head(key).await?.is_some() {
        return Ok(Some(SourceRoot::Object(key.to_owned())));
    }
    let prefix = if whole { key.to_owned() } else { format!("{key}/") };
    let page = store.page(&prefix, false, None, Some(1)).await?;
    if page.objects.is_empty() && !prefix.is_empty() {
        return Ok(None);
    }
    let name = match (inside, prefix.strip_suffix('/')) {
        (true, _) => String::new(),
        (false, None) => store.bucket.clone(),
        (false, Some(path)) => last(path).to_owned(),
    };
    Ok(Some(SourceRoot::Prefix { prefix, name }))
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Matches of a wildcard, without excluded ones.
async fn matches(store: &Store, key: &str, rules: &Rules) -> Result<Vec<SourceRoot>, EndError> {
    let glob = Glob::parse(key.as_bytes()).map_err(|error| EndError::Fatal(error.to_string()))?;
    let prefix = glob::literal(&glob);
    let (mut roots, mut next, mut before) = (Vec::new(), None, String::new());
    loop {
        let page = store.page(&prefix, false, next, None).await?;
        for Listed { key, size: _ } in page.objects {
            let Some(depth) = glob::takes(&glob, &key) else { continue };
            let taken = key.split('/').take(depth).collect::<Vec<_>>().join("/");
            if rules.leave_out(glob.below(taken.as_bytes()), taken != key) {
                continue;
            }
            if taken == key {
                roots.push(SourceRoot::Object(key));
            } else if taken != before {
                // All keys below it are adjacent.
                before.clone_from(&taken);
                roots.push(SourceRoot::Prefix { prefix: format!("{taken}/"), name: last(&taken).to_owned() });
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    Ok(roots)
}

/// A directory to list.
struct Directory {
    prefix: String,
    path: Vec<u8>,
}

struct Tree<'a> {
    store: &'a Store,
    steps: mpsc::Sender<Step>,
    rules: &'a Rules,
    limits: Limits,
    entries: u64,
    contents: bool,
}

impl Tree<'_> {
    async fn send(&mut self, step: Step) -> Walked {
        if matches!(step, Step::Entry { .. }) {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return self.fatal(policy::many_found(self.limits.entries)).await;
            }
        }
        self.steps.send(step).await.map_err(|_| ReceiverGone)
    }

    async fn fatal(&mut self, why: String) -> Walked {
        let _ = self.steps.send(Step::Fatal(why)).await; // the receiver may be gone
        Err(ReceiverGone)
    }

    async fn top(&mut self, top: SourceRoot) -> Walked {
        let (key, name) = match &top {
            SourceRoot::Object(key) => (key, last(key)),
            SourceRoot::Prefix { prefix, name } => (prefix, name.as_str()),
        };
        // A component that no file can have, such as `..`.
        let nameless = matches!(top, SourceRoot::Object(_)) && name.is_empty();
        if nameless || name::check(name.as_bytes(), 1).is_err() {
            let message = format!(
                "no file or directory can be named {:?}; to copy everything below a prefix, append /. to it",
                name::show(name.as_bytes())
            );
            let path = key.clone().into_bytes();
            return self.send(Step::Fault { path, message }).await;
        }
        match top {
            SourceRoot::Object(key) => {
                self.contents = false;
                let path = last(&key).as_bytes().to_vec();
                match look(self.store, key, path).await {
                    (_, Ok(step)) => self.send(step).await,
                    (path, Err(message)) => self.send(Step::Fault { path, message }).await,
                }
            }
            SourceRoot::Prefix { prefix, name } => {
                self.contents = name.is_empty();
                let (path, directory) = enter(self.store, prefix, name.into_bytes()).await;
                self.send(directory).await?;
                let mut open = vec![path];
                while let Some(directory) = open.pop() {
                    self.directory(directory, &mut open).await?;
                }
                Ok(())
            }
        }
    }

    /// Lists a directory: all its entries, its end, and only then its subdirectories, as every source does.
    async fn directory(&mut self, directory: Directory, open: &mut Vec<Directory>) -> Walked {
        let store = self.store;
        let Directory { prefix, path } = directory;
        let (first, mut next) = (open.len(), None);
        // A bucket can have an object and a prefix with the same name; a directory cannot.
        let mut files = HashSet::new();
        // An existing entry that cannot be returned must not be treated as removed.
        let mut faulty = false;
        loop {
            let page = match store.page(&prefix, true, next, None).await {
                Ok(page) => page,
                Err(error) => return self.fatal(error.message).await,
            };
            let keys = page.objects.into_iter().map(|object| object.key).filter(|key| *key != prefix);
            let mut wanted = Vec::new();
            for key in keys.chain(page.prefixes) {
                let below = key.strip_prefix(&prefix).unwrap_or_default();
                let (name, directory) = below.strip_suffix('/').map_or((below, false), |name| (name, true));
                let path = name::join(&path, name.as_bytes());
                if name.is_empty() || name.contains('/') || name::check(&path, self.limits.depth).is_err() {
                    let message = "its key is not a valid path".to_owned();
                    faulty = true;
                    self.send(Step::Fault { path: key.into_bytes(), message }).await?;
                } else if directory
                    && files.contains(name)
                    && !self.rules.excludes(name::inner(&path, self.contents), true)
                {
                    let message = format!(
                        "there is an object of this name too, and a directory can contain only one of them; {} copies \
                         everything below the prefix",
                        store.show(&format!("{key}."))
                    );
                    self.send(Step::Fault { path, message }).await?;
                } else if !self.rules.excludes(name::inner(&path, self.contents), directory) {
                    if !directory {
                        files.insert(name.to_owned());
                    }
                    wanted.push((key, path, directory));
                }
            }
            let mut looked = futures_util::stream::iter(wanted)
                .map(|(key, path, directory)| async move {
                    match directory {
                        true => {
                            let (entered, step) = enter(store, key, path.clone()).await;
                            (path, Some(entered), Ok(step))
                        }
                        false => {
                            let (path, looked) = look(store, key, path).await;
                            (path, None, looked)
                        }
                    }
                })
                .buffered(AT_A_TIME);
            while let Some((path, entered, looked)) = looked.next().await {
                match looked {
                    Ok(step) => self.send(step).await?,
                    Err(message) => {
                        faulty = true;
                        self.send(Step::Fault { path, message }).await?;
                    }
                }
                open.extend(entered);
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        open[first..].reverse(); // the last is popped first
        match faulty {
            true => Ok(()),
            false => self.send(Step::DirectoryEnd(path)).await,
        }
    }
}

/// A directory without an object of its own gets the current time and mode 0755.
fn directory(path: Vec<u8>, stamp: Option<Stamp>) -> Step {
    let stamp = stamp.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Stamp {
            mode: 0o755,
            user: 0,
            group: 0,
            seconds: i64::try_from(now.as_secs()).unwrap_or(0),
            nanos: now.subsec_nanos(),
        }
    });
    Step::Entry { path, kind: Kind::Directory, stamp, item: None }
}

/// A directory, with the metadata of its own object if it has one.
async fn enter(store: &Store, prefix: String, path: Vec<u8>) -> (Directory, Step) {
    let own = match prefix.is_empty() {
        true => None,
        false => store.head(&prefix).await.ok().flatten().filter(|found| found.posix.kept),
    };
    let step = directory(path.clone(), own.map(|found| found.posix.stamp));
    (Directory { prefix, path }, step)
}

/// An object with its metadata; the error is for users.
async fn look(store: &Store, key: String, path: Vec<u8>) -> (Vec<u8>, Result<Step, String>) {
    let looked = async {
        let Some(found) = store.head(&key).await.map_err(|error| error.message)? else {
            return Err("it was removed meanwhile".to_owned());
        };
        let stamp = found.posix.stamp;
        let (kind, item) = match found.posix.kind {
            Type::Symlink => (Kind::Symlink(store.read_small(&key, found.size).await?), None),
            Type::File | Type::Directory => {
                (Kind::File(found.size), Some(Box::new(Item { key: key.clone(), found })))
            }
        };
        Ok(Step::Entry { path: path.clone(), kind, stamp, item })
    };
    let looked = looked.await;
    (path, looked)
}
