//! Plans the copies from the paths on the command line, one for each pair of ends.

use crate::cli::copy::How;
use crate::failure::Failure;
use postern_copy::endpoint::{Endpoint, PodPath, of_pod};
use postern_exec::ExecError;
use postern_exec::fanout::Job;
use postern_exec::target::{self, Containers, Target};
use postern_kube::Cluster;
use postern_s3::Location;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// One side of a copy.
#[derive(Debug)]
pub(super) enum Side {
    Local(Vec<Vec<u8>>),
    Stream,
    Pods(Vec<PodPath>),
    S3(Vec<Location>),
}

/// A resolved end.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Local,
    Stream,
    Pod(target::Place),
    /// A bucket.
    S3(String),
}

/// One copy.
#[derive(Debug)]
pub(super) struct Plan {
    /// The pod's name, if there are several.
    pub(super) name: Option<String>,
    pub(super) source: Place,
    pub(super) sources: Vec<Vec<u8>>,
    pub(super) destination: Place,
    pub(super) target: Vec<u8>,
    /// Whether the destination must be a directory, because several copies write to it.
    pub(super) directory: bool,
}

impl Side {
    pub(super) fn parse(words: &[OsString]) -> Result<Self, Failure> {
        let (mut local, mut stream, mut pods, mut objects) = (Vec::new(), 0, Vec::new(), Vec::new());
        for word in words {
            match Endpoint::parse(word).map_err(|why| Failure::usage(why, None))? {
                Endpoint::Local(path) => local.push(path),
                Endpoint::Stream => stream += 1,
                Endpoint::Pod(path) => pods.push(path),
                Endpoint::S3(location) => objects.push(location),
            }
        }
        match (local.is_empty(), stream, pods.is_empty(), objects.is_empty()) {
            (false, 0, true, true) => Ok(Self::Local(local)),
            (true, 1, true, true) => Ok(Self::Stream),
            (true, 0, false, true) => Ok(Self::Pods(pods)),
            (true, 0, true, false) => Ok(Self::S3(objects)),
            _ => Err(Failure::usage(
                "the sources are of several kinds",
                Some("copy local files, pods' files, objects and stdin one after the other".to_owned()),
            )),
        }
    }

    pub(super) fn in_pods(&self) -> bool {
        matches!(self, Self::Pods(_))
    }

    pub(super) fn in_s3(&self) -> bool {
        matches!(self, Self::S3(_))
    }

    fn selected(&self) -> bool {
        matches!(self, Self::Pods(paths) if paths.iter().any(|path| path.target.is_none()))
    }
}

/// If a pod is not found, a local file with a colon in its name may be meant: the hint says how to write it.
pub(super) fn local<'w>(failure: Failure, words: impl IntoIterator<Item = &'w OsString>) -> Failure {
    let is_pod = |word: &&OsString| matches!(Endpoint::parse(word), Ok(Endpoint::Pod(_)));
    let meant = words.into_iter().filter(is_pod).find(|word| Path::new(word).symlink_metadata().is_ok());
    match meant {
        Some(word) => {
            let word = postern_files::name::show(word.as_bytes()).into_owned();
            Failure {
                hint: Some(format!("there is a local file of that name: write ./{word} for it")),
                ..failure
            }
        }
        None => failure,
    }
}

/// Checks that need no request to the cluster.
pub(super) fn check(from: &Side, to: &Side, how: &How) -> Result<(), Failure> {
    check_one(from, how).or_else(|failure| if to.selected() { Ok(()) } else { Err(failure) })?;
    if (from.selected() || to.selected()) && how.selector.is_none() {
        let hint = "name the pod, or pick pods by -l".to_owned();
        return Err(Failure::usage(":PATH names no pod", Some(hint)));
    }
    if from.selected() && to.selected() {
        return Err(Failure::usage("-l picks the pods of one side, not of both", None));
    }
    Ok(())
}

/// The same for one side.
pub(super) fn check_one(side: &Side, how: &How) -> Result<(), Failure> {
    if how.selector.is_some() && !side.selected() {
        let hint = "write the path in the pods that -l picks as :PATH".to_owned();
        return Err(Failure::usage("-l picks pods, and no path is in them", Some(hint)));
    }
    Ok(())
}

