//! Looks at directories in running containers, with their own `stat`.

use postern_kube::Cluster;
use postern_kube::exec::{ExecEnd, ExecEvent, ExecRequest, open};
use postern_verify::pods::PodOf;
use postern_verify::volumes::Seen;
use std::collections::BTreeMap;
use std::time::Duration;

/// For one container.
const LIMIT: Duration = Duration::from_secs(10);

/// By namespace, Pod, container and path.
type Owners = BTreeMap<(String, String, String, String), Seen>;

/// Looks at every directory that a container may write. Containers without `stat` are left out.
pub(super) async fn look(cluster: &Cluster, pods: &[PodOf]) -> Owners {
    let mut owners = Owners::new();
    for pod in pods.iter().filter(|pod| pod.object.kind == "Pod") {
        for container in &pod.spec.containers {
            let mounts = container.volume_mounts.iter().flatten();
            let paths: Vec<String> = mounts
                .filter(|mount| mount.read_only != Some(true))
                .map(|mount| mount.mount_path.clone())
                .collect();
            if paths.is_empty() {
                continue;
            }
            let stat = tokio::time::timeout(LIMIT, stat(cluster, pod, &container.name, &paths)).await;
            let text = stat.ok().flatten().unwrap_or_default();
            for (path, seen) in paths.iter().zip(text.lines().map(parse)) {
                let Some(seen) = seen else { continue };
                let name = pod.object.name.clone();
                owners.insert((pod.namespace.clone(), name, container.name.clone(), path.clone()), seen);
            }
        }
    }
    owners
}

async fn stat(cluster: &Cluster, pod: &PodOf, container: &str, paths: &[String]) -> Option<String> {
    let words = ["stat", "-L", "-c", "%u %g %a", "--"].into_iter().chain(paths.iter().map(String::as_str));
    let command: Vec<_> = words.map(|word| word.as_bytes().to_vec()).collect();
    let request = ExecRequest {
        namespace: &pod.namespace,
        pod: &pod.object.name,
        container: Some(container),
        command: &command,
        stdin: false,
        tty: false,
    };
    let (mut reader, mut writer) = open(cluster, &request).await.ok()?;
    let (mut output, mut end) = (Vec::new(), None);
    while let Ok(Some(event)) = reader.next().await {
        match event {
            // A line for each path; a container that writes more is not believed.
            ExecEvent::Stdout(bytes) if output.len() < 64 * 1024 => output.extend_from_slice(&bytes),
            ExecEvent::End(how) => end = Some(how),
            _ => {}
        }
    }
    writer.close().await;
    (end == Some(ExecEnd::Exited(0))).then(|| String::from_utf8(output).ok()).flatten()
}

fn parse(line: &str) -> Option<Seen> {
    let mut words = line.split(' ');
    let (uid, gid, mode) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    let mode = u32::from_str_radix(mode, 8).ok()? & 0o777;
    words.next().is_none().then_some(Seen { uid, gid, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_line_is_believed() {
        assert_eq!(parse("1000 2000 1755"), Some(Seen { uid: 1000, gid: 2000, mode: 0o755 }));
        for line in ["", "1000", "1000 2000", "a b c", "1000 2000 799", "1 2 3 4"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
