//! What one run of a program cost: time on the clock, time on a processor, peak memory.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The cost of one run.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) wall: f64,
    pub(super) cpu: f64,
    pub(super) peak: f64,
}

/// What goes in, and how much must come out.
#[derive(Clone, Copy)]
pub(super) struct Streams<'a> {
    pub(super) stdin: Option<&'a File>,
    pub(super) stdout: u64,
}

/// Runs it to its end; seconds and MiB. An exit code other than 0, or output that is not whole, is an error:
/// a fast wrong answer must not count.
pub(super) fn run(command: &mut Command, streams: Streams) -> Result<Sample> {
    let name = command.get_program().to_string_lossy().into_owned();
    match streams.stdin {
        Some(file) => {
            let mut file = file.try_clone()?;
            std::io::Seek::rewind(&mut file)?; // a clone shares its place in the file
            command.stdin(file)
        }
        None => command.stdin(Stdio::null()),
    };
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("run {name}"))?;
    let bytes = drain(&mut child)?;
    let (status, cpu, peak) = wait(&child)?;
    let wall = begin.elapsed().as_secs_f64();
    if status != 0 {
        bail!("{name} ended with wait status {status}");
    }
    if bytes != streams.stdout {
        return Err(NotWhole { name, bytes, expected: streams.stdout }.into());
    }
    Ok(Sample { wall, cpu: cpu.as_secs_f64(), peak })
}

/// A run that said it succeeded and gave less, or more, than there was.
#[derive(Debug, thiserror::Error)]
#[error("{name} gave {bytes} bytes instead of {expected}")]
struct NotWhole {
    name: String,
    bytes: u64,
    expected: u64,
}

/// The same for the peer, which drops the end of long outputs now and then and reports success (kubernetes#124571):
/// such a run is counted and made again.
pub(super) fn peer(
    mut command: impl FnMut() -> Command,
    streams: Streams,
    cut: &mut usize,
) -> Result<Sample> {
    loop {
        match run(&mut command(), streams) {
            Err(error) if error.is::<NotWhole>() && *cut < 20 => *cut += 1,
            other => return other,
        }
    }
}

fn drain(child: &mut Child) -> Result<u64> {
    let mut output = child.stdout.take().context("no pipe")?;
    let (mut bytes, mut buffer) = (0, vec![0; 65536]);
    loop {
        match output.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes += count as u64,
        }
    }
}

/// Waits for the child; its wait status, processor time and peak memory in MiB.
#[allow(unsafe_code, reason = "no safe interface of wait4 is at hand")]
fn wait(child: &Child) -> Result<(i32, Duration, f64)> {
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: `rusage` is plain old data for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to values of ours that outlive the call.
        let got = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if got == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("wait4");
        }
    }
    let time = |t: libc::timeval| {
        let (seconds, micros) = (u64::try_from(t.tv_sec), u64::try_from(t.tv_usec));
        Duration::from_secs(seconds.unwrap_or(0)) + Duration::from_micros(micros.unwrap_or(0))
    };
    let peak = f64::from(u32::try_from(usage.ru_maxrss)?) / 1024.0;
    Ok((status, time(usage.ru_utime) + time(usage.ru_stime), peak))
}

/// The middle one (of an even number, the mean of the middle two).
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_run_that_fails_or_gives_too_little_is_an_error() {
        let streams = |stdout| Streams { stdin: None, stdout };
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let sample = run(&mut shell("printf 12345"), streams(5)).unwrap();
        assert!(sample.wall > 0.0 && sample.peak > 0.0);
        assert!(run(&mut shell("printf 1234"), streams(5)).is_err());
        assert!(run(&mut shell("printf 12345; exit 3"), streams(5)).is_err());
    }
}
