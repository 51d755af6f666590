//! Proof 4: a hundred processes with twenty tasks each cause one exchange. The keeper is real; the provider is a file
//! to which every exchange appends a byte.
#![allow(clippy::unwrap_used, reason = "this is a test")]

use postern_identity::exchange::{Bearer, Credential, Exchange, ExchangeError, Issued, Listener};
use postern_identity::keeper::{Directory, Keeper, SystemClock};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const HOME: &str = "POSTERN_SINGLE_FLIGHT_HOME";
const PROCESSES: usize = 100;
const TASKS: usize = 20;

struct Counting(PathBuf);

impl Exchange for Counting {
    async fn exchange(&self, _: Option<Zeroizing<String>>) -> Result<Issued, ExchangeError> {
        let mut asked = std::fs::OpenOptions::new().append(true).create(true).open(&self.0).unwrap();
        asked.write_all(b".").unwrap();
        // Long enough for all other tasks to arrive during the exchange.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let bearer = Bearer {
            access_token: Zeroizing::new(format!("token-of-{}", std::process::id())),
            refresh_token: None,
            scope: None,
            issued_token_type: None,
        };
        Ok(Issued { credential: Credential::Bearer(bearer), lifetime: Some(Duration::from_secs(300)) })
    }

    fn identity(&self) -> Result<String, ExchangeError> {
        Ok("one provider".to_owned())
    }
}

/// One of the processes; does nothing when the tests are started by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process() {
    let Some(home) = std::env::var_os(HOME).map(PathBuf::from) else { return };
    let disk = Some(Directory::at(home.join("cache")));
    let nobody = Listener(Arc::new(|_| {}));
    let keeper = Keeper::new("one", Counting(home.join("asked")), disk, Arc::new(SystemClock::new()), nobody);
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let keeper = keeper.clone();
            tokio::spawn(async move { keeper.credential().await })
        })
        .collect();
    for task in tasks {
        let held = task.await.unwrap().unwrap();
        let token = held.credential.bearer().unwrap().access_token.as_str().to_owned();
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(home.join("got"))
            .unwrap()
            .write_all(format!("{token}\n").as_bytes())
            .unwrap();
    }
}

fn start(home: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process"]).env(HOME, home).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn proof_4_a_hundred_processes_of_twenty_tasks_ask_once() {
    if std::env::var_os(HOME).is_some() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..PROCESSES).map(|_| start(home.path())).collect();
    for mut process in all {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(std::fs::read_to_string(home.path().join("asked")).unwrap(), ".");
    let got = std::fs::read_to_string(home.path().join("got")).unwrap();
    let first = got.lines().next().unwrap();
    assert_eq!(got.lines().filter(|line| *line == first).count(), PROCESSES * TASKS);
}