/// Every end of a side: the pod's name if labels picked it, the place, and the path.
pub(super) async fn places(
    cluster: Option<&Cluster>,
    side: &Side,
    how: &How,
) -> Result<Vec<(Option<String>, Place, Vec<u8>)>, Failure> {
    let (paths, cluster) = match (side, cluster) {
        (Side::Local(paths), _) => {
            return Ok(paths.iter().map(|path| (None, Place::Local, path.clone())).collect());
        }
        (Side::S3(locations), _) => {
            let place = |Location { bucket, key }: &Location| {
                (None, Place::S3(bucket.clone()), key.clone().into_bytes())
            };
            return Ok(locations.iter().map(place).collect());
        }
        (Side::Stream, _) => return Ok(vec![(None, Place::Stream, b"-".to_vec())]),
        (Side::Pods(paths), Some(cluster)) => (paths, cluster),
        (Side::Pods(_), None) => return Err(Failure::usage("a pod without a cluster", None)),
    };
    let mut found = Vec::new();
    for PodPath { namespace, target, path } in paths {
        let namespace = namespace.as_ref().or(how.namespace.as_ref()).unwrap_or(&cluster.namespace);
        let container = how.container.as_deref();
        match target {
            Some(target) => {
                let target = Target::parse(target).map_err(|why| Failure::usage(why, None))?;
                let place = target::find(cluster, namespace, &target, container).await?;
                found.push((None, Place::Pod(place), path.clone()));
            }
            None => {
                let selector = Target::Selector(how.selector.clone().unwrap_or_default());
                let containers = container.map_or(Containers::Default, Containers::Named);
                let picked = target::find_all(cluster, namespace, &[selector], true, containers).await?;
                for Job { name, what } in picked {
                    let place = what.map_err(|why| ExecError::Target(format!("{name}: {why}")))?;
                    found.push((Some(place.pod.clone()), Place::Pod(place), path.clone()));
                }
            }
        }
    }
    Ok(found)
}

/// The copies between two sides.
pub(super) async fn plans(
    cluster: Option<&Cluster>,
    from: &Side,
    to: &Side,
    how: &How,
) -> Result<Vec<Plan>, Failure> {
    let targets = places(cluster, to, how).await?;
    // Several paths of one place are one copy.
    let mut sources: Vec<Origin> = Vec::new();
    for (name, place, path) in places(cluster, from, how).await? {
        match sources.iter_mut().find(|(_, known, _)| same(known, &place)) {
            Some((_, _, paths)) => paths.push(path),
            None => sources.push((name, place, vec![path])),
        }
    }
    let several = sources.len() > 1;
    if several {
        apart(&sources)?;
    }
    let streams = matches!(from, Side::Stream) || matches!(to, Side::Stream);
    if streams && sources.len() * targets.len() > 1 {
        return Err(Failure::usage("stdin and stdout are for one pod at a time", None));
    }
    let mut plans = Vec::new();
    for (from_name, source, paths) in &sources {
        for (to_name, destination, target) in &targets {
            let named = from_name.as_deref().map(|pod| of_pod(target, pod));
            let own = named.as_ref().is_some_and(|named| named != target);
            if several && !own && from_name.is_some() {
                let hint = "put {pod} into DST, such as logs-{pod}".to_owned();
                return Err(Failure::usage("all pods would write to the same DST", Some(hint)));
            }
            plans.push(Plan {
                name: from_name.clone().or_else(|| to_name.clone()),
                source: source.clone(),
                sources: paths.clone(),
                destination: destination.clone(),
                target: named.unwrap_or_else(|| target.clone()),
                directory: several && !own,
            });
        }
    }
    Ok(plans)
}

/// A source: the pod's name if labels picked it, the place, and the paths in it.
type Origin = (Option<String>, Place, Vec<Vec<u8>>);

/// Several sources that write to one directory must send different names.
fn apart(sources: &[Origin]) -> Result<(), Failure> {
    let mut names = std::collections::BTreeSet::new();
    let paths = sources.iter().filter(|(name, _, _)| name.is_none()).flat_map(|(_, _, paths)| paths);
    for path in paths {
        let shown = postern_files::name::show(path);
        if postern_files::pattern::is_glob(path) {
            let why = format!("{shown}: a wildcard in one of several pods may match what another one sends");
            return Err(Failure::usage(
                why,
                Some("copy from one pod after the other, into directories of their own".to_owned()),
            ));
        }
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        if !names.insert(postern_files::name::split(trimmed).1.to_vec()) {
            let why = format!("{shown}: another source has the same name, and one would replace the other");
            return Err(Failure::usage(why, Some("copy them into directories of their own".to_owned())));
        }
    }
    Ok(())
}

pub(super) fn same(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Local, Place::Local) | (Place::Stream, Place::Stream) => true,
        (Place::Pod(one), Place::Pod(other)) => one == other,
        (Place::S3(one), Place::S3(other)) => one == other,
        _ => false,
    }
}
