//! Reports for tests and for the example: a realistic one, a hostile one, an empty one and a large one.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each of the programs that include this file uses a part of it"
)]

use jiff::Timestamp;
use postern_report::{Chart, ChartKind, Finding, Object, Report, Severity, Subject, Tool};

const TOKENS: &str = "https://kubernetes.io/docs/concepts/security/service-accounts/";

fn tool() -> Tool {
    Tool { name: "postern".to_owned(), version: "0.1.0".to_owned() }
}

fn named(title: &str) -> Report {
    let mut report = Report::new(tool(), title, Timestamp::constant(1_772_442_847, 0));
    report.started_at = Some(Timestamp::constant(1_772_442_843, 0));
    report
}

/// What a look at a cluster and its manifests may find.
pub fn report() -> Report {
    let mut report = named("Review of cluster prod-eu");
    report.command = Some("postern review --context prod-eu --manifests deploy/ -o html".to_owned());
    report
        .notes
        .push("You may not list namespaces: only postern-ops, shop and billing were looked at.".to_owned());
    report.rule("ops/namespace", "The namespace of the ops pod exists.", None);
    report.rule("ops/image", "The ops pod runs the image of this version.", None);
    report.rule("ops/pod", "The ops pod is ready.", None);
    report.rule("ops/exec", "The agent of the ops pod answers.", None);
    report.rule("ops/credential", "The pod sees the credentials that its Secret holds.", None);
    report.rule("ops/tool", "The tool is in the PATH of the image.", None);
    report.rule("identity/token", "A token for the provider can be read.", Some(TOKENS));
    report.rule("identity/issuer", "The issuer has published the key that signed the token.", Some(TOKENS));
    report.rule("identity/clock", "The clock is within 30 s of the provider's.", None);
    let rbac = "https://kubernetes.io/docs/reference/access-authn-authz/rbac/";
    report.rule("rbac/excess", "A ServiceAccount has no permission beyond what was declared.", Some(rbac));
    report.rule("rbac/missing", "A ServiceAccount has every permission that was declared.", Some(rbac));
    let standards = "https://kubernetes.io/docs/concepts/security/pod-security-standards/";
    report.rule("lint/privileged", "A container is not privileged.", Some(standards));
    report.rule("lint/latest-tag", "An image is named by version or digest.", None);
    report.rule("lint/probe", "A container that serves has a readiness probe.", None);
    report.rule("sizing/memory", "The memory limit fits what the container uses.", None);
    report.findings = [ops(), identity(), rbac_findings(), manifests()].concat();
    report.charts = charts();
    report.sort();
    report
}

fn ops() -> Vec<Finding> {
    let pod =
        || Object::new("Pod", "postern-ops").namespace("postern-ops").context("prod-eu").api_version("v1");
    vec![
        Finding::new(
            "ops/namespace",
            Severity::Ok,
            Object::new("Namespace", "postern-ops"),
            "The namespace exists.",
        ),
        Finding::new(
            "ops/image",
            Severity::Problem,
            pod(),
            "The pod runs version 0.0.9, this program installs 0.1.0.",
        )
        .at_field("spec.containers[0].image")
        .text("ghcr.io/example/postern-ops:0.0.9")
        .command("kubectl get pod postern-ops -n postern-ops -o jsonpath='{.spec.containers[0].image}'")
        .fix("Run `postern ops install`."),
        Finding::new("ops/pod", Severity::Ok, pod(), "The pod is ready."),
        Finding::new("ops/exec", Severity::Ok, pod(), "The agent answers: postern-agent 0.0.9."),
        Finding::new(
            "ops/credential",
            Severity::Ok,
            pod(),
            "The pod sees AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.",
        ),
        Finding::new("ops/tool", Severity::Skipped, pod(), "Not checked: the image will be replaced."),
    ]
}

