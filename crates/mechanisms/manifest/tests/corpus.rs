//! Files as they are found in the wild, read and edited.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and reads better so")]

use std::path::Path;

use postern_manifest::{
    Change, Editor, FieldPath, Input, Limits, ManifestError, Place, ReadOptions, load, parse, parse_plain,
    read,
};
use serde_json::{Value, json};

fn corpus() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let texts = read(&[Input::Path(folder)], &ReadOptions::default(), &mut std::io::empty()).unwrap();
    assert_eq!(texts.len(), 6);
    texts.into_iter().map(|text| (text.file.rsplit('/').next().unwrap().to_owned(), text.text)).collect()
}

fn file(name: &str) -> String {
    corpus().into_iter().find(|(file, _)| file == name).unwrap().1
}

/// `KIND NAMESPACE/NAME LINE:COLUMN` of every object.
fn summary(name: &str) -> Vec<String> {
    let objects = parse(name, &file(name), &Limits::default()).unwrap();
    let line = |object: &postern_manifest::Document| {
        let (namespace, name) =
            (object.namespace.as_deref().unwrap_or(""), object.name.as_deref().unwrap_or(""));
        format!("{} {namespace}/{name} {} {}", object.kind, object.place, object.within)
    };
    objects.iter().map(|object| line(object).trim_end().to_owned()).collect()
}

#[test]
fn objects_are_found_with_their_places() {
    assert_eq!(
        summary("helm.yaml"),
        ["Secret default/shop-redis 3:1", "Deployment /shop-web 20:1", "ConfigMap /shop 73:1",]
    );
    assert_eq!(
        summary("kustomize.yaml"),
        ["Namespace /shop 1:1", "ConfigMap shop/shop-config-7g8m2d5fkh 6:1", "ClusterRole /shop-reader 18:1"]
    );
    assert_eq!(
        summary("list.yaml"),
        [
            "Pod default/a 4:3 items[0]",
            "Service /b 23:5 items[1].items[0]",
            "Service /c 28:5 items[1].items[1]",
        ]
    );
    assert_eq!(summary("list.json"), ["ConfigMap /a 4:9 items[0]", "ConfigMap /b 15:9 items[1]"]);
    assert_eq!(summary("anchors.yaml"), ["Deployment /shop 3:1"]);
    assert_eq!(summary("crlf.yaml"), ["Service /web 2:1", "ConfigMap /text 18:1"]);
}

#[test]
fn helm_names_the_template() {
    let objects = parse("helm.yaml", &file("helm.yaml"), &Limits::default()).unwrap();
    let found: Vec<_> = objects.iter().map(|it| (it.index, it.template.as_deref().unwrap())).collect();
    let templates = [
        "shop/charts/redis/templates/secret.yaml",
        "shop/templates/deployment.yaml",
        "shop/templates/configmap.yaml",
    ];
    assert_eq!(found, [(0, templates[0]), (2, templates[1]), (3, templates[2])]);
    let mode = "spec.template.spec.volumes[0].configMap.defaultMode".parse().unwrap();
    let field = objects[1].places.get(&mode).unwrap();
    assert_eq!(field.place(), Place { line: 70, column: 13 });
    assert_eq!(field.value.place, Place { line: 70, column: 26 });
    assert_eq!(&file("helm.yaml")[field.value.bytes.clone()], "0440");
    assert_eq!(objects[1].value["spec"]["template"]["spec"]["volumes"][0]["configMap"]["defaultMode"], 288);
    let missing: FieldPath = "spec.template.spec.volumes[0].configMap.items[3].key".parse().unwrap();
    assert_eq!(objects[1].at(&missing).to_string(), "helm.yaml:68:11");
    assert_eq!(objects[2].value["data"]["notes.txt"], "first\n\nlast\n\n");
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let objects = parse("anchors.yaml", &file("anchors.yaml"), &Limits::default()).unwrap();
    let value = &objects[0].value;
    assert_eq!(value["metadata"]["labels"], json!({"app": "shop", "tier": "web", "own": "yes"}));
    assert_eq!(value["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"], "100m");
    let merged = objects[0].places.get(&"metadata.labels.app".parse().unwrap()).unwrap();
    assert_eq!(merged.place(), Place { line: 4, column: 3 });
}

fn leaves(value: &Value, path: &FieldPath, all: &mut Vec<FieldPath>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| leaves(value, &path.clone().key(key), all)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| leaves(item, &path.clone().index(at), all));
        }
        _ => all.push(path.clone()),
    }
}

