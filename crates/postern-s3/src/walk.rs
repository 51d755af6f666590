//! The objects that were asked for, as a tree.

use crate::glob;
use crate::link::Ended;
use crate::listing::{Found, Listed};
use crate::place::inner;
use crate::posix::Type;
use crate::source::Item;
use crate::store::Store;
use futures_util::StreamExt as _;
use postern_files::pattern::{Glob, Rules};
use postern_files::{name, pattern};
use postern_wire::copy::{Kind, Limits, SendSpec, Stamp};
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

/// What one word of the command line came to.
enum Top {
    Object { key: String, found: Found },
    /// All below a prefix, as a directory of this name, or as what a directory holds.
    Prefix { prefix: String, name: String },
    /// All that a wildcard takes; `prefix` is what precedes the first one.
    Glob { prefix: String, glob: Glob },
}

/// Nobody is there to walk for.
struct Unheard;

type Heard = Result<(), Unheard>;

pub(crate) struct Walk {
    store: Store,
    tops: Vec<Top>,
    count: u32,
    rules: Rules,
    limits: Limits,
}

impl Walk {
    /// Finds out what each word stands for. One that stands for nothing ends the copy before it begins.
    pub(crate) async fn new(store: &Store, spec: &SendSpec) -> Result<Self, Ended> {
        let SendSpec { root: _, sources, glob, contents, rules, dereference: _, compression: _, limits } = spec;
        let rules = postern_files::rules(rules).map_err(Ended::Fatal)?;
        let (mut tops, mut count) = (Vec::new(), 0);
        for source in sources {
            let key = std::str::from_utf8(source);
            let key = key.map_err(|_| Ended::Fatal("S3 has names in UTF-8 only".to_owned()))?;
            let (top, many) = top(store, key, *glob, *contents).await?;
            tops.push(top);
            count += many;
        }
        Ok(Self { store: store.clone(), tops, count, rules, limits: *limits })
    }

    /// How many things were asked for; what a wildcard takes counts up to two.
    pub(crate) fn tops(&self) -> u32 {
        self.count
    }

    /// Walks, as fast as the steps are taken.
    pub(crate) async fn run(self, steps: mpsc::Sender<Step>) {
        let Self { store, tops, count: _, rules, limits } = self;
        let mut tree =
            Tree { steps, rules: &rules, limits, entries: 0, contents: false, open: Vec::new() };
        for top in tops {
            if tree.top(&store, top).await.is_err() {
                return;
            }
        }
        let _ = tree.steps.send(Step::End).await; // nobody is there any more
    }
}

