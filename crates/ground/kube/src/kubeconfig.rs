//! Reads and merges kubeconfigs as client-go does.

use crate::error::{KubeError, Reason};
use crate::kubeconfig_fields;
use kube::config::Kubeconfig;
use postern_net::error::chain;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Reads the named file, or the files in `$KUBECONFIG`, or else `~/.kube/config`. Also returns what was attempted.
pub(crate) fn read(named: Option<&Path>) -> (String, Result<Kubeconfig, KubeError>) {
    match named {
        Some(path) => (attempt(path), read_file(path)),
        None => read_listed(std::env::var_os("KUBECONFIG").as_deref()),
    }
}

fn attempt(path: &Path) -> String {
    format!("reading the kubeconfig {}", path.display())
}

/// Reads one file, and removes fields that are `""`: the first of several files to set a field has precedence, and
/// `""` sets none.
fn read_file(path: &Path) -> Result<Kubeconfig, KubeError> {
    let mut read = Kubeconfig::read_from(path)
        .map_err(|error| KubeError::new(attempt(path), Reason::Kubeconfig(chain(&error))))?;
    // The library has turned `""` into the directory of the file.
    let nothing = path.parent().map(|folder| folder.join("").to_string_lossy().into_owned());
    kubeconfig_fields::normalize(&mut read, nothing.as_deref().unwrap_or_default());
    Ok(read)
}

/// Returns the files in `$KUBECONFIG`.
fn paths(listed: Option<&OsStr>) -> Vec<PathBuf> {
    let paths = listed.map(std::env::split_paths).into_iter().flatten();
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

fn usual() -> PathBuf {
    std::env::home_dir().unwrap_or_default().join(".kube/config")
}

/// Whether there is a kubeconfig that [`read`] would read without a name, whatever its content.
pub(crate) fn any(listed: Option<&OsStr>) -> bool {
    let paths = paths(listed);
    if paths.is_empty() { is_there(&usual()) } else { paths.iter().any(|path| is_there(path)) }
}

/// A file whose existence cannot be checked counts: it must be reported, not ignored.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// Reads the files in `$KUBECONFIG`, without missing ones as in kubectl, or else `~/.kube/config`.
fn read_listed(listed: Option<&OsStr>) -> (String, Result<Kubeconfig, KubeError>) {
    let paths = paths(listed);
    let (Some(listed), Some(first)) = (listed, paths.first()) else {
        return ("reading the kubeconfig ~/.kube/config".to_owned(), read_file(&usual()));
    };
    let what = format!("reading the kubeconfig {} ($KUBECONFIG)", listed.display());
    let there: Vec<&PathBuf> = paths.iter().filter(|path| is_there(path)).collect();
    if there.is_empty() {
        return (what, read_file(first));
    }
    let mut all = None;
    for path in there {
        let merged = read_file(path).and_then(|next| match all.take() {
            None => Ok(next),
            Some(before) => Kubeconfig::merge(before, next)
                .map_err(|error| KubeError::new(attempt(path), Reason::Kubeconfig(chain(&error)))),
        });
        match merged {
            Ok(merged) => all = Some(merged),
            Err(error) => return (what, Err(error)),
        }
    }
    (what, Ok(all.unwrap_or_default()))
}

/// Returns the error for a context that does not exist.
pub(crate) fn unknown_context(name: &str, kubeconfig: &Kubeconfig) -> String {
    let known: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
    if known.is_empty() {
        return "it holds no context".to_owned();
    }
    if name.is_empty() {
        return format!("no current context is set; name one of: {}", known.join(", "));
    }
    let nearest = known
        .iter()
        .max_by(|one, other| strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(name, nearest) > 0.7 => {
            format!("there is no context {name:?}; did you mean {nearest:?}?")
        }
        _ => format!("there is no context {name:?}; there are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_kubeconfigs_listed_those_that_are_there_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (there, missing) = (folder.path().join("there"), folder.path().join("missing"));
        std::fs::write(&there, "current-context: mine").unwrap();
        let listed = std::env::join_paths([&missing, &there]).unwrap();
        let (what, read) = read_listed(Some(&listed));
        assert_eq!(read.unwrap().current_context.as_deref(), Some("mine"));
        assert!(what.contains("missing") && what.contains("$KUBECONFIG"), "{what}");
        // A pod's ServiceAccount is used if there is no kubeconfig, and never if one cannot be read.
        std::fs::write(&there, "{").unwrap();
        assert!(any(Some(&listed)) && read_listed(Some(&listed)).1.is_err());
        assert!(!any(Some(missing.as_os_str())));
    }

    #[test]
    fn an_empty_field_of_the_first_file_leaves_that_of_the_second() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        std::fs::write(&first, "current-context: \"\"").unwrap();
        std::fs::write(&second, "current-context: mine").unwrap();
        let listed = std::env::join_paths([&first, &second]).unwrap();
        assert_eq!(read_listed(Some(&listed)).1.unwrap().current_context.as_deref(), Some("mine"));
    }

    #[test]
    fn a_file_that_is_named_by_nothing_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(
            &path,
            "users: [{name: u, user: {tokenFile: '', client-key: '', client-certificate: c}}]",
        )
        .unwrap();
        let read = read_file(&path).unwrap();
        let user = read.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(user.token_file.is_none() && user.client_key.is_none());
        assert_eq!(user.client_certificate.as_deref(), folder.path().join("c").to_str());
    }

    #[test]
    fn of_several_files_the_one_that_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (good, damaged) = (folder.path().join("good"), folder.path().join("damaged"));
        std::fs::write(&good, "current-context: mine").unwrap();
        std::fs::write(&damaged, "contexts:\n- name: a\n  context: [}\n").unwrap();
        let listed = std::env::join_paths([&good, &damaged]).unwrap();
        let error = read_listed(Some(&listed)).1.unwrap_err().to_string();
        assert!(error.contains("damaged") && !error.contains("good"), "{error}");
        assert!(error.contains("line 3"), "{error}");
    }
}
