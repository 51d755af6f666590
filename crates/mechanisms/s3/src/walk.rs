//! The objects that were asked for, as a tree.

use crate::glob;
use crate::link::Ended;
use crate::listing::Listed;
use crate::posix::Type;
use crate::source::Item;
use crate::store::Store;
use futures_util::StreamExt as _;
use postern_files::pattern::{Glob, Rules};
use postern_files::{name, pattern, verdict};
use postern_wire::copy::{Kind, Limits, SendSpec, Stamp};
use std::collections::HashSet;
use std::time::SystemTime;
use tokio::sync::mpsc;

/// Objects that are looked at at a time.
const AT_A_TIME: usize = 16;

/// What the walk comes to next.
#[derive(Debug)]
pub(crate) enum Step {
    Entry { path: Vec<u8>, kind: Kind, stamp: Stamp, item: Option<Box<Item>> },
    Fault { path: Vec<u8>, message: String },
    DirectoryEnd(Vec<u8>),
    Fatal(String),
    End,
}

/// What was asked for.
enum Top {
    Object(String),
    /// All below a prefix, as a directory of this name, or as what a directory holds.
    Prefix {
        prefix: String,
        name: String,
    },
}

/// Nobody is there to walk for.
struct Unheard;

type Heard = Result<(), Unheard>;

pub(crate) struct Walk {
    store: Store,
    tops: Vec<Top>,
    rules: Rules,
    limits: Limits,
}

impl Walk {
    /// Finds out what each word stands for. One that stands for nothing ends the copy before it begins.
    pub(crate) async fn new(store: &Store, spec: &SendSpec) -> Result<Self, Ended> {
        let SendSpec { root: _, sources, glob, contents, rules, dereference: _, compression: _, limits } =
            spec;
        let rules = postern_files::rules(rules).map_err(Ended::Fatal)?;
        let mut tops = Vec::new();
        for source in sources {
            let key = std::str::from_utf8(source);
            let key = key.map_err(|_| Ended::Fatal("S3 has names in UTF-8 only".to_owned()))?;
            // What is called just so is meant, whatever characters its name has.
            if !*glob || !pattern::is_special(source) {
                tops.push(top(store, key, *contents).await?);
                continue;
            }
            if let Some(top) = find(store, key, *contents).await? {
                tops.push(top);
                continue;
            }
            if let Some(plain) = pattern::unquoted(source) {
                tops.push(top(store, &String::from_utf8_lossy(&plain), *contents).await?);
                continue;
            }
            let mut found = matches(store, key, &rules).await?;
            if found.is_empty() {
                return Err(Ended::Fatal(format!("{}: no match", store.show(key))));
            }
            tops.append(&mut found);
        }
        Ok(Self { store: store.clone(), tops, rules, limits: *limits })
    }

    /// How many things were asked for.
    pub(crate) fn tops(&self) -> u32 {
        u32::try_from(self.tops.len()).unwrap_or(u32::MAX)
    }

    /// Walks, as fast as the steps are taken.
    pub(crate) async fn run(self, steps: mpsc::Sender<Step>) {
        let Self { store, tops, rules, limits } = self;
        let mut tree = Tree { store: &store, steps, rules: &rules, limits, entries: 0, contents: false };
        for top in tops {
            if tree.top(top).await.is_err() {
                return;
            }
        }
        let _ = tree.steps.send(Step::End).await; // nobody is there any more
    }
}

/// What has this key, or lies below it.
async fn top(store: &Store, key: &str, contents: bool) -> Result<Top, Ended> {
    let none = || {
        let shown = store.show(key.strip_suffix('.').filter(|prefix| prefix.ends_with('/')).unwrap_or(key));
        Ended::Fatal(match shown.ends_with('/') {
            true => format!("there is no object below {shown}"),
            false => format!("there is no object {shown}, and none below it"),
        })
    };
    find(store, key, contents).await?.ok_or_else(none)
}

