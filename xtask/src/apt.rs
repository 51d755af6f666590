//! apt-get, asked of this machine's Debian or of another suite without touching this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt-get with a configuration.
pub(crate) struct Apt {
    /// Its configuration file, where it is not this machine's.
    config: Option<PathBuf>,
    /// Where the lists of packages are kept.
    lists: PathBuf,
}

impl Apt {
    pub(crate) fn of_this_machine() -> Self {
        Self { config: None, lists: PathBuf::from("/var/lib/apt/lists") }
    }

    /// Debian's unstable suite, with lists and state of its own below `dir`.
    pub(crate) fn of_unstable(dir: &Path) -> Result<Self> {
        let lists = dir.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(dir.join("archives/partial"))?;
        let sources = dir.join("unstable.sources");
        let text = format!(
            "Types: deb\nURIs: {}\nSuites: sid\nComponents: main\nSigned-By: {KEYRING}\n",
            mirror().unwrap_or_else(|| "http://deb.debian.org/debian/".to_owned()),
        );
        fs::write(&sources, text)?;
        let config = dir.join("apt.conf");
        let dir = dir.display();
        // As root throughout: the user that apt would change to cannot enter root's home.
        let text = format!(
            "Dir::State \"{dir}\";\nDir::State::lists \"{dir}/lists\";\nDir::State::status \"/dev/null\";\n\
             Dir::Cache \"{dir}\";\nDir::Etc::SourceList \"{}\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::Preferences \"/dev/null\";\nDir::Etc::PreferencesParts \"/dev/null\";\n\
             APT::Architectures {{ \"amd64\"; \"arm64\"; }};\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n",
            sources.display(),
        );
        fs::write(&config, text)?;
        Ok(Self { config: Some(config), lists })
    }

    pub(crate) fn get<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = sh::command("apt-get", args);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        if let Some(config) = &self.config {
            command.env("APT_CONFIG", config);
        }
        command
    }

    pub(crate) fn refresh(&self) -> Result<()> {
        sh::run(&mut self.get(["update", "-q"]))
    }

    pub(crate) fn refresh_if_never(&self) -> Result<()> {
        let lists = fs::read_dir(&self.lists).map_or(0, Iterator::count);
        if lists < 4 { self.refresh() } else { Ok(()) } // an empty one still holds `lock`, `partial`, `auxfiles`
    }

    /// Everything apt would install on an empty system to have these packages.
    pub(crate) fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let args = ["install", "-s", "-y", "--no-install-recommends", "-o", "Dir::State::status=/dev/null"];
        let plan = sh::output(self.get(args).args(packages)).context("plan the installation")?;
        let mut names: Vec<String> = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst "))
            .filter_map(|rest| rest.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        names.sort();
        if names.is_empty() {
            bail!("apt-get plans nothing for {}", packages.join(" "));
        }
        Ok(names)
    }
}

/// Where this machine gets Debian from, by what apt knows of its sources.
fn mirror() -> Option<String> {
    let args = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"];
    let known = sh::output(&mut sh::command("apt-get", args)).ok()?;
    known.lines().next().map(str::to_owned)
}
