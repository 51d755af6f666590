use super::*;
use crate::exchange::{Bearer, Credential, Issued};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use zeroize::Zeroizing;

/// A clock that only tests advance.
#[derive(Default)]
struct ManualClock(Mutex<(Duration, Duration)>);

impl ManualClock {
    fn advance(&self, seconds: u64) {
        let mut at = self.0.lock().unwrap();
        at.0 += Duration::from_secs(seconds);
        at.1 += Duration::from_secs(seconds);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        // Each read is a little later, as with a real clock.
        let mut at = self.0.lock().unwrap();
        at.0 += Duration::from_nanos(1);
        Moment { boot: 1, since_boot: at.0, wall: at.1 }
    }
}

/// A provider with scripted answers; the default answer is a token that lives 100 s.
#[derive(Default)]
struct Script {
    asked: Arc<AtomicUsize>,
    answers: Mutex<VecDeque<Result<Option<u64>, u16>>>,
    refresh: Mutex<Vec<Option<String>>>,
    /// How long an answer takes, in addition to a moment.
    slow: Mutex<Duration>,
}

impl Exchange for Script {
    async fn exchange(&self, refresh: Option<Zeroizing<String>>) -> Result<Issued, ExchangeError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.refresh.lock().unwrap().push(refresh.map(|token| token.to_string()));
        let slow = *self.slow.lock().unwrap();
        tokio::time::sleep(slow + Duration::from_millis(20)).await;
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(Some(100)));
        answer.map(|seconds| issued(&format!("token-{number}"), seconds)).map_err(|status| {
            ExchangeError::Refused(crate::exchange::Refusal {
                server: "https://as".to_owned(),
                status,
                code: None,
                message: "no".to_owned(),
                cause: Some("it is so".to_owned()),
                retry_after: (status == 429).then_some(600),
            })
        })
    }

    fn identity(&self) -> Result<String, ExchangeError> {
        Ok("script".to_owned())
    }
}

fn issued(token: &str, seconds: Option<u64>) -> Issued {
    let bearer = Bearer {
        access_token: Zeroizing::new(token.to_owned()),
        refresh_token: None,
        scope: None,
        issued_token_type: None,
    };
    Issued { credential: Credential::Bearer(bearer), lifetime: seconds.map(Duration::from_secs) }
}

struct Stage {
    clock: Arc<ManualClock>,
    asked: Arc<AtomicUsize>,
    said: Arc<Mutex<Vec<String>>>,
    keeper: Arc<Keeper<Script>>,
}

impl Stage {
    fn new(
        answers: &[Result<Option<u64>, u16>],
        disk: Option<&Path>,
        clock: Option<Arc<ManualClock>>,
    ) -> Self {
        let script = Script { answers: Mutex::new(answers.iter().copied().collect()), ..Script::default() };
        let (asked, clock) = (script.asked.clone(), clock.unwrap_or_default());
        let said = Arc::new(Mutex::new(Vec::new()));
        let messages = said.clone();
        let listener = Listener(Arc::new(move |notice| messages.lock().unwrap().push(format!("{notice:?}"))));
        let disk = disk.map(|path| Directory::at(path.join("identity")));
        let keeper = Keeper::new("p", script, disk, clock.clone(), listener);
        Self { clock, asked, said, keeper }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn token(&self) -> String {
        text(&self.keeper.credential().await.unwrap())
    }
}

use std::path::Path;

fn text(cached: &CachedCredential) -> String {
    cached.credential.bearer().unwrap().access_token.to_string()
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let stage = Stage::new(&[], None, None);
    let all: Vec<_> = (0..200).map(|_| stage.keeper.clone()).collect();
    let all: Vec<_> = all
        .into_iter()
        .map(|keeper| tokio::spawn(async move { text(&keeper.credential().await.unwrap()) }))
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), "token-1");
    }
    assert_eq!(stage.asked(), 1);
}

#[tokio::test]
async fn who_asked_may_leave_and_the_others_get_the_answer() {
    let stage = Stage::new(&[], None, None);
    let first = tokio::time::timeout(Duration::from_millis(1), stage.keeper.credential()).await;
    assert!(first.is_err());
    assert_eq!(stage.token().await, "token-1");
    assert_eq!(stage.asked(), 1);
}

