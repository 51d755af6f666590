//! Faults that users reported of copies to buckets, against moto: its keys are any text, where versitygw's are files.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use e2e::moto::Moto;
use e2e::{Outcome, enabled};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

struct Bucket {
    moto: Moto,
    folder: tempfile::TempDir,
}

impl Bucket {
    fn new() -> Option<Self> {
        let moto = enabled().then(Moto::start).flatten()?;
        let bucket = Self { moto, folder: tempfile::tempdir().unwrap() };
        bucket.python("s3.create_bucket(Bucket='bkt')");
        Some(bucket)
    }

    fn python(&self, script: &str) -> String {
        let client = format!(
            "import boto3\ns3 = boto3.client('s3', endpoint_url='{}', aws_access_key_id='a', aws_secret_access_key='b', \
             region_name='us-east-1')\n{script}\n",
            self.moto.address
        );
        Outcome::of(Command::new(&self.moto.python).args(["-c", &client])).ok().stdout
    }

    /// Empties the bucket and puts these keys into it.
    fn holds(&self, keys: &[&str]) {
        let list = serde_json::to_string(keys).unwrap();
        self.python(&format!(
            "for o in s3.list_objects_v2(Bucket='bkt').get('Contents', []): s3.delete_object(Bucket='bkt', Key=o['Key'])\n\
             for k in {list}: s3.put_object(Bucket='bkt', Key=k, Body=k.encode())"
        ));
    }

