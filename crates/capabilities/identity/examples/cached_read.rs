//! Measures reads of a cached credential: `cargo xtask bench identity` starts it. Prints the 50th and the 99th
//! percentile in nanoseconds, of a million reads by eight concurrent tasks.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "this is a measurement")]

use postern_identity::exchange::{Bearer, Credential, Exchange, ExchangeError, Issued, Listener};
use postern_identity::keeper::{Keeper, SystemClock};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const TASKS: usize = 8;
const READS: usize = 125_000;

struct Once;

impl Exchange for Once {
    async fn exchange(&self, _: Option<Zeroizing<String>>) -> Result<Issued, ExchangeError> {
        let bearer = Bearer {
            access_token: Zeroizing::new("token".to_owned()),
            refresh_token: None,
            scope: None,
            issued_token_type: None,
        };
        Ok(Issued { credential: Credential::Bearer(bearer), lifetime: Some(Duration::from_secs(3_600)) })
    }

    fn identity(&self) -> Result<String, ExchangeError> {
        Ok("measured".to_owned())
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let nobody = Listener(Arc::new(|_| {}));
    let keeper = Keeper::new("measured", Once, None, Arc::new(SystemClock::new()), nobody);
    keeper.credential().await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let keeper = keeper.clone();
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(READS);
                for read in 0..READS {
                    let begin = Instant::now();
                    let held = keeper.credential().await.unwrap();
                    times.push(begin.elapsed());
                    drop(held);
                    if read % 1_000 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort();
    println!("{} {}", times[times.len() / 2].as_nanos(), times[times.len() * 99 / 100].as_nanos());
}
