//! `--exclude` and `--include`, in the order in which they stand: as in a .gitignore, the last that matches decides.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};
use postern_wire::copy::Rule;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

#[derive(Debug, Default)]
pub(crate) struct Rules(pub(crate) Vec<Rule>);

/// The flags, and whether what matches is in.
const FLAGS: [(&str, bool, &str); 2] = [
    ("exclude", false, "Leave out what matches, in gitignore's syntax; repeatable"),
    ("include", true, "Take what matches after all; the last that matches decides; repeatable"),
];

impl Args for Rules {
    fn augment_args(command: Command) -> Command {
        FLAGS.into_iter().fold(command, |command, (name, _, help)| {
            let flag = Arg::new(name).long(name).value_name("PATTERN").value_parser(value_parser!(OsString));
            command.arg(flag.action(ArgAction::Append).help(help).help_heading("What"))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Rules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut all = Vec::new();
        for (name, include, _) in FLAGS {
            let patterns = matches.get_many::<OsString>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            let rule = |pattern: &OsString| Rule { include, pattern: pattern.as_bytes().to_vec() };
            all.extend(places.zip(patterns.map(rule)));
        }
        all.sort_by_key(|(place, _)| *place);
        Ok(Self(all.into_iter().map(|(_, rule)| rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_keep_the_order_of_the_command_line() {
        let command = Rules::augment_args(Command::new("cp"));
        let args = ["cp", "--include", "a", "--exclude=b", "--exclude", "c", "--include", "-d"];
        let matches = command.try_get_matches_from(args);
        assert!(matches.is_err(), "a value that looks like a flag needs =");
        let command = Rules::augment_args(Command::new("cp"));
        let args = ["cp", "--include", "a", "--exclude=b", "--exclude", "c", "--include=-d"];
        let rules = Rules::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap();
        let seen: Vec<_> = rules.0.iter().map(|rule| (rule.include, rule.pattern.as_slice())).collect();
        assert_eq!(seen, [(true, &b"a"[..]), (false, b"b"), (false, b"c"), (true, b"-d")]);
    }
}