fn identity() -> Vec<Finding> {
    let provider = || Subject::named("provider", "aws-prod");
    vec![
        Finding::new("identity/token", Severity::Ok, provider(), "Read from /var/run/secrets/tokens/aws."),
        Finding::new(
            "identity/issuer",
            Severity::Problem,
            provider(),
            "https://oidc.example.org/prod-eu has 2 keys, and not the one that signed the token.",
        )
        .text("token   kid 4cPZk1Vq8vF0\nissuer  kid 9hVxQmL27bTe, kid Zr0aHd31YwSu")
        .command("postern identity issuer diff --context prod-eu")
        .fix("Publish the cluster's keys again; `postern identity issuer mirror --watch` keeps them published.")
        .reference("https://github.com/kubernetes/enhancements/tree/master/keps/sig-auth/1393-oidc-discovery"),
        Finding::new("identity/clock", Severity::Ok, provider(), "Within 1 s of the provider's."),
        Finding::new(
            "identity/issuer",
            Severity::Inconclusive,
            Subject::named("provider", "keycloak"),
            "https://kubernetes.default.svc cannot be read from here: connection refused.",
        )
        .fix("The provider may reach it where this machine does not; otherwise publish a copy of the keys."),
    ]
}

fn rbac_findings() -> Vec<Finding> {
    let account = || Object::new("ServiceAccount", "deployer").namespace("shop").context("prod-eu");
    let excess = |permission: &str, binding: &str| {
        Finding::new(
            "rbac/excess",
            Severity::Problem,
            account(),
            "It has a permission that was not declared.",
        )
        .at_item(permission)
        .text(format!("granted by {binding}"))
        .command("kubectl auth can-i --list -n shop --as system:serviceaccount:shop:deployer")
        .fix("Remove the rule from the Role, or declare the permission.")
    };
    vec![
        excess("get secrets -n shop", "RoleBinding shop/ci-edit"),
        excess("create pods/exec -n billing", "ClusterRoleBinding ci-debug"),
        Finding::new(
            "rbac/missing",
            Severity::Warning,
            Object::new("ServiceAccount", "reader").namespace("billing").context("prod-eu"),
            "Declared and not granted: list pods in namespace billing.",
        )
        .fix("Apply the Role that `postern ops rbac` prints."),
    ]
}

fn manifests() -> Vec<Finding> {
    let deployment = |name: &str| Object::new("Deployment", name).namespace("shop").api_version("apps/v1");
    vec![
        Finding::new(
            "lint/privileged",
            Severity::Problem,
            deployment("node-tuner"),
            "The container is privileged.",
        )
        .in_file("deploy/node-tuner.yaml", Some(31), Some(13))
        .at_field("spec.template.spec.containers[0].securityContext.privileged")
        .text("securityContext:\n  privileged: true\n  runAsUser: 0")
        .fix("Remove `privileged`, and add the single capability that the program needs.")
        .reference("https://kubernetes.io/docs/concepts/security/pod-security-standards/"),
        Finding::new(
            "lint/latest-tag",
            Severity::Warning,
            deployment("api"),
            "The image has the tag `latest`.",
        )
        .in_file("deploy/api.yaml", Some(18), Some(16))
        .at_field("spec.template.spec.containers[0].image")
        .text("image: registry.example.org/shop/api:latest"),
        Finding::new("lint/probe", Severity::Warning, deployment("worker"), "There is no readiness probe.")
            .in_file("deploy/worker.yaml", Some(22), None)
            .fix("Add a `readinessProbe` for port 8080."),
        Finding::new("lint/probe", Severity::Ok, deployment("api"), "There is a readiness probe.").in_file(
            "deploy/api.yaml",
            Some(27),
            Some(11),
        ),
        Finding::new(
            "lint/latest-tag",
            Severity::Inconclusive,
            Subject::file("deploy/broken.yaml"),
            "The file is not YAML: mapping values are not allowed here.",
        )
        .at_line(7, Some(22))
        .text("  name: shop: api"),
        Finding::new(
            "sizing/memory",
            Severity::Warning,
            deployment("api"),
            "The limit is 4 times what is used.",
        )
        .at_field("spec.template.spec.containers[0].resources.limits.memory")
        .text("limit 2048 MiB, maximum of 7 days 497 MiB")
        .fix("Set the limit to 640Mi."),
    ]
}

