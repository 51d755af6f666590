//! What scalars and keys mean, compared with what kubectl 1.32 made of them, as printed by
//! `kubectl annotate --local -f - -o json`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and reads better so")]

use postern_manifest::{Limits, parse_plain};
use serde_json::{Value, json};

fn read(text: &str) -> Result<Value, String> {
    let documents = parse_plain("test.yaml", text, &Limits::default()).map_err(|error| error.to_string())?;
    Ok(documents.into_iter().next().unwrap().value)
}

#[test]
fn scalars_mean_what_they_mean_to_kubectl() {
    for (written, meant) in [
        // YAML 1.1 booleans, in these three spellings only.
        ("yes", json!(true)),
        ("Yes", json!(true)),
        ("YES", json!(true)),
        ("y", json!(true)),
        ("on", json!(true)),
        ("True", json!(true)),
        ("no", json!(false)),
        ("n", json!(false)),
        ("N", json!(false)),
        ("Off", json!(false)),
        ("oN", json!("oN")),
        ("tRUE", json!("tRUE")),
        ("\"yes\"", json!("yes")),
        ("'on'", json!("on")),
        // Null.
        ("", json!(null)),
        ("~", json!(null)),
        ("Null", json!(null)),
        ("nUll", json!("nUll")),
        ("\"\"", json!("")),
        // Integers: YAML 1.1 octal, and the prefix of YAML 1.2.
        ("0644", json!(420)),
        ("0o17", json!(15)),
        ("0O17", json!(15)),
        ("0x1F", json!(31)),
        ("0X1f", json!(31)),
        ("-0x1F", json!(-31)),
        ("0b11", json!(3)),
        ("0B11", json!(3)),
        ("-0b11", json!(-3)),
        ("0b-1", json!(-1)),
        ("0b1_1", json!(3)),
        ("1_000", json!(1000)),
        ("1__0", json!(10)),
        ("1_", json!(1)),
        ("_1", json!("_1")),
        ("0_7", json!(7)),
        ("0x_1F", json!(31)),
        ("+5", json!(5)),
        ("-0", json!(0)),
        ("00", json!(0)),
        ("0x", json!("0x")),
        ("0b", json!("0b")),
        ("+-1", json!("+-1")),
        ("9223372036854775807", json!(9_223_372_036_854_775_807_i64)),
        ("-9223372036854775808", json!(-9_223_372_036_854_775_808_i64)),
        ("9223372036854775808", json!(9.223_372_036_854_776e18)),
        ("-9223372036854775809", json!(-9.223_372_036_854_776e18)),
        ("12345678901234567890", json!(1.234_567_890_123_456_7e19)),
        ("123456789012345678901234567890", json!(1.234_567_890_123_456_8e29)),
        ("0xfffffffffffffffff", json!("0xfffffffffffffffff")),
        // Digits that are no octal number are a float; a whole float is an integer in JSON.
        ("08", json!(8)),
        ("09.5", json!(9.5)),
        ("0644.5", json!(644.5)),
        ("1.0", json!(1)),
        ("5.", json!(5)),
        ("1.e5", json!(100_000)),
        ("1e3", json!(1000)),
        ("1E5", json!(100_000)),
        ("12e03", json!(12000)),
        (".5", json!(0.5)),
        ("+.5", json!(0.5)),
        ("-.5", json!(-0.5)),
        (".1e5", json!(10000)),
        (".5_0", json!(0.5)),
        ("._5", json!("._5")),
        ("1_.5", json!(1.5)),
        ("0.1_0", json!(0.1)),
        ("-0.0", json!(0)),
        ("1e21", json!(1e21)),
        ("1.5e300", json!(1.5e300)),
        ("100000000000000000000.0", json!(1e20)),
        ("4611686018427387904.0", json!(4_611_686_018_427_388_000_i64)),
        ("1e400", json!("1e400")),
        (".5e400", json!(".5e400")),
        ("0x1p4", json!("0x1p4")),
        (".", json!(".")),
        (".e5", json!(".e5")),
        ("Infinity", json!("Infinity")),
        ("NaN", json!("NaN")),
        // No base 60, and times are strings.
        ("1:30", json!("1:30")),
        ("2001-01-01", json!("2001-01-01")),
        ("2001-1-1 1:2:3", json!("2001-1-1 1:2:3")),
        ("2001-12-14t21:59:43.10-05:00", json!("2001-12-14t21:59:43.10-05:00")),
        ("=", json!("=")),
        // Tags.
        ("!!str 5", json!("5")),
        ("!!str", json!("")),
        ("!!int \"5\"", json!(5)),
        ("!!int 0644", json!(420)),
        ("!!float 5", json!(5)),
        ("!!bool yes", json!(true)),
        ("!!timestamp 2001-01-01", json!("2001-01-01")),
        ("!foo bar", json!("bar")),
        ("!!map {b: 1}", json!({"b": 1})),
        ("!!set {b}", json!({"b": null})),
        ("!!omap [b: 1]", json!([{"b": 1}])),
    ] {
        assert_eq!(read(&format!("a: {written}\n")), Ok(json!({ "a": meant })), "{written}");
    }
}

#[test]
fn what_kubectl_refuses_is_refused() {
    for written in [".inf", "-.Inf", ".nan", "!!null x", "!!bool 5"] {
        let error = read(&format!("x: 1\na: {written}\n")).unwrap_err();
        assert!(error.starts_with("test.yaml:2:"), "{error}");
    }
    // kubectl decodes this, but the result is not always text; a manifest has base64 there without the tag.
    assert!(read("a: !!binary aGk=").unwrap_err().contains("!!binary"));
}

#[test]
fn keys_become_the_strings_that_kubectl_makes_of_them() {
    for (written, meant) in [
        ("5", "5"),
        ("yes", "true"),
        ("n", "false"),
        ("0644", "420"),
        ("1.50", "1.5"),
        ("1e6", "1e+06"),
        ("1e-5", "1e-05"),
        ("0.0001", "0.0001"),
        ("100000.5", "100000.5"),
        ("123456789.0", "1.2345679e+08"),
        ("1234567.0", "1.234567e+06"),
        ("999999.0", "999999"),
        ("-1e6", "-1e+06"),
        ("4611686018427387904.0", "4.611686e+18"),
        ("2001-01-01", "2001-01-01"),
        ("'yes'", "yes"),
        ("\"<<\"", "<<"),
    ] {
        assert_eq!(read(&format!("{written}: x\n")), Ok(json!({ meant: "x" })), "{written}");
    }
    for written in ["~", "12345678901234567890", "[a]", "{a: b}"] {
        assert!(read(&format!("{written}: x\n")).unwrap_err().contains("cannot be the key"), "{written}");
    }
}

#[test]
fn merge_keys_follow_the_order_of_the_text() {
    for (text, meant) in [
        ("b: &b {k: 1, j: 2}\ns: {<<: *b, k: 5}", json!({"k": 5, "j": 2})),
        ("b: &b {k: 1, j: 2}\ns: {k: 5, <<: *b}", json!({"k": 1, "j": 2})),
        ("b: &b {k: 1}\nc: &c {k: 2, m: 3}\ns: {<<: [*b, *c]}", json!({"k": 1, "m": 3})),
        ("b: &b {k: 1}\ns: {\"<<\": *b}", json!({"<<": {"k": 1}})),
        ("s: {<<: {a: 1}, b: 2}", json!({"a": 1, "b": 2})),
    ] {
        assert_eq!(read(text).unwrap()["s"], meant, "{text}");
    }
    assert!(read("s: {<<: 3}").unwrap_err().contains("takes a mapping"));
}
