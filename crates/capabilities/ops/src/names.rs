//! The names of the ops pod's objects, annotations and images.

/// The default ops pod's namespace.
pub const NAMESPACE: &str = "postern-ops";
/// The namespace of one-shot workloads.
pub const TEST_NAMESPACE: &str = "postern-test";
/// The default ops pod: pod, ServiceAccount, Roles and bindings.
pub const NAME: &str = "postern-ops";
/// Where the pod mounts them.
pub const STREAM_DIRECTORY: &str = "/etc/postern/stream";
/// The pod's only container.
pub const CONTAINER: &str = "tools";
/// The agent in the image.
pub const AGENT: &str = "/usr/local/bin/postern-agent";
/// The repository of released images; a mirror prefix in the config replaces the registry's host.
pub const IMAGE_REPOSITORY: &str = "ghcr.io/postern-dev/postern-ops";

/// When the credential was last changed.
pub const ROTATED_AT: &str = "postern.dev/rotated-at";
/// UID and version of the Secret that the pod was created with; reveals nothing of its content.
pub const CREDENTIAL_VERSION: &str = "postern.dev/credential-version";
/// UID of the ServiceAccount that the pod was created with: its tokens are bound to it, and a new account of the same
/// name has another UID.
pub const ACCOUNT_UID: &str = "postern.dev/service-account-uid";
/// A hash over the pod's desired spec.
pub const SPEC_HASH: &str = "postern.dev/spec-hash";
/// The stream transport's public key that the pod must accept; a change makes the kubelet update the mount at once.
pub const STREAM_KEY: &str = "postern.dev/stream-key";
/// Set on the ServiceAccount while it has a provider's grant that Postern may remove.
pub const TRUST_MANAGED: &str = "postern.dev/trusted-profile-managed";
/// When that grant was obtained for it.
pub const PROVISIONED_AT: &str = "postern.dev/provisioned-at";
/// The namespaces to which the ServiceAccount was given access.
pub const CLUSTER_ACCESS: &str = "postern.dev/cluster-access";

/// A user with only the group of all authenticated users: its permissions are those of everyone.
pub const BASELINE_USER: &str = "postern:audit:nobody";

/// The repository of the image that contains only this program.
pub const PROGRAM_REPOSITORY: &str = "ghcr.io/postern-dev/postern";
/// The repository of the controller's image.
pub const CONTROLLER_REPOSITORY: &str = "ghcr.io/postern-dev/postern-controller";
/// The repository of the image with nothing but the agent, for init containers.
pub const AGENT_REPOSITORY: &str = "ghcr.io/postern-dev/postern-agent";

/// The image of this release: its tag is the program's version, and `dev` for a development build.
pub fn default_image(repository: &str, version: &str) -> String {
    let tag = if version.contains("-dev") { "dev" } else { version };
    format!("{repository}:{tag}")
}

/// Returns `image` behind a mirror, which replaces the registry's host.
pub fn mirrored(image: &str, mirror: &str) -> String {
    let path = match image.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => image,
    };
    format!("{}/{path}", mirror.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_takes_the_hosts_place() {
        assert_eq!(mirrored("ghcr.io/a/b:1", "mirror.corp:5000/x/"), "mirror.corp:5000/x/a/b:1");
        assert_eq!(mirrored("library/busybox", "mirror.corp"), "mirror.corp/library/busybox");
    }

    #[test]
    fn a_release_names_its_own_image() {
        assert_eq!(default_image(IMAGE_REPOSITORY, "1.2.3"), "ghcr.io/postern-dev/postern-ops:1.2.3");
        assert_eq!(default_image(IMAGE_REPOSITORY, "1.3.0-dev"), "ghcr.io/postern-dev/postern-ops:dev");
    }
}
