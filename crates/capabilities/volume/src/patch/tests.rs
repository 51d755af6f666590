use super::*;

const DEPLOYMENT: &str = "\
# Who owns this: team web.
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      securityContext:   # not root
        runAsUser: 1000
        runAsGroup: 2000
      containers:
      - name: web
        image: \"web:1\" # pinned
        volumeMounts:
        - {name: data, mountPath: /data}
      volumes:
      - name: data
        persistentVolumeClaim: {claimName: data}
";

fn options() -> Options {
    Options {
        program: Program::Agent,
        image: Some("agent:1".to_owned()),
        selection: Selection::default(),
        keep_setuid: false,
        allow_hard_links: false,
    }
}

#[test]
fn the_init_container_is_added_and_the_rest_stays_byte_for_byte() {
    let patched = patch("web.yaml", DEPLOYMENT, &options()).unwrap();
    assert_eq!(patched.changes, [("Deployment web".to_owned(), Change::Added)]);
    let added: Vec<&str> = patched.text.lines().filter(|line| !DEPLOYMENT.contains(line)).collect();
    assert!(added.iter().any(|line| line.trim() == "initContainers:"), "{}", patched.text);
    let rest: String = patched
        .text
        .split_inclusive('\n')
        .scan(DEPLOYMENT.split_inclusive('\n').peekable(), |left, line| {
            Some(left.next_if_eq(&line).unwrap_or_default())
        })
        .collect();
    assert_eq!(rest, DEPLOYMENT);
    let object = &parse("web.yaml", &patched.text, &Limits::default()).unwrap()[0].value;
    let init = &object["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(init["name"], "postern-own");
    assert_eq!(init["command"][2], "1000:2000");
}

#[test]
fn a_second_patch_changes_nothing() {
    let once = patch("web.yaml", DEPLOYMENT, &options()).unwrap().text;
    let twice = patch("web.yaml", &once, &options()).unwrap();
    assert_eq!(twice.changes[0].1, Change::Unchanged);
    assert_eq!(twice.text, once);
}

#[test]
fn a_patch_follows_the_user_of_the_workload() {
    let once = patch("web.yaml", DEPLOYMENT, &options()).unwrap().text;
    let other = once.replace("runAsUser: 1000", "runAsUser: 1001");
    let again = patch("web.yaml", &other, &options()).unwrap();
    assert_eq!(again.changes[0].1, Change::Updated);
    assert_eq!(again.text, once.replace("1000", "1001"));
    let root = once.replace("runAsUser: 1000", "runAsUser: 0");
    let again = patch("web.yaml", &root, &options()).unwrap();
    assert_eq!(again.changes[0].1, Change::Updated);
    assert!(!again.text.contains("postern-own"), "{}", again.text);
    let none = patch("web.yaml", &DEPLOYMENT.replace("1000", "0"), &options()).unwrap();
    assert_eq!((none.changes[0].1, none.text), (Change::NotNeeded, DEPLOYMENT.replace("1000", "0")));
}

#[test]
fn it_comes_before_the_init_containers_that_are_there() {
    let text = DEPLOYMENT.replace(
        "      volumes:\n",
        "      initContainers:\n      - name: migrate # as the user\n        image: web:1\n      volumes:\n",
    );
    let patched = patch("web.yaml", &text, &options()).unwrap();
    let object = &parse("web.yaml", &patched.text, &Limits::default()).unwrap()[0].value;
    let init = object["spec"]["template"]["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<_> = init.iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["postern-own", "migrate"]);
    assert!(patched.text.contains("- name: migrate # as the user\n"));
    assert_eq!(patch("web.yaml", &patched.text, &options()).unwrap().text, patched.text);
}

#[test]
fn the_shell_runs_in_the_image_of_the_workload() {
    let shell = Options { program: Program::Shell, image: None, ..options() };
    let patched = patch("web.yaml", DEPLOYMENT, &shell).unwrap();
    let object = &parse("web.yaml", &patched.text, &Limits::default()).unwrap()[0].value;
    let init = &object["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!((&init["image"], &init["command"][0]), (&"web:1".into(), &"sh".into()));
}

#[test]
fn an_error_names_the_object_and_its_place() {
    let text = DEPLOYMENT.replace("        runAsGroup: 2000\n", "");
    let error = patch("web.yaml", &text, &options()).unwrap_err();
    assert_eq!(error.to_string(), "web.yaml:7:5: Deployment web cannot be patched");
    assert!(error.hint().unwrap().contains("runAsGroup"));
    let error = patch("web.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n", &options());
    assert!(error.unwrap_err().to_string().contains("has no workload"));
}

#[test]
fn a_selection_leaves_other_workloads_of_the_file_alone() {
    let other = DEPLOYMENT.replace("name: web}", "name: other}").replace("name: data", "name: cache");
    let text = format!("{DEPLOYMENT}---\n{other}");
    let selection = Selection { volumes: vec!["cache".to_owned()], container: None };
    let patched = patch("all.yaml", &text, &Options { selection, ..options() }).unwrap();
    assert_eq!(patched.changes, [("Deployment other".to_owned(), Change::Added)]);
    assert!(patched.text.starts_with(DEPLOYMENT));
}

#[test]
fn only_our_own_names_are_ours() {
    assert!(is_ours("postern-own") && is_ours("postern-own-2"));
    assert!(!is_ours("postern-own-") && !is_ours("postern-owner") && !is_ours("postern-own-x"));
}
