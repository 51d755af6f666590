//! Matches wildcards against keys: a prefix up to a slash is a directory.

use postern_files::pattern::{Glob, Step, matches};

/// The literal prefix of all keys that a wildcard can match.
pub(crate) fn literal(glob: &Glob) -> String {
    let mut prefix = if glob.absolute() { "/".to_owned() } else { String::new() };
    for step in glob.steps() {
        let Step::Literal(name) = step else { break };
        prefix.push_str(&String::from_utf8_lossy(name));
        prefix.push('/');
    }
    prefix
}

/// How many components of a key a wildcard matches: the whole key, or a directory in it; `None` without a
/// match.
pub(crate) fn takes(glob: &Glob, key: &str) -> Option<usize> {
    let directory = key.ends_with('/');
    let components: Vec<&str> = key.strip_suffix('/').unwrap_or(key).split('/').collect();
    let skip = usize::from(glob.absolute());
    if glob.absolute() && components.first() != Some(&"") {
        return None;
    }
    (skip + 1..=components.len()).find(|depth| {
        let is_directory = directory || *depth < components.len();
        (is_directory || !glob.directories()) && whole(glob.steps(), &components[skip..*depth])
    })
}

fn whole(steps: &[Step], names: &[&str]) -> bool {
    let visible = |name: &str| !name.starts_with('.');
    match (steps, names) {
        ([], []) => true,
        ([Step::Any], [name]) => visible(name),
        ([Step::Any] | [], _) => false,
        ([Step::Any, rest @ ..], names) => {
            whole(rest, names)
                || names.split_first().is_some_and(|(name, later)| visible(name) && whole(steps, later))
        }
        (_, []) => false,
        ([Step::Literal(literal), rest @ ..], [name, later @ ..]) => {
            literal == name.as_bytes() && whole(rest, later)
        }
        ([Step::Pattern(pattern), rest @ ..], [name, later @ ..]) => {
            matches(pattern, name.as_bytes(), false) && whole(rest, later)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_keys_like_paths() {
        let takes = |pattern: &str, key: &str| takes(&Glob::parse(pattern.as_bytes()).unwrap(), key);
        assert_eq!(takes("logs/*.gz", "logs/a.gz"), Some(2));
        assert_eq!(takes("logs/*.gz", "logs/a.gz/b"), Some(2), "a directory of that name");
        assert_eq!(takes("logs/*.gz", "logs/x/a.gz"), None);
        assert_eq!(takes("logs/*", "logs/.hidden"), None);
        assert_eq!(takes("logs/**/a.gz", "logs/a.gz"), Some(2));
        assert_eq!(takes("logs/**/a.gz", "logs/x/y/a.gz"), Some(4));
        assert_eq!(takes("logs/**/a.gz", "logs/.x/a.gz"), None);
        assert_eq!(takes("**", "a/b"), Some(1));
        assert_eq!(takes("*/", "a"), None);
        assert_eq!(takes("*/", "a/b"), Some(1));
        assert_eq!(takes("*/", "a/"), Some(1));
        assert_eq!(takes("/a*", "/ab"), Some(2));
        assert_eq!(takes("/a*", "ab"), None);
        assert_eq!(literal(&Glob::parse(b"a/b/*/c").unwrap()), "a/b/");
        assert_eq!(literal(&Glob::parse(b"*").unwrap()), "");
    }
}