#[test]
fn every_field_of_every_file_can_be_set_and_removed() {
    let mut shared = Vec::new();
    for (name, text) in corpus() {
        for plain in parse_plain(&name, &text, &Limits::default()).unwrap() {
            let mut all = Vec::new();
            leaves(&plain.value, &FieldPath::root(), &mut all);
            for path in all {
                let bytes = plain.places.get(&path).unwrap().value.bytes.clone();
                let mut editor = Editor::new(&name, text.as_str(), Limits::default());
                match editor.change_at(plain.index, &path, &Change::Set(json!("changed"))) {
                    Ok(()) if !bytes.is_empty() && !text[bytes.clone()].contains('\n') => {
                        let merged = name == "anchors.yaml" && path.to_string().contains("labels");
                        let (head, tail) = (&text[..bytes.start], &text[bytes.end..]);
                        let kept = editor.text().starts_with(head) && editor.text().ends_with(tail);
                        assert!(kept || merged, "{name}: {path}\n{}", editor.text());
                    }
                    Ok(()) => {}
                    Err(error @ ManifestError::Shared { .. }) => shared.push(error.to_string()),
                    Err(error) => panic!("{error}"),
                }
                let mut editor = Editor::new(&name, text.as_str(), Limits::default());
                match editor.change_at(plain.index, &path, &Change::Remove) {
                    Ok(()) => assert!(editor.text().len() < text.len()),
                    Err(ManifestError::Shared { .. } | ManifestError::NotFound { .. }) => {
                        assert_eq!(name, "anchors.yaml", "{path}");
                    }
                    Err(error) => panic!("{error}"),
                }
                assert_eq!(name == "crlf.yaml", !editor.text().replace("\r\n", "").contains('\n'));
            }
        }
    }
    let at_anchors = |error: &String| error.starts_with("anchors.yaml:") && error.contains("shared through");
    assert!(!shared.is_empty() && shared.iter().all(at_anchors), "{shared:#?}");
}

#[test]
fn typical_edits_follow_the_style_of_the_file() {
    let edit = |name: &str, index: usize, path: &str, change: Change| {
        let mut editor = Editor::new(name, file(name), Limits::default());
        editor.change_at(index, &path.parse().unwrap(), &change).unwrap();
        editor.into_text()
    };
    let image = "spec.template.spec.containers[0].image";
    assert_eq!(
        edit("helm.yaml", 2, image, Change::Set(json!("web:2"))),
        file("helm.yaml").replace("\"registry.example.com/shop/web:1.16.0\"", "\"web:2\"")
    );
    let mount = json!({"mountPath": "/tmp", "name": "tmp"});
    assert_eq!(
        edit("helm.yaml", 2, "spec.template.spec.containers[0].volumeMounts", Change::Append(mount)),
        file("helm.yaml").replace(
            "readOnly: true}\n",
            "readOnly: true}\n            - mountPath: /tmp\n              name: tmp\n"
        )
    );
    assert_eq!(
        edit("helm.yaml", 2, "spec.template.spec.securityContext.runAsNonRoot", Change::Set(json!(true))),
        file("helm.yaml").replacen("        {}\n", "        runAsNonRoot: true\n", 1)
    );
    let annotation = Change::Set(json!("yes"));
    assert_eq!(
        edit("kustomize.yaml", 1, "metadata.annotations[example.com/a]", annotation),
        file("kustomize.yaml").replace("annotations: {}", "annotations:\n    example.com/a: \"yes\"")
    );
    assert_eq!(
        edit("crlf.yaml", 0, "spec.ports", Change::Append(json!({"name": "x", "port": 1}))),
        file("crlf.yaml").replace("https\r\n", "https\r\n    -   name: x\r\n        port: 1\r\n")
    );
    assert_eq!(
        edit("list.json", 0, "items[0].data.key", Change::Set(json!("value"))),
        file("list.json")
            .replace("\"data\": {}", "\"data\": {\n                \"key\": \"value\"\n            }")
    );
    let removed = file("list.yaml").replace("      image: busybox:1.36 # pinned\n", "");
    assert_eq!(edit("list.yaml", 0, "items[0].spec.containers[0].image", Change::Remove), removed);
}

#[test]
fn several_inputs_are_read_in_their_order() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let inputs = [Input::from(Path::new("-")), Input::Path(folder.join("kustomize.yaml"))];
    let stdin = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}{\"apiVersion\": \"v1\", \"kind\": \"Node\"}";
    let objects = load(&inputs, &ReadOptions::default(), &mut stdin.as_bytes()).unwrap();
    let kinds: Vec<_> = objects.iter().map(|object| (object.kind.as_str(), object.index)).collect();
    assert_eq!(kinds, [("Pod", 0), ("Node", 1), ("Namespace", 0), ("ConfigMap", 1), ("ClusterRole", 2)]);
    assert_eq!(&*objects[1].file, "stdin");
    assert_eq!(objects[1].place, Place { line: 1, column: 36 });
}