    fn keys(&self) -> BTreeSet<String> {
        let listed = self.python(
            "print('\\n'.join(o['Key'] for o in s3.list_objects_v2(Bucket='bkt').get('Contents', [])))",
        );
        listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    fn postern(&self, args: &[&str]) -> Outcome {
        let mut command = e2e::postern();
        command
            .env("AWS_ACCESS_KEY_ID", "a")
            .env("AWS_SECRET_ACCESS_KEY", "b")
            .env("AWS_REGION", "us-east-1");
        command.env("AWS_ENDPOINT_URL_S3", &self.moto.address).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        command.env("XDG_STATE_HOME", self.path().join("state"));
        Outcome::of(command.args(args).current_dir(self.path()))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[test]
fn what_an_exclude_protects_below_a_missing_directory_stays() {
    let Some(bucket) = Bucket::new() else { return };
    fs::create_dir(bucket.path().join("d")).unwrap();
    fs::write(bucket.path().join("d/1"), "1").unwrap();
    let before = ["folder/keep/a", "folder/keep/b", "folder/z.tmp", "top.tmp", "other/1"];
    for (exclude, stays) in [
        ("folder/keep/", &["folder/keep/a", "folder/keep/b"][..]),
        ("keep/", &["folder/keep/a", "folder/keep/b"]),
        ("folder/*", &["folder/keep/a", "folder/keep/b", "folder/z.tmp"]),
        ("*.tmp", &["folder/z.tmp", "top.tmp"]),
        ("folder/", &["folder/keep/a", "folder/keep/b", "folder/z.tmp"]),
    ] {
        bucket.holds(&before);
        let planned =
            bucket.postern(&["sync", "--delete", "--dry-run", "--exclude", exclude, "d", "s3://bkt/"]).ok();
        assert_eq!(bucket.keys(), set(&before));
        for key in before {
            let named = planned.stdout.contains(&format!("would remove {key}\n"));
            assert_eq!(named, !stays.contains(&key), "{exclude}: {key}: {}", planned.stdout);
        }
        bucket.postern(&["sync", "--delete", "--exclude", exclude, "d", "s3://bkt/"]).ok();
        let mut kept = set(stays);
        kept.insert("1".to_owned());
        assert_eq!(
            bucket.keys().into_iter().filter(|key| !key.ends_with('/')).collect::<BTreeSet<_>>(),
            kept
        );
    }
}

#[test]
fn a_key_ends_as_it_was_written() {
    let Some(bucket) = Bucket::new() else { return };
    fs::create_dir(bucket.path().join("d")).unwrap();
    fs::write(bucket.path().join("d/1"), "1").unwrap();
    fs::write(bucket.path().join("f"), "f").unwrap();
    let before = ["a", "p/1", "p/2"];
    bucket.holds(&before);
    bucket.postern(&["sync", "--delete", "d", "s3://bkt//"]).ok();
    bucket.postern(&["sync", "--delete", "d", "s3://bkt/p//"]).ok();
    assert!(bucket.keys().is_superset(&set(&before)), "{:?}", bucket.keys());
    assert!(bucket.keys().contains("/1") && bucket.keys().contains("p//1"), "{:?}", bucket.keys());
    bucket.postern(&["cp", "f", "s3://bkt/q//"]).ok();
    assert!(bucket.keys().contains("q//f") && !bucket.keys().contains("q/f"), "{:?}", bucket.keys());
    // What of a directory cannot be told is not taken for gone.
    fs::create_dir(bucket.path().join("kept")).unwrap();
    fs::write(bucket.path().join("kept/old"), "old").unwrap();
    bucket.postern(&["sync", "--delete", "s3://bkt/p", "kept"]).exits(1).says(&["not a valid path"]);
    assert_eq!(fs::read_to_string(bucket.path().join("kept/old")).unwrap(), "old");
    // Read as it is written, too.
    bucket.postern(&["cp", "s3://bkt/p//.", "got"]).ok();
    assert_eq!(fs::read_to_string(bucket.path().join("got/1")).unwrap(), "1");
}

#[test]
fn an_object_and_a_prefix_of_one_name_are_two_things() {
    let Some(bucket) = Bucket::new() else { return };
    let here = bucket.path();
    // What was a directory is a file now, and the reverse.
    bucket.holds(&["p/n/k", "p/m"]);
    fs::create_dir_all(here.join("d/m")).unwrap();
    fs::write(here.join("d/n"), "new").unwrap();
    fs::write(here.join("d/m/x"), "new").unwrap();
    bucket.postern(&["sync", "--delete", "d", "s3://bkt/p"]).ok();
    let files: BTreeSet<String> = bucket.keys().into_iter().filter(|key| !key.ends_with('/')).collect();
    assert_eq!(files, set(&["p/n", "p/m/x"]));
    bucket.postern(&["sync", "s3://bkt/p", "back"]).ok();
    assert_eq!(fs::read_to_string(here.join("back/n")).unwrap(), "new");
    assert_eq!(fs::read_to_string(here.join("back/m/x")).unwrap(), "new");

    bucket.holds(&["something", "something/below"]);
    bucket.postern(&["cp", "s3://bkt/something/.", "contents"]).ok();
    assert_eq!(fs::read_to_string(here.join("contents/below")).unwrap(), "something/below");
    bucket.postern(&["cp", "s3://bkt/something", "object"]).ok();
    assert_eq!(fs::read_to_string(here.join("object")).unwrap(), "something");
    bucket
        .postern(&["cp", "s3://bkt/.", "both"])
        .exits(1)
        .says(&["something: failed (there is an object of this name too", "s3://bkt/something/."]);
}

#[test]
fn a_key_that_no_file_can_have_is_refused_at_once() {
    let Some(bucket) = Bucket::new() else { return };
    let long = format!("c/{}", "l".repeat(300));
    bucket.holds(&["c/..", "c/../x", &long, "c/a[1]", "c/a1", "c/b*"]);
    for source in ["s3://bkt/c/..", &format!("s3://bkt/{long}")] {
        let refused =
            bucket.postern(&["cp", source, "out"]).exits(1).says(&["no file or directory can be named"]);
        assert!(!refused.stderr.contains("connection"), "{}", refused.stderr);
    }
    // What is called just so is meant.
    bucket.postern(&["cp", "s3://bkt/c/a[1]", "one"]).ok();
    assert_eq!(fs::read_to_string(bucket.path().join("one")).unwrap(), "c/a[1]");
    bucket.postern(&["cp", "s3://bkt/c/b\\*", "two"]).ok();
    assert_eq!(fs::read_to_string(bucket.path().join("two")).unwrap(), "c/b*");
}

#[test]
fn an_empty_source_never_empties_a_bucket_by_mistake() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.holds(&["a", "p/1", "p/2"]);
    fs::create_dir(bucket.path().join("empty")).unwrap();
    bucket.postern(&["sync", "--delete", "empty", "s3://bkt/"]).exits(1).says(&["the source is empty"]);
    bucket
        .postern(&["sync", "--delete", "--max-delete", "2", "empty", "s3://bkt/"])
        .exits(1)
        .says(&["allows 2"]);
    assert!(bucket.keys().is_superset(&set(&["a", "p/1", "p/2"])), "{:?}", bucket.keys());
    bucket.postern(&["sync", "--delete=all", "empty", "s3://bkt/"]).ok();
    assert!(bucket.keys().iter().all(|key| key.ends_with('/')), "{:?}", bucket.keys());
}

#[test]
fn a_key_that_exists_is_taken_as_it_is() {
    let Some(bucket) = Bucket::new() else { return };
    bucket.holds(&["pages/[id]/index.tsx", "pages/i/index.tsx", "r[1].txt", "r1.txt"]);
    for (source, got, content) in [
        ("s3://bkt/r[1].txt", "got", "r[1].txt"),
        ("s3://bkt/pages/[id]", "directory/index.tsx", "pages/[id]/index.tsx"),
        ("s3://bkt/pages/[id]/.", "below/index.tsx", "pages/[id]/index.tsx"),
        ("s3://bkt/r[0-9].txt", "matched", "r1.txt"),
        (r"s3://bkt/r\[1\].txt", "quoted", "r[1].txt"),
    ] {
        let target = got.split('/').next().unwrap_or_default();
        bucket.postern(&["cp", source, target]).ok();
        assert_eq!(fs::read_to_string(bucket.path().join(got)).unwrap(), content, "{source}");
    }
}
