//! The report as SARIF 2.1.0 (OASIS Standard, with Errata 01), for code scanning.
//!
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>; sections are named where they are applied.

use crate::clean::web_url;
use crate::error::ReportError;
use crate::finding::{Evidence, FilePosition, Finding, Place};
use crate::report::{Report, Tool, utc};
use crate::severity::Severity;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// What a path keeps as it is: RFC 3986 `unreserved`, and the slash. A colon could be read as the end of a scheme.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The fingerprint's name and version (§3.27.17): the version changes when the fingerprint is made from other parts.
const FINGERPRINT: &str = "posternFinding/v1";

/// Writes the report as SARIF 2.1.0.
pub fn sarif(report: &Report, out: &mut impl Write) -> Result<(), ReportError> {
    let Report {
        tool: Tool { name, version },
        title,
        command,
        started_at,
        generated_at,
        findings,
        rules,
        charts: _, // SARIF has no place for them
        notes,
    } = report;
    // Every rule that a result names has a descriptor, also one that is not described.
    let ids: BTreeSet<&str> = rules
        .keys()
        .map(String::as_str)
        .chain(findings.iter().map(|finding| finding.rule.as_str()))
        .collect();
    let indices: BTreeMap<&str, usize> = ids.iter().enumerate().map(|(index, id)| (*id, index)).collect();
    let descriptors: Vec<Value> = ids.iter().map(|id| descriptor(id, report)).collect();
    let results: Vec<Value> = findings.iter().map(|finding| result(finding, &indices)).collect();
    // §3.20: the findings say whether the check passed; the run itself succeeded, since there is a report.
    let mut invocation = json!({ "executionSuccessful": true, "endTimeUtc": utc(*generated_at) });
    if let Some(at) = started_at {
        invocation["startTimeUtc"] = utc(*at).into();
    }
    if let Some(command) = command {
        invocation["commandLine"] = command.as_str().into();
    }
    if !notes.is_empty() {
        let notes = notes.iter().map(|note| json!({ "level": "note", "message": message(note) }));
        invocation["toolExecutionNotifications"] = notes.collect();
    }
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": name, "version": version, "rules": descriptors } },
            "automationDetails": { "description": message(title) },
            "invocations": [invocation],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    Ok(writeln!(out, "{}", serde_json::to_string_pretty(&log)?)?)
}

/// A reportingDescriptor (§3.49).
fn descriptor(id: &str, report: &Report) -> Value {
    let mut descriptor = json!({ "id": id });
    if let Some(rule) = report.rules.get(id) {
        descriptor["shortDescription"] = message(&rule.description);
        if let Some(url) = rule.help_url.as_deref().and_then(web_url) {
            descriptor["helpUri"] = url.into();
        }
    }
    descriptor
}

/// A result (§3.27). Its level must be `none` unless its kind is `fail` (§3.27.10).
fn result(finding: &Finding, indices: &BTreeMap<&str, usize>) -> Value {
    let Finding { rule, severity, subject: _, place: _, message: seen, evidence, fix, reference } = finding;
    let (kind, level) = match severity {
        Severity::Problem => ("fail", "error"),
        Severity::Warning => ("fail", "warning"),
        Severity::Inconclusive => ("open", "none"),
        Severity::Skipped => ("notApplicable", "none"),
        Severity::Ok => ("pass", "none"),
    };
    let mut properties = Map::new();
    if !evidence.is_empty() {
        properties.insert("evidence".to_owned(), evidence.iter().map(shown).collect());
    }
    // A SARIF fix (§3.55) is a change of files; ours is a sentence.
    for (name, value) in [("fix", fix), ("reference", reference)] {
        if let Some(value) = value {
            properties.insert(name.to_owned(), value.as_str().into());
        }
    }
    // Viewers show the message only, so it says what to do as well.
    let whole = fix.as_ref().map_or_else(|| seen.clone(), |fix| format!("{seen}\nFix: {fix}"));
    let mut result = json!({
        "ruleId": rule,
        "ruleIndex": indices.get(rule.as_str()),
        "kind": kind,
        "level": level,
        "message": message(&whole),
        "locations": [location(finding)],
        "partialFingerprints": { FINGERPRINT: fingerprint(finding) },
    });
    if !properties.is_empty() {
        result["properties"] = properties.into();
    }
    result
}

fn shown(evidence: &Evidence) -> Value {
    match evidence {
        Evidence::Text(text) => text.as_str().into(),
        Evidence::Command(command) => format!("$ {command}").into(),
    }
}

