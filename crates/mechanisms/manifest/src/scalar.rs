//! What a plain scalar means: the rules of sigs.k8s.io/yaml, which kubectl uses.
//!
//! They are those of go-yaml v2: YAML 1.1 (<https://yaml.org/type/>) without base 60, with the octal numbers of YAML
//! 1.2 in addition, and numbers as the JSON in between writes them.

use serde_json::{Number, Value};

/// A scalar's meaning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer that is larger than an `i64`.
    Uint(u64),
    Float(f64),
    Text,
}

/// What an untagged plain scalar means.
pub(crate) fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match text.as_bytes().first() {
        Some(b'.') => float_from_dot(text).map_or(Scalar::Text, Scalar::Float),
        Some(b'0'..=b'9' | b'+' | b'-') => number(text),
        _ => Scalar::Text,
    }
}

/// Numbers that begin with a digit or a sign. Underscores are ignored anywhere.
fn number(text: &str) -> Scalar {
    let plain = text.replace('_', "");
    if is_timestamp(text) {
        return Scalar::Text; // go-yaml reads a time here, and hands it on as it is written
    }
    if let Some(integer) = integer(&plain) {
        return integer;
    }
    if is_float(&plain) {
        return plain
            .parse()
            .ok()
            .filter(|float: &f64| float.is_finite())
            .map_or(Scalar::Text, Scalar::Float);
    }
    // go-yaml takes a sign behind the prefix of a binary number.
    let binary = match (plain.strip_prefix("0b"), plain.strip_prefix("-0b")) {
        (Some(digits), _) => i64::from_str_radix(digits, 2).ok(),
        (None, Some(digits)) => i64::from_str_radix(&format!("-{digits}"), 2).ok(),
        (None, None) => None,
    };
    binary.map_or(Scalar::Text, Scalar::Int)
}

/// An integer with an optional sign and the prefix `0x`, `0o`, `0b` or `0`.
fn integer(plain: &str) -> Option<Scalar> {
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain),
    };
    let prefix = digits.get(..2).unwrap_or_default().to_ascii_lowercase();
    let (radix, digits) = match prefix.as_str() {
        "0x" => (16, &digits[2..]),
        "0o" => (8, &digits[2..]),
        "0b" => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None; // from_str_radix takes a second sign
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match negative {
        true => 0_i64.checked_sub_unsigned(magnitude).map(Scalar::Int),
        // An unsigned number has no sign at all in go-yaml, and becomes a float with one.
        false => match i64::try_from(magnitude) {
            Ok(integer) => Some(Scalar::Int(integer)),
            Err(_) => (!plain.starts_with('+')).then_some(Scalar::Uint(magnitude)),
        },
    }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn is_float(plain: &str) -> bool {
    let unsigned = plain.strip_prefix(['-', '+']).unwrap_or(plain);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    whole && exponent.is_none_or(digits)
}

/// `.5`, where an underscore may stand between digits.
fn float_from_dot(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let between = |at: usize| {
        let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        at > 0 && digit(bytes.get(at - 1)) && digit(bytes.get(at + 1))
    };
    let placed = bytes.iter().enumerate().all(|(at, byte)| *byte != b'_' || between(at));
    let plain = text.replace('_', "");
    let float: f64 = (placed && is_float(&plain)).then(|| plain.parse().ok()).flatten()?;
    float.is_finite().then_some(float)
}

/// Whether go-yaml may read a time. Only its start is compared, as such a text is a string in any case.
pub(crate) fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() > 5
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5].is_ascii_digit()
}

/// A float as Kubernetes has it: through JSON, where a whole number in the range of an `i64` is an integer.
/// Nothing for infinity and for what is no number.
pub(crate) fn float(float: f64) -> Option<Number> {
    // Go writes the shortest digits that read back as the same number, and so does Rust.
    let written = float.to_string();
    match written.parse::<i64>() {
        Ok(integer) if float.abs() < 1e21 => Some(integer.into()),
        _ => Number::from_f64(float),
    }
}

/// A number as Kubernetes has it, so that numbers can be compared.
pub(crate) fn normal_number(number: &Number) -> Number {
    match number.as_i64() {
        Some(integer) => integer.into(),
        None => number.as_f64().and_then(float).unwrap_or_else(|| number.clone()),
    }
}

/// A value with its numbers as Kubernetes has them.
pub(crate) fn normal(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(normal_number(number)),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), normal(value))).collect(),
        other => other.clone(),
    }
}

/// A scalar key as a string. Nothing for a key that JSON cannot have.
pub(crate) fn key(scalar: &Scalar, text: &str) -> Option<String> {
    match scalar {
        Scalar::Text => Some(text.to_owned()),
        Scalar::Bool(value) => Some(value.to_string()),
        Scalar::Int(integer) => Some(integer.to_string()),
        Scalar::Float(float) => Some(float_key(*float)),
        Scalar::Null | Scalar::Uint(_) => None,
    }
}

/// Go's `strconv.FormatFloat(value, 'g', -1, 32)`, with YAML's names for what is no finite number.
fn float_key(float: f64) -> String {
    #[allow(clippy::cast_possible_truncation)] // Go does the same
    let single = float as f32;
    if single.is_nan() {
        return ".nan".to_owned();
    }
    if single.is_infinite() {
        return if single > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    let scientific = format!("{single:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    single.to_string()
}
