//! What the user can do about each error.

use crate::credential_error::CredentialCause;
use crate::error::{KubeError, Reason};

impl KubeError {
    /// Returns what the user can do; `None` if the message says everything.
    pub fn hint(&self) -> Option<&'static str> {
        self.reason.hint()
    }
}

impl Reason {
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Context(_) => "see `kubectl config get-contexts`; choose with --context or $KUBECONFIG",
            Self::Kubeconfig(_) => "correct the file, or name another with --kubeconfig or $KUBECONFIG",
            Self::Busy(_) => "try again later, and with fewer at a time",
            Self::Field(_) => {
                "correct it with `kubectl config set-cluster` or `set-credentials`, or get a new kubeconfig"
            }
            Self::Unreachable { .. } | Self::NoAnswer(_) => {
                "check the server's address in the kubeconfig, the network, VPN and HTTPS_PROXY/NO_PROXY"
            }
            Self::Tls { expired: true, .. } => {
                "a certificate has expired (or this machine's clock is wrong): get a new kubeconfig"
            }
            Self::Tls { .. } => {
                "check certificate-authority-data in the kubeconfig, or SSL_CERT_FILE behind an inspecting proxy"
            }
            Self::Unauthorized => {
                "the token or client certificate is expired, or not for this cluster: log in again"
            }
            Self::Forbidden(_) => "ask for the verb and resource named above in that namespace",
            Self::NotRunning(_) => {
                "the pod is not running, or is ending: `kubectl describe pod` says why (`postern ops show --check` \
                 for the ops pod)"
            }
            Self::StillThere { blockers, .. } if !blockers.is_empty() => {
                "the finalizer's owner must remove it; until then the object cannot be replaced"
            }
            Self::StillThere { .. } => "give it more time with --timeout",
            Self::Credentials { cause, .. } => match cause {
                CredentialCause::Characters => "print the token without a newline",
                CredentialCause::Plugin => {
                    "run the plug-in by hand to see its error (`kubectl config view` shows its command)"
                }
                CredentialCause::Kubeconfig => {
                    "correct the user's credentials in the kubeconfig, or log in again"
                }
            },
            Self::NotFound(_)
            | Self::Refused { .. }
            | Self::Server { .. }
            | Self::Setting(_)
            | Self::Answer(_) => return None,
        })
    }
}