/// A location (§3.28): the object, the field and the item as logical locations, and the file as the physical one.
fn location(finding: &Finding) -> Value {
    let (subject, place) = (&finding.subject, &finding.place);
    let name = subject.qualified_name();
    let mut logical = vec![json!({ "name": subject.name(), "fullyQualifiedName": name, "kind": "resource" })];
    for (part, kind) in [(&place.field, "property"), (&place.item, "member")] {
        if let Some(part) = part {
            let name = format!("{name}/{part}");
            logical.push(json!({ "name": part, "fullyQualifiedName": name, "kind": kind }));
        }
    }
    let mut location = json!({ "logicalLocations": logical });
    if let Some(FilePosition { path, line, column }) = finding.file() {
        let mut physical = json!({ "artifactLocation": { "uri": uri(path) } });
        if let Some(line) = line.filter(|line| *line > 0) {
            physical["region"] = json!({ "startLine": line });
            if let Some(column) = column.filter(|column| *column > 0) {
                physical["region"]["startColumn"] = column.into();
            }
        }
        location["physicalLocation"] = physical;
    }
    location
}

/// A path as a URI reference (§3.4.3): relative, or `file:` for an absolute one.
fn uri(path: &str) -> String {
    let encoded = utf8_percent_encode(path.trim_start_matches("./"), PATH).to_string();
    if path.starts_with('/') { format!("file://{encoded}") } else { encoded }
}

/// A message (§3.11). Braces are doubled (§3.11.5) and brackets escaped (§3.11.6), so that a viewer takes neither for a
/// placeholder nor for a link.
fn message(text: &str) -> Value {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '{' => escaped.push_str("{{"),
            '}' => escaped.push_str("}}"),
            '[' => escaped.push_str("\\["),
            ']' => escaped.push_str("\\]"),
            other => escaped.push(other),
        }
    }
    json!({ "text": escaped })
}

/// What is the same for the same finding in the next run (§3.27.17): the rule, the subject, and the file, the field and the item. Not the
/// line and the message: both change when something else does.
fn fingerprint(finding: &Finding) -> String {
    let Finding { rule, subject, place, severity: _, message: _, evidence: _, fix: _, reference: _ } =
        finding;
    let Place { path, line: _, column: _, field, item } = place;
    let mut hasher = blake3::Hasher::new();
    let parts = [
        Some(rule.as_str()),
        subject.context(),
        subject.namespace(),
        Some(subject.kind()),
        Some(subject.name()),
        path.as_deref(),
        field.as_deref(),
        item.as_deref(),
    ];
    for part in parts {
        // The length is hashed too, so that no two lists of parts are the same bytes.
        hasher.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default().as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use crate::subject::{Object, Subject};

    fn log(report: &Report) -> Value {
        let mut out = String::new();
        sarif(report, &mut out).unwrap();
        serde_json::from_str(&out).unwrap()
    }

    #[test]
    fn an_example_is_pinned() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&log(&sample::report())).unwrap());
    }

    /// What the schema and the text of the standard require of every log that we write.
    #[test]
    fn what_is_required_is_there() {
        for report in [sample::report(), sample::hostile(), sample::empty()] {
            let log = log(&report);
            assert_eq!(log["version"], "2.1.0");
            let run = &log["runs"][0];
            let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
            let results = run["results"].as_array().unwrap();
            assert_eq!(results.len(), report.findings.len());
            for result in results {
                let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
                assert_eq!(rules[index]["id"], result["ruleId"]);
                assert!(result["kind"] == "fail" || result["level"] == "none");
                assert!(result["message"]["text"].is_string());
                let location = &result["locations"][0];
                assert!(location["logicalLocations"][0]["fullyQualifiedName"].is_string());
                assert_eq!(result["partialFingerprints"][FINGERPRINT].as_str().unwrap().len(), 32);
            }
        }
    }

    #[test]
    fn a_fingerprint_survives_an_edit_of_the_file() {
        let finding =
            |line| Finding::new("r", Severity::Problem, Subject::file("a.yaml"), "m").at_line(line, None);
        assert_eq!(fingerprint(&finding(1)), fingerprint(&finding(2)));
        let pod = |namespace: &str, name: &str| {
            Finding::new("r", Severity::Problem, Object::new("Pod", name).namespace(namespace), "m")
        };
        assert_ne!(fingerprint(&pod("a", "b")), fingerprint(&pod("b", "a")));
        assert_ne!(fingerprint(&pod("a", "b")), fingerprint(&pod("a", "b").at_field("spec")));
        // A change of this value makes every alert of every user a new one.
        assert_eq!(fingerprint(&pod("a", "b")), "89df735fbc03471394a3af7541da0c66");
    }

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("./deploy/a b.yaml"), "deploy/a%20b.yaml");
        assert_eq!(uri("/etc/ä"), "file:///etc/%C3%A4");
        assert_eq!(uri("c:x\n"), "c%3Ax%0A");
    }

    #[test]
    fn a_message_is_no_link_and_no_placeholder() {
        assert_eq!(message("[a](b) {0}")["text"], "\\[a\\](b) {{0}}");
    }
}