#[tokio::test]
async fn it_is_renewed_at_four_fifths_of_its_life_and_no_earlier_than_three_quarters() {
    let stage = Stage::new(&[], None, None);
    stage.token().await;
    stage.clock.advance(74);
    assert_eq!(stage.token().await, "token-1");
    stage.clock.advance(6);
    assert_eq!(stage.token().await, "token-2");
}

#[tokio::test]
async fn the_old_one_serves_while_the_provider_is_down_until_ten_seconds_before_its_end() {
    let down = [Ok(Some(100)), Err(503), Err(503), Err(503), Ok(Some(100))];
    let stage = Stage::new(&down, None, None);
    stage.token().await;
    stage.clock.advance(85);
    assert_eq!(stage.token().await, "token-1");
    assert_eq!(stage.asked(), 2);
    // Not at every call: there is a pause after a failure.
    assert_eq!((stage.token().await, stage.asked()), ("token-1".to_owned(), 2));
    assert!(stage.said.lock().unwrap()[0].contains("the old token is still used"));
    stage.clock.advance(4);
    assert_eq!((stage.token().await, stage.asked()), ("token-1".to_owned(), 3));
    stage.clock.advance(2);
    let error = stage.keeper.credential().await.unwrap_err();
    assert!(error.to_string().contains("https://as refused") && error.cause() == Some("it is so"));
    assert!(stage.keeper.last_error().is_some());
    // Nor at every call without a token.
    assert!(stage.keeper.credential().await.is_err());
    assert_eq!(stage.asked(), 4);
    stage.clock.advance(1);
    assert_eq!(stage.token().await, "token-5");
    assert!(stage.keeper.last_error().is_none());
}

#[tokio::test]
async fn a_failure_is_shared_by_who_waited_for_it_and_by_no_one_else() {
    let stage = Stage::new(&[Err(400)], None, None);
    let (one, two) = tokio::join!(stage.keeper.credential(), stage.keeper.credential());
    assert!(one.is_err() && two.is_err());
    assert_eq!(stage.asked(), 1);
    stage.clock.advance(1);
    assert_eq!(stage.token().await, "token-2");
}

#[tokio::test]
async fn without_a_lifetime_each_asks_but_for_who_waited() {
    let stage = Stage::new(&[Ok(None), Ok(None)], None, None);
    let (one, two) = tokio::join!(stage.token(), stage.token());
    assert_eq!((one.as_str(), two.as_str(), stage.asked()), ("token-1", "token-1", 1));
    assert_eq!(stage.token().await, "token-2");
}

#[tokio::test]
async fn a_refusal_by_the_api_asks_once() {
    let stage = Stage::new(&[], None, None);
    let first = stage.keeper.credential().await.unwrap();
    assert!(stage.keeper.refused(&first));
    // A second request that had sent the same token reports it too.
    let second = stage.keeper.credential().await.unwrap();
    assert!(stage.keeper.refused(&first));
    assert_eq!((text(&second), stage.asked()), ("token-2".to_owned(), 2));
    assert_eq!(text(&stage.keeper.credential().await.unwrap()), "token-2");
    // The new one is rejected as well: for a while that is final.
    assert!(!stage.keeper.refused(&second));
    assert_eq!((stage.token().await, stage.asked()), ("token-2".to_owned(), 2));
    stage.clock.advance(31);
    assert!(stage.keeper.refused(&second));
    assert_eq!(stage.token().await, "token-3");
}

#[tokio::test]
async fn a_clock_that_jumps_ends_nothing_and_lengthens_nothing() {
    let stage = Stage::new(&[], None, None);
    stage.token().await;
    for wall in [0, 1_000_000_000] {
        stage.clock.0.lock().unwrap().1 = Duration::from_secs(wall);
        assert_eq!(stage.token().await, "token-1");
    }
    stage.clock.advance(80);
    stage.clock.0.lock().unwrap().1 = Duration::ZERO;
    assert_eq!(stage.token().await, "token-2");
}

#[tokio::test]
async fn another_process_finds_it_on_disk_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let one = Stage::new(&[], Some(home.path()), None);
    assert_eq!(one.token().await, "token-1");
    let two = Stage::new(&[], Some(home.path()), Some(one.clock.clone()));
    assert_eq!((two.token().await, two.asked()), ("token-1".to_owned(), 0));
    assert_eq!(two.keeper.counts(), Counts { exchanged: 0, failed: 0, adopted: 1 });
    let directory = home.path().join("identity");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let mut names = Vec::new();
    for file in std::fs::read_dir(&directory).unwrap() {
        let file = file.unwrap();
        assert_eq!(mode(&file.path()), 0o600);
        names.push(file.file_name().into_string().unwrap().split_once('.').unwrap().1.to_owned());
    }
    names.sort();
    assert_eq!(names, ["json", "lock"]);
    // A credential that one process saw rejected is not read again by the other.
    let cached = two.keeper.credential().await.unwrap();
    assert!(two.keeper.refused(&cached));
    assert_eq!((two.token().await, two.asked()), ("token-1".to_owned(), 1));
}

