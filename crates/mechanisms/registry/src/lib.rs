//! OCI registries: names of images, patterns of repositories, and credentials in Docker's configuration format.
//!
//! Nothing here sends a request.

mod docker_config;
mod pattern;

pub use docker_config::{DockerConfig, Format, InvalidDockerConfig};
pub use oci_spec::distribution::{ParseError as InvalidImage, Reference as Image};
pub use pattern::{InvalidPattern, Pattern, intersection};