/// The same, if there is anything.
async fn find(store: &Store, key: &str, contents: bool) -> Result<Option<Top>, Ended> {
    // `a/.` is what lies below `a/`, though there be an object `a`.
    let (key, inside) = match key.strip_suffix("/.").map(|rest| &key[..=rest.len()]) {
        Some(prefix) => (prefix, true),
        None if key == "." => ("", true),
        None => (key, contents),
    };
    let whole = key.is_empty() || key.ends_with('/');
    if !whole && store.head(key).await?.is_some() {
        return Ok(Some(Top::Object(key.to_owned())));
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
    Ok(Some(Top::Prefix { prefix, name }))
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What a wildcard takes, but for what is left out.
async fn matches(store: &Store, key: &str, rules: &Rules) -> Result<Vec<Top>, Ended> {
    let glob = Glob::parse(key.as_bytes()).map_err(|error| Ended::Fatal(error.to_string()))?;
    let prefix = glob::literal(&glob);
    let (mut tops, mut next, mut before) = (Vec::new(), None, String::new());
    loop {
        let page = store.page(&prefix, false, next, None).await?;
        for Listed { key, size: _ } in page.objects {
            let Some(depth) = glob::takes(&glob, &key) else { continue };
            let taken = key.split('/').take(depth).collect::<Vec<_>>().join("/");
            if rules.leave_out(glob.below(taken.as_bytes()), taken != key) {
                continue;
            }
            if taken == key {
                tops.push(Top::Object(key));
            } else if taken != before {
                // All below it follow one another.
                before.clone_from(&taken);
                tops.push(Top::Prefix { prefix: format!("{taken}/"), name: last(&taken).to_owned() });
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    Ok(tops)
}

/// A directory that is to be listed.
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
    async fn say(&mut self, step: Step) -> Heard {
        if matches!(step, Step::Entry { .. }) {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return self.fatal(verdict::many_found(self.limits.entries)).await;
            }
        }
        self.steps.send(step).await.map_err(|_| Unheard)
    }

    async fn fatal(&mut self, why: String) -> Heard {
        let _ = self.steps.send(Step::Fatal(why)).await; // nobody is there any more
        Err(Unheard)
    }

    async fn top(&mut self, top: Top) -> Heard {
        let (key, name) = match &top {
            Top::Object(key) => (key, last(key)),
            Top::Prefix { prefix, name } => (prefix, name.as_str()),
        };
        // A component that no file can have, such as `..`.
        let nameless = matches!(top, Top::Object(_)) && name.is_empty();
        if nameless || name::check(name.as_bytes(), 1).is_err() {
            let message = format!(
                "no file or directory can be called {:?}; copy what lies below a prefix by its name with /. at the end",
                name::show(name.as_bytes())
            );
            let path = key.clone().into_bytes();
            return self.say(Step::Fault { path, message }).await;
        }
        match top {
            Top::Object(key) => {
                self.contents = false;
                let path = last(&key).as_bytes().to_vec();
                match look(self.store, key, path).await {
                    (_, Ok(step)) => self.say(step).await,
                    (path, Err(message)) => self.say(Step::Fault { path, message }).await,
                }
            }
            Top::Prefix { prefix, name } => {
                self.contents = name.is_empty();
                let (path, directory) = enter(self.store, prefix, name.into_bytes()).await;
                self.say(directory).await?;
                let mut open = vec![path];
                while let Some(directory) = open.pop() {
                    self.directory(directory, &mut open).await?;
                }
                Ok(())
            }
        }
    }

    /// Lists a directory: all that it has, its end, and only then what its directories have, as every source does.
    async fn directory(&mut self, directory: Directory, open: &mut Vec<Directory>) -> Heard {
        let store = self.store;
        let Directory { prefix, path } = directory;
        let (first, mut next) = (open.len(), None);
        // A directory can have a file or a directory of one name, and a bucket both.
        let mut files = HashSet::new();
        // What is there and cannot be told must not be taken for gone.
        let mut faulty = false;
        loop {
            let page = match store.page(&prefix, true, next, None).await {
                Ok(page) => page,
                Err(trouble) => return self.fatal(trouble.message).await,
            };
            let keys = page.objects.into_iter().map(|object| object.key).filter(|key| *key != prefix);
            let mut wanted = Vec::new();
            for key in keys.chain(page.prefixes) {
                let below = key.strip_prefix(&prefix).unwrap_or_default();
                let (name, directory) = below.strip_suffix('/').map_or((below, false), |name| (name, true));
                let path = name::join(&path, name.as_bytes());
                if name.is_empty() || name.contains('/') || name::check(&path, self.limits.depth).is_err() {
                    let message = "its key is no path of a file".to_owned();
                    faulty = true;
                    self.say(Step::Fault { path: key.into_bytes(), message }).await?;
                } else if directory
                    && files.contains(name)
                    && !self.rules.excludes(name::inner(&path, self.contents), true)
                {
                    let message = format!(
                        "there is an object of this name too, and a directory has room for one of them; {} copies what lies \
                         below it",
                        store.show(&format!("{key}."))
                    );
                    self.say(Step::Fault { path, message }).await?;
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
                    Ok(step) => self.say(step).await?,
                    Err(message) => {
                        faulty = true;
                        self.say(Step::Fault { path, message }).await?;
                    }
                }
                open.extend(entered);
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        open[first..].reverse(); // the last is taken first
        match faulty {
            true => Ok(()),
            false => self.say(Step::DirectoryEnd(path)).await,
        }
    }
}

/// A directory that has no object of its own is of now, and open to all.
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

/// A directory, with what its own object says of it, if it has one.
async fn enter(store: &Store, prefix: String, path: Vec<u8>) -> (Directory, Step) {
    let own = match prefix.is_empty() {
        true => None,
        false => store.head(&prefix).await.ok().flatten().filter(|found| found.posix.kept),
    };
    let step = directory(path.clone(), own.map(|found| found.posix.stamp));
    (Directory { prefix, path }, step)
}

/// An object, by its metadata; the error is for people.
async fn look(store: &Store, key: String, path: Vec<u8>) -> (Vec<u8>, Result<Step, String>) {
    let looked = async {
        let Some(found) = store.head(&key).await.map_err(|trouble| trouble.message)? else {
            return Err("it was removed meanwhile".to_owned());
        };
        let stamp = found.posix.stamp;
        let (kind, item) = match found.posix.kind {
            Type::Symlink => (Kind::Symlink(store.small(&key, found.size).await?), None),
            Type::File | Type::Directory => {
                (Kind::File(found.size), Some(Box::new(Item { key: key.clone(), found })))
            }
        };
        Ok(Step::Entry { path: path.clone(), kind, stamp, item })
    };
    let looked = looked.await;
    (path, looked)
}