#[tokio::test]
async fn what_is_damaged_or_open_to_others_is_set_aside_with_a_word() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let key = blake3::hash(b"script").to_string();
    let kept = home.path().join(format!("identity/{key}.json"));
    Stage::new(&[], Some(home.path()), Some(clock.clone())).token().await;
    let whole = std::fs::read(&kept).unwrap();
    for (content, mode, why) in [
        (b"{\"format\":1".to_vec(), 0o600, "it is damaged"),
        (Vec::new(), 0o600, "it is damaged"),
        (whole.clone(), 0o644, "others may use it (mode 644)"),
        (String::from_utf8(whole).unwrap().replace(&key, "other").into_bytes(), 0o600, "of another provider"),
    ] {
        std::fs::write(&kept, content).unwrap();
        std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(mode)).unwrap();
        let stage = Stage::new(&[], Some(home.path()), Some(clock.clone()));
        stage.token().await;
        assert_eq!(stage.asked(), 1, "{why}");
        let said = stage.said.lock().unwrap().join("");
        assert!(said.contains(why) && said.contains("set aside as"), "{said}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_costs_the_disk_only() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stage = Stage::new(&[], Some(file.path()), None);
    assert_eq!(stage.token().await, "token-1");
    assert!(stage.said.lock().unwrap()[0].contains("cannot cache tokens"));
}

#[tokio::test]
async fn what_one_api_refused_serves_the_others_while_the_provider_is_down() {
    let stage = Stage::new(&[Ok(Some(100)), Err(503)], None, None);
    let first = stage.keeper.credential().await.unwrap();
    assert!(stage.keeper.refused(&first));
    assert_eq!((stage.token().await, stage.asked()), ("token-1".to_owned(), 2));
    assert!(stage.said.lock().unwrap()[0].contains("the old token is still used"));
    // A second rejection does not cause another exchange yet.
    assert!(!stage.keeper.refused(&first));
    assert_eq!((stage.token().await, stage.asked()), ("token-1".to_owned(), 2));
}

#[tokio::test]
async fn a_request_does_not_wait_long_for_a_renewal_that_it_can_do_without() {
    let stage = Stage::new(&[], None, None);
    stage.token().await;
    *stage.keeper.exchanger().slow.lock().unwrap() = Duration::from_secs(30);
    stage.clock.advance(85);
    let began = std::time::Instant::now();
    assert_eq!(stage.token().await, "token-1");
    assert!(began.elapsed() < Duration::from_secs(10));
    // Other callers do not wait at all, and none causes a second exchange.
    assert_eq!((stage.token().await, stage.asked()), ("token-1".to_owned(), 2));
}

#[tokio::test(start_paused = true)]
async fn the_timer_sleeps_while_another_renews() {
    let stage = Stage::new(&[], None, None);
    stage.token().await;
    *stage.keeper.exchanger().slow.lock().unwrap() = Duration::from_secs(30);
    stage.clock.advance(85);
    let looks = stage.clock.0.lock().unwrap().0;
    let timer = tokio::spawn(stage.keeper.clone().keep_fresh());
    let other = stage.keeper.clone();
    tokio::spawn(async move { other.credential().await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    timer.abort();
    // Each read of the clock advances it by a nanosecond: a busy loop would have read it a million times.
    let looked = stage.clock.0.lock().unwrap().0.saturating_sub(looks);
    assert!(looked < Duration::from_micros(2), "{looked:?}");
    assert_eq!(stage.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_for_ten_minutes_is_not_asked_after_seconds() {
    let stage = Stage::new(&[Err(429), Ok(Some(100))], None, None);
    assert!(stage.keeper.credential().await.is_err());
    for _ in 0..9 {
        stage.clock.advance(60);
        assert!(stage.keeper.credential().await.is_err());
    }
    assert_eq!(stage.asked(), 1);
    stage.clock.advance(61);
    assert!(stage.keeper.credential().await.is_ok());
}
