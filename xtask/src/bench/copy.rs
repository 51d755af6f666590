//! `postern cp` and `sync` against `kubectl cp`, and against what the way there gives at most: `kubectl exec … cat`.

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::measure::{self, Sample, median};
use super::report::{Row, Wanted};
use super::{Pairs, QUIET, conclude, versions};
use crate::say::Progress;
use crate::subject::Subject;
use crate::{paths, sh};

const NAMESPACE: &str = "postern-bench";
const POD: &str = "postern-bench/copy";

/// Bytes of a large file.
const LARGE: usize = 256 << 20;

/// Files of a tree of small ones, and bytes of each.
const SMALL: usize = 20_000;
const EACH: usize = 4 << 10;

pub(super) fn bench(runs: usize, only: Option<&str>, write: bool) -> Result<()> {
    let progress = Progress::begin();
    let subject = Subject::ready()?;
    let bench = Bench::begin(&subject, runs, only)?;
    progress.step("the pod and the files are ready");
    let mut rows = Vec::new();
    bench.large(&mut rows, progress)?;
    bench.small(&mut rows, progress)?;
    bench.again(&mut rows, progress)?;
    let method = format!(
        "How it is measured: by turns ({runs} pairs after one to warm up) between this machine and a pod of the testbed \
         with\ntar and a shell; the agent is put there by each run of postern and removed again. Before each run its \
         destination is\nremoved, or another, and what is not on the disk yet is written. 256 MiB of random bytes, 256 MiB of log lines, and {SMALL} files of {EACH} bytes. The \
         raw limit is\n`kubectl exec -i … cat` into or out of a file, which verifies and syncs nothing. postern verifies \
         by BLAKE3 at both\nends and syncs to the disk; its copies are resumed and sync'ed without kubectl's having a \
         peer for it: those are\nagainst a whole `kubectl cp`, the resumed one against postern's own whole copy. Runs of the peer that broke off \
         were made\nagain ({} of them).",
        bench.broken.get()
    );
    conclude(
        &versions(&subject)?,
        "Copy",
        &format!("cargo xtask bench copy --runs {runs}"),
        &rows,
        &method,
        write,
        progress,
    )
}

/// What one run left in memory is not for the next one to write: kubectl leaves all of it, and postern's sync would pay for both.
fn settle() -> Result<()> {
    sh::run(&mut Command::new("sync"))
}

struct Bench<'a> {
    subject: &'a Subject,
    runs: usize,
    only: Option<&'a str>,
    folder: PathBuf,
    /// Runs of the peer that broke off.
    broken: Cell<u32>,
}

