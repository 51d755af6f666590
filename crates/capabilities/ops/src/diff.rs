//! The changes of an apply, field by field, without secrets.

use postern_kube::kube::core::DynamicObject;
use serde_json::Value;

/// Returns the differences as lines of `path: before → after`. Fields that the server maintains are left out, and so
/// are the values of a Secret: the lines only say that they differ.
pub(crate) fn lines(before: &DynamicObject, after: &DynamicObject) -> Vec<String> {
    let value = |object: &DynamicObject| serde_json::to_value(object).unwrap_or_default();
    let (mut before, mut after) = (value(before), value(after));
    for object in [&mut before, &mut after] {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for key in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
                metadata.remove(key);
            }
        }
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
    }
    let secret = after.get("kind").and_then(Value::as_str) == Some("Secret");
    let mut lines = Vec::new();
    walk("", &before, &after, secret, &mut lines);
    lines
}

fn walk(path: &str, before: &Value, after: &Value, secret: bool, lines: &mut Vec<String>) {
    if before == after {
        return;
    }
    if let (Value::Object(one), Value::Object(other)) = (before, after) {
        let mut keys: Vec<_> = one.keys().chain(other.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
            walk(&below, &side(one), &side(other), secret, lines);
        }
        return;
    }
    let hidden = secret && path.starts_with("data");
    let show = |value: &Value| match value {
        Value::Null => "(none)".to_owned(),
        _ if hidden => "(a secret)".to_owned(),
        other => other.to_string(),
    };
    lines.push(format!("{path}: {} → {}", show(before), show(after)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_and_secrets_are_not_shown() {
        let object = |json: &str| serde_json::from_str::<DynamicObject>(json).unwrap();
        let before = object(
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","resourceVersion":"1","labels":{"a":"1"}},
            "data":{"K":"b2xk"}}"#,
        );
        let after = object(
            r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","resourceVersion":"2","labels":{"a":"2"}},
            "data":{"K":"bmV3","L":"eA=="}}"#,
        );
        let want = [
            "data.K: (a secret) → (a secret)",
            "data.L: (none) → (a secret)",
            r#"metadata.labels.a: "1" → "2""#,
        ];
        assert_eq!(lines(&before, &after), want);
        assert!(lines(&before, &before).is_empty());
    }
}