fn charts() -> Vec<Chart> {
    let containers = ["shop/api: api", "shop/api: proxy", "shop/worker: worker", "billing/ledger: ledger"];
    let days = ["24 Feb", "25 Feb", "26 Feb", "27 Feb", "28 Feb", "1 Mar", "2 Mar"];
    vec![
        Chart::new("Memory by container, maximum of 7 days", "MiB", ChartKind::Bar, containers)
            .with("used", [497.0, 38.5, 812.0, 240.0])
            .with("limit", [Some(2048.0), Some(64.0), Some(1024.0), None]),
        Chart::new("Memory of shop/api", "MiB", ChartKind::Line, days)
            .with("api", [401.0, 420.0, 418.0, 455.0, 497.0, 462.0, 470.0])
            .with("proxy", [31.0, 31.5, 33.0, 38.5, 36.0, 35.0, 35.5]),
        Chart::new("CPU by namespace", "cores", ChartKind::StackedBar, ["shop", "billing", "postern-ops"])
            .with("used", [3.2, 1.25, 0.05])
            .with("requested, not used", [4.8, 0.75, 0.0]),
    ]
}

/// Strings that try to be markup, scripts, terminal escapes or long. A page that runs one of them sets `window.hacked`.
pub fn hostile() -> Report {
    let image = "<img src=x onerror=\"window.hacked=1\">";
    let script = "</script><script>window.hacked=1</script>";
    let quotes = "\" onmouseover=\"window.hacked=1\" x='";
    let escapes =
        "\x1b[2J\x1b]0;title\x07\u{9b}31m\u{0}\u{8}\u{fffe}\u{202e}gnp.exe\u{2066}\u{200b}\r\n\tend";
    let long = "x".repeat(10_000);
    let mut report = named(&format!("{image}{script}{escapes}"));
    report.tool = Tool { name: image.to_owned(), version: quotes.to_owned() };
    report.command = Some(format!("postern {quotes} {script}"));
    report.notes =
        vec![image.to_owned(), script.to_owned(), format!("]]>{escapes}&lt;"), "{{ 7 * 7 }} {0}".to_owned()];
    for text in [image, script, quotes, escapes, "javascript:window.hacked=1", "]]><x/>", "--><x>", "", &long]
    {
        let object = Object::new(text, text).namespace(text).context(text).api_version(text);
        report.findings.push(
            Finding::new(text, Severity::Problem, object, text)
                .in_file(text, Some(0), Some(u32::MAX))
                .at_field(text)
                .text(text)
                .command(text)
                .fix(text)
                .reference(text),
        );
        report.findings.push(Finding::new("r", Severity::Warning, Subject::file(text), text));
        report.findings.push(Finding::new("r", Severity::Inconclusive, Subject::named(text, text), text));
        report.rule(text, text, Some(text));
        let kinds = [ChartKind::Bar, ChartKind::Line, ChartKind::StackedBar];
        report.charts.extend(kinds.map(|kind| {
            Chart::new(text, text, kind, [text, ""])
                .with(text, [1.0, f64::INFINITY])
                .with(text, [-1e300, f64::NAN])
        }));
    }
    report.findings.push(
        Finding::new("wide", Severity::Ok, Object::new("Pod", "日本語-容器"), "wide one")
            .text("line one\nline two\n\n  indented\ttab"),
    );
    report.findings.push(Finding::new("wide", Severity::Ok, Object::new("Pod", "cafe\u{301}"), "wide two"));
    report
}

/// A report with nothing in it.
pub fn empty() -> Report {
    named("Nothing to check")
}

/// A report with many findings.
pub fn large(findings: usize) -> Report {
    let mut report = named("Many findings");
    let severities =
        [Severity::Ok, Severity::Ok, Severity::Ok, Severity::Warning, Severity::Problem, Severity::Skipped];
    report.findings = (0..findings)
        .map(|index| {
            let object =
                Object::new("Pod", format!("pod-{index}")).namespace(format!("namespace-{}", index % 40));
            Finding::new(
                format!("rule/{}", index % 25),
                severities[index % severities.len()],
                object,
                format!("Finding number {index}."),
            )
            .text("some evidence")
            .fix("some fix")
        })
        .collect();
    report
}