async fn top(store: &Store, key: &str, glob: bool, contents: bool) -> Result<(Top, u32), Ended> {
    if glob && pattern::is_glob(key.as_bytes()) {
        // An object that really has such a name is taken by it.
        if let Some(found) = store.head(key).await.ok().flatten() {
            return Ok((Top::Object { key: key.to_owned(), found }, 1));
        }
        let glob = Glob::parse(key.as_bytes()).map_err(|error| Ended::Fatal(error.to_string()))?;
        let prefix = glob::literal(&glob);
        let count = matches(store, &prefix, &glob).await?;
        if count == 0 {
            return Err(Ended::Fatal(format!("{}: no match", store.show(key))));
        }
        return Ok((Top::Glob { prefix, glob }, count));
    }
    let (whole, inside) = match key.strip_suffix("/.").or((key == ".").then_some("")) {
        Some(rest) => (rest, true),
        None => (key, contents),
    };
    let trimmed = whole.trim_end_matches('/');
    if !trimmed.is_empty() && trimmed.len() == whole.len() && let Some(found) = store.head(trimmed).await? {
        return Ok((Top::Object { key: trimmed.to_owned(), found }, 1));
    }
    let prefix = if trimmed.is_empty() { String::new() } else { format!("{trimmed}/") };
    let page = store.page(&prefix, false, None, Some(1)).await?;
    if page.objects.is_empty() && !prefix.is_empty() {
        return Err(Ended::Fatal(format!("there is no object {}, and none below it", store.show(trimmed))));
    }
    let name = match (inside, trimmed) {
        (true, _) => String::new(),
        (false, "") => store.bucket.clone(),
        (false, path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
    };
    Ok((Top::Prefix { prefix, name }, 1))
}

/// How many things a wildcard takes, counted up to two.
async fn matches(store: &Store, prefix: &str, glob: &Glob) -> Result<u32, Ended> {
    let (mut first, mut next) = (None::<String>, None);
    loop {
        let page = store.page(prefix, false, next, None).await?;
        for object in page.objects {
            let Some(depth) = glob::takes(glob, &object.key) else { continue };
            let taken: Vec<&str> = object.key.split('/').take(depth).collect();
            let taken = taken.join("/");
            match &first {
                Some(first) if *first != taken => return Ok(2),
                Some(_) => {}
                None => first = Some(taken),
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok(u32::from(first.is_some()));
        }
    }
}

/// The tree that sorted keys are.
struct Tree<'a> {
    steps: mpsc::Sender<Step>,
    rules: &'a Rules,
    limits: Limits,
    entries: u64,
    contents: bool,
    /// The directories that the last object was in, outermost first.
    open: Vec<String>,
}

impl Tree<'_> {
    async fn say(&mut self, step: Step) -> Heard {
        if matches!(step, Step::Entry { .. }) {
            self.entries += 1;
            if self.entries > self.limits.entries {
                let limit = self.limits.entries;
                let why = format!("there are more than {limit} entries; raise the limit with --max-entries");
                let _ = self.steps.send(Step::Fatal(why)).await; // nobody is there any more
                return Err(Unheard);
            }
        }
        self.steps.send(step).await.map_err(|_| Unheard)
    }

    async fn top(&mut self, store: &Store, top: Top) -> Heard {
        let (prefix, name, glob) = match top {
            Top::Object { key, found } => {
                let name = key.rsplit('/').next().unwrap_or(&key).to_owned();
                self.contents = false;
                return match looked(store, key, found).await {
                    Ok(looked) => self.object(vec![name], looked).await,
                    Err(message) => self.say(Step::Fault { path: name.into_bytes(), message }).await,
                };
            }
            Top::Prefix { prefix, name } => (prefix, name, None),
            Top::Glob { prefix, glob } => (prefix, String::new(), Some(glob)),
        };
        self.contents = glob.is_none() && name.is_empty();
        if self.contents {
            self.say(directory(Vec::new(), None)).await?;
        }
        let mut next = None;
        loop {
            let page = match store.page(&prefix, false, next, None).await {
                Ok(page) => page,
                Err(trouble) => return self.say(Step::Fatal(trouble.message)).await.and(Err(Unheard)),
            };
            let wanted = page.objects.into_iter().filter_map(|object| {
                let path = path(&object, &prefix, &name, glob.as_ref())?;
                (!self.excluded(&path, object.key.ends_with('/'))).then_some((path, object))
            });
            let wanted: Vec<_> = wanted.collect();
            let mut looked = futures_util::stream::iter(wanted)
                .map(|(path, object)| async move { (path, look(store, object).await) })
                .buffered(AT_A_TIME);
            while let Some((path, looked)) = looked.next().await {
                match looked {
                    Ok(Some(looked)) => self.object(path, looked).await?,
                    Ok(None) => {} // removed since it was listed
                    Err(message) => {
                        self.say(Step::Fault { path: path.join("/").into_bytes(), message }).await?;
                    }
                }
            }
            drop(looked);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        self.close(0).await?;
        if self.contents { self.say(Step::DirectoryEnd(Vec::new())).await } else { Ok(()) }
    }

    /// Whether rules leave a path out, or a directory that it is in.
    fn excluded(&self, path: &[String], directory: bool) -> bool {
        (1..=path.len()).any(|depth| {
            let joined = path[..depth].join("/");
            let inner = inner(joined.as_bytes(), self.contents);
            !inner.is_empty() && self.rules.excludes(inner, directory || depth < path.len())
        })
    }

    async fn object(&mut self, path: Vec<String>, looked: Looked) -> Heard {
        let joined = path.join("/").into_bytes();
        if let Err(error) = name::check(&joined, self.limits.depth) {
            let message = format!("its key is no path of a file: {error}");
            return self.say(Step::Fault { path: joined, message }).await;
        }
        let Looked { kind, item } = looked;
        let stamp = item.found.posix.stamp;
        if kind == Kind::Directory {
            return self.enter(&path, Some(stamp)).await;
        }
        self.enter(&path[..path.len() - 1], None).await?;
        let item = matches!(kind, Kind::File(_)).then(|| Box::new(item));
        self.say(Step::Entry { path: joined, kind, stamp, item }).await
    }

    /// Leaves the directories that this one is not in, and enters those that it is.
    async fn enter(&mut self, path: &[String], stamp: Option<Stamp>) -> Heard {
        let common = self.open.iter().zip(path).take_while(|(one, other)| one == other).count();
        self.close(common).await?;
        for depth in common..path.len() {
            self.open.push(path[depth].clone());
            let own = stamp.filter(|_| depth + 1 == path.len());
            self.say(directory(self.open.join("/").into_bytes(), own)).await?;
        }
        Ok(())
    }

    async fn close(&mut self, depth: usize) -> Heard {
        while self.open.len() > depth {
            let path = self.open.join("/").into_bytes();
            self.open.pop();
            self.say(Step::DirectoryEnd(path)).await?;
        }
        Ok(())
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

/// The components of the path that an object gets; nothing where it is not asked for.
fn path(object: &Listed, prefix: &str, name: &str, glob: Option<&Glob>) -> Option<Vec<String>> {
    let key = object.key.strip_suffix('/').unwrap_or(&object.key);
    let components: Vec<String> = match glob {
        Some(glob) => {
            let depth = glob::takes(glob, &object.key)?;
            key.split('/').skip(depth - 1).map(str::to_owned).collect()
        }
        None => {
            // The directory's own object is shorter than its prefix without the slash at its end.
            let rest = object.key.strip_prefix(prefix)?;
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            let below = rest.split('/').filter(|_| !rest.is_empty());
            Some(name).filter(|name| !name.is_empty()).into_iter().chain(below).map(str::to_owned).collect()
        }
    };
    // A directory whose content was asked for.
    (!components.is_empty()).then_some(components)
}

/// An object that was looked at.
struct Looked {
    kind: Kind,
    item: Item,
}

async fn look(store: &Store, object: Listed) -> Result<Option<Looked>, String> {
    match store.head(&object.key).await {
        Ok(Some(found)) => looked(store, object.key, found).await.map(Some),
        Ok(None) => Ok(None),
        Err(trouble) => Err(trouble.message),
    }
}

async fn looked(store: &Store, key: String, found: Found) -> Result<Looked, String> {
    let kind = match found.posix.kind {
        Type::Directory if key.ends_with('/') => Kind::Directory,
        _ if key.ends_with('/') && found.size == 0 => Kind::Directory,
        Type::Symlink => Kind::Symlink(store.small(&key, found.size).await?),
        Type::File | Type::Directory => Kind::File(found.size),
    };
    Ok(Looked { kind, item: Item { key, found } })
}