impl<'a> Bench<'a> {
    fn begin(subject: &'a Subject, runs: usize, only: Option<&'a str>) -> Result<Self> {
        sh::run(&mut subject.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found"]))?;
        sh::run(&mut subject.kubectl(&["create", "namespace", NAMESPACE]))?;
        let folder = paths::target().join("bench-copy");
        let bench = Self { subject, runs, only, folder, broken: Cell::new(0) };
        let image = "--image=debian-tools:12";
        let run = ["run", "copy", "-n", NAMESPACE, image, "--command", "--", "sleep", "infinity"];
        sh::run(&mut subject.kubectl(&run))?;
        let wait = ["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/copy", "--timeout=120s"];
        sh::run(&mut subject.kubectl(&wait)).context("start the pod to copy to")?;
        bench.files()?;
        Ok(bench)
    }

    /// Whether rows of this name are asked for.
    fn wanted(&self, what: &str) -> bool {
        self.only.is_none_or(|only| what.contains(only))
    }

    fn files(&self) -> Result<()> {
        fs::create_dir_all(self.folder.join("tree"))?;
        // A piece at a time: what this process once held counts as its children's peak.
        let mut piece = vec![0; SMALL * EACH / 80];
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut random = std::io::BufWriter::new(fs::File::create(self.folder.join("random"))?);
        for _ in 0..LARGE / piece.len() {
            fill(&mut piece, &mut state);
            random.write_all(&piece)?;
        }
        random.write_all(&piece[..LARGE % piece.len()])?;
        random.flush()?;
        let line = |number: usize| {
            let (level, code) =
                (["INFO", "WARN", "DEBUG"][number % 3], number.wrapping_mul(2_654_435_761) % 100_000);
            format!(
                "2026-11-21T10:{:02}:{:02}.{code:05} {level} request {number} of user-{code} took {} ms\n",
                number / 60 % 60,
                number % 60,
                code % 977
            )
        };
        let mut text = std::io::BufWriter::new(fs::File::create(self.folder.join("text"))?);
        let (mut written, mut number) = (0, 0);
        while written < LARGE {
            let line = line(number);
            text.write_all(line.as_bytes())?;
            written += line.len();
            number += 1;
        }
        text.flush()?;
        for number in 0..SMALL {
            let directory = self.folder.join(format!("tree/{:02}", number / 250));
            if number % 250 == 0 {
                fs::create_dir_all(&directory)?;
            }
            fill(&mut piece[..EACH], &mut state);
            fs::write(directory.join(format!("file-{number}")), &piece[..EACH])?;
        }
        Ok(())
    }

    fn in_pod(&self, script: &str) -> Result<()> {
        let exec = ["exec", "-n", NAMESPACE, "copy", "--", "sh", "-c", script];
        sh::run(&mut self.subject.kubectl(&exec)).with_context(|| format!("{script} in the pod"))
    }

    fn here(&self, mut command: Command) -> Command {
        command.current_dir(&self.folder).stderr(Stdio::null());
        command
    }

    fn kubectl(&self, from: &str, to: &str) -> Command {
        // tar's remarks come on its stdout.
        let mut command = self.raw("exec \"$KUBECTL\" cp \"$0\" \"$1\" >/dev/null");
        command.args([from, to]);
        command
    }

    fn postern(&self, args: &[&str]) -> Command {
        self.here(self.subject.postern(args))
    }

    /// `kubectl exec -i … cat` into or out of a file.
    fn raw(&self, script: &str) -> Command {
        let mut command = self.subject.command(Path::new("sh"), &["-c", script]);
        command.env("KUBECTL", &self.subject.kubectl);
        self.here(command)
    }

    /// A run of the peer. One that breaks off, as `kubectl cp` does now and then, is made again.
    fn theirs(&self, before: &impl Fn() -> Result<()>, peer: &impl Fn() -> Command) -> Result<Sample> {
        for _ in 0..5 {
            before()?;
            match measure::run(&mut peer(), QUIET) {
                Ok(sample) => return Ok(sample),
                Err(_) => self.broken.set(self.broken.get() + 1),
            }
        }
        bail!("the peer broke off five times in a row")
    }

    /// Runs by turns, each after what makes its destination new.
    fn pairs(
        &self,
        before: impl Fn() -> Result<()>,
        peer: impl Fn() -> Command,
        postern: impl Fn() -> Command,
    ) -> Result<Pairs> {
        let before = || before().and_then(|()| settle());
        let mut pairs = Vec::new();
        for turn in 0..=self.runs {
            let theirs = self.theirs(&before, &peer)?;
            before()?;
            let ours = measure::run(&mut postern(), QUIET)?;
            if turn > 0 {
                pairs.push((theirs, ours));
            }
        }
        Ok(Pairs(pairs, 0))
    }

    fn large(&self, rows: &mut Vec<Row>, progress: Progress) -> Result<()> {
        let there = format!("{POD}:/tmp/f");
        let clear = || self.in_pod("rm -f /tmp/f");
        for (file, limit) in [("random", 0.75), ("text", 0.4)] {
            let what = format!("256 MiB, {file}, up");
            if !self.wanted(&what) {
                continue;
            }
            let up =
                self.pairs(clear, || self.kubectl(file, &there), || self.postern(&["cp", file, &there]))?;
            rows.push(wall(&up, &what, Wanted::AtMost(limit)));
            if file == "random" {
                rows.push(up.row("the same: peak memory", "MiB", |s| s.peak, Wanted::AtMost(1.0)));
                rows.push(up.row("the same: processor time", "ms", |s| s.cpu * 1e3, Wanted::Nothing));
                let script = "\"$KUBECTL\" exec -i -n postern-bench copy -- sh -c 'cat >/tmp/f' <random";
                let raw = self.pairs(clear, || self.raw(script), || self.postern(&["cp", file, &there]))?;
                rows.push(against_raw(&raw, "256 MiB, random, up"));
            }
            progress.step(format!("{file}, up"));
        }
        if !self.wanted("256 MiB, random, down") {
            return Ok(());
        }
        self.in_pod("rm -f /tmp/f")?;
        sh::run(&mut self.postern(&["cp", "random", &there]))?;
        let clear = || remove(&self.folder.join("down"));
        let down =
            self.pairs(clear, || self.kubectl(&there, "down"), || self.postern(&["cp", &there, "down"]))?;
        rows.push(wall(&down, "256 MiB, random, down", Wanted::AtMost(0.8)));
        rows.push(down.row("the same: peak memory", "MiB", |s| s.peak, Wanted::AtMost(1.0)));
        let script = "\"$KUBECTL\" exec -n postern-bench copy -- cat /tmp/f >down";
        let raw = self.pairs(clear, || self.raw(script), || self.postern(&["cp", &there, "down"]))?;
        rows.push(against_raw(&raw, "256 MiB, random, down"));
        progress.step("random, down");
        let whole = median(down.0.iter().map(|(_, ours)| ours.wall * 1e3));
        let rest = (0..self.runs).map(|_| self.resumed(&there)).collect::<Result<Vec<f64>>>()?;
        let rest = median(rest) * 1e3;
        rows.push(Row::against(
            "a whole one",
            "resumed from half",
            "ms",
            (whole, rest),
            rest / whole,
            Wanted::AtMost(0.6),
        ));
        progress.step("resumed");
        Ok(())
    }

    /// Kills a copy at half, and times the rest; seconds.
    fn resumed(&self, there: &str) -> Result<f64> {
        remove(&self.folder.join("down"))?;
        let partial = self.folder.join(".down.postern-partial");
        let mut child = self.postern(&["cp", there, "down"]).spawn()?;
        let half = u64::try_from(LARGE / 2)?;
        while fs::metadata(&partial).map_or(0, |found| found.blocks() * 512) < half {
            if child.try_wait()?.is_some() {
                bail!("the copy was over before it could be cut at half");
            }
            std::thread::yield_now();
        }
        child.kill()?;
        child.wait()?;
        Ok(measure::run(&mut self.postern(&["cp", there, "down"]), QUIET)?.wall)
    }

    /// Each run has a destination of its own: ext4 gives a number of a file that was removed a moment ago to no other,
    /// and a search for those that it may give was most of the time then, the peer's as well as ours.
    fn small(&self, rows: &mut Vec<Row>, progress: Progress) -> Result<()> {
        let turn = Cell::new(0);
        let next = || {
            turn.set(turn.get() + 1);
            Ok(())
        };
        if self.wanted("20,000 files of 4 KiB, up") {
            let there = || format!("{POD}:/tmp/tree-{}", turn.get());
            let up = self.pairs(
                next,
                || self.kubectl("tree", &there()),
                || self.postern(&["cp", "tree", &there()]),
            )?;
            self.in_pod("rm -rf /tmp/tree-*")?;
            rows.push(wall(&up, "20,000 files of 4 KiB, up", Wanted::AtMost(0.6)));
            rows.push(up.row("the same: peak memory", "MiB", |s| s.peak, Wanted::AtMost(1.0)));
            progress.step("small files, up");
        }
        if !self.wanted("20,000 files of 4 KiB, down") {
            return Ok(());
        }
        let there = format!("{POD}:/tmp/tree");
        sh::run(&mut self.postern(&["cp", "tree", &there]))?;
        let here = || format!("down-{}", turn.get());
        let down =
            self.pairs(next, || self.kubectl(&there, &here()), || self.postern(&["cp", &there, &here()]))?;
        rows.push(wall(&down, "20,000 files of 4 KiB, down", Wanted::AtMost(0.6)));
        progress.step("small files, down");
        (1..=turn.get()).try_for_each(|turn| remove(&self.folder.join(format!("down-{turn}"))))
    }

    /// What has not changed, or hardly.
    fn again(&self, rows: &mut Vec<Row>, progress: Progress) -> Result<()> {
        let there = format!("{POD}:/tmp/tree");
        if self.wanted("20,000 files, unchanged (`sync`)") {
            sh::run(&mut self.postern(&["sync", "tree", &there]))?;
            let tree = self.pairs(
                || Ok(()),
                || self.kubectl("tree", &format!("{POD}:/tmp/theirs")),
                || self.postern(&["sync", "tree", &there]),
            )?;
            rows.push(wall(&tree, "20,000 files, unchanged (`sync`)", Wanted::AtMost(0.1)));
            progress.step("unchanged");
        }
        if !self.wanted("one changed block in 256 MiB (`sync`)") {
            return Ok(());
        }
        let there = format!("{POD}:/tmp/big");
        sh::run(&mut self.postern(&["sync", "random", &there]))?;
        let round = Cell::new(0_u8);
        // Another block in the middle each time.
        let change = || {
            use std::os::unix::fs::FileExt as _;
            round.set(round.get().wrapping_add(1));
            let file = fs::File::options().write(true).open(self.folder.join("random"))?;
            Ok(file.write_all_at(&vec![round.get(); 64 << 10], (LARGE / 2) as u64)?)
        };
        let block = self.pairs(
            change,
            || self.kubectl("random", &format!("{POD}:/tmp/theirs-big")),
            || self.postern(&["sync", "random", &there]),
        )?;
        rows.push(wall(&block, "one changed block in 256 MiB (`sync`)", Wanted::AtMost(0.1)));
        progress.step("one changed block");
        Ok(())
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", NAMESPACE, "--wait=false"];
        let _ = sh::run(&mut self.subject.kubectl(&delete)); // the next bench does it
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn wall(pairs: &Pairs, what: &str, wanted: Wanted) -> Row {
    pairs.row(&format!("{what}: wall"), "ms", |s| s.wall * 1e3, wanted)
}

fn against_raw(pairs: &Pairs, what: &str) -> Row {
    let of = |s: &Sample| s.wall * 1e3;
    let values = (median(pairs.0.iter().map(|(k, _)| of(k))), median(pairs.0.iter().map(|(_, p)| of(p))));
    let ratio = median(pairs.0.iter().map(|(k, p)| of(p) / of(k)));
    Row::against("the raw limit", what, "ms", values, ratio, Wanted::AtMost(1.1))
}

fn remove(path: &Path) -> Result<()> {
    let gone = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match gone {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Bytes that do not shrink, the same on each machine.
fn fill(bytes: &mut [u8], state: &mut u64) {
    for eight in bytes.chunks_mut(8) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
}
