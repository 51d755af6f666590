//! Selects a user's credentials, and reads bearer tokens that change during a run.

use crate::credential_error::{CredentialCause, CredentialError};
use crate::exec_plugin::ExecPlugin;
use http::HeaderValue;
use kube::config::AuthInfo;
use secrecy::{ExposeSecret as _, SecretString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// How long a file's token is used before the file is read again, as in client-go.
const REREAD: Duration = Duration::from_secs(60);

/// The source of each request's token.
#[derive(Debug, Clone)]
pub(crate) enum Bearer {
    /// A file that another program rewrites.
    File(Arc<TokenFile>),
    /// The kubeconfig's exec plug-in.
    Plugin(Arc<ExecPlugin>),
}

/// A file that contains a token.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    cached: Mutex<Option<(SecretString, Option<Instant>)>>,
}

impl TokenFile {
    /// `token` is sent while the file is empty or missing, as in client-go.
    pub(crate) fn new(path: &str, token: Option<SecretString>) -> Self {
        // The file is read at the first request in any case.
        let cached = token.map(|token| (token, None));
        Self { path: path.into(), cached: Mutex::new(cached) }
    }

    async fn token(&self) -> Result<SecretString, CredentialError> {
        let mut cached = self.cached.lock().await;
        if let Some((token, read)) = &*cached
            && read.is_some_and(|read| read.elapsed() < REREAD)
        {
            return Ok(token.clone());
        }
        // A file that is being rewritten may be empty for a moment.
        let read =
            std::fs::read_to_string(&self.path).map(Zeroizing::new).and_then(|text| match text.trim() {
                "" => Err(std::io::Error::other("it is empty")),
                token => Ok(SecretString::from(token)),
            });
        match (read, &mut *cached) {
            (Ok(token), cached) => {
                *cached = Some((token.clone(), Some(Instant::now())));
                Ok(token)
            }
            // A file that is removed after the start does not end the command (kubernetes#68164).
            (Err(_), Some((token, _))) => Ok(token.clone()),
            (Err(error), None) => {
                let why = format!("reading the token file {}: {error}", self.path.display());
                Err(CredentialError { why, cause: CredentialCause::Kubeconfig })
            }
        }
    }
}

impl Bearer {
    /// Returns the header for a request now; `None` if a plug-in returned only a certificate.
    pub(crate) async fn header(&self) -> Result<Option<HeaderValue>, CredentialError> {
        let token = match self {
            Self::File(file) => Some(file.token().await?),
            Self::Plugin(plugin) => plugin.credential().await?.token.clone(),
        };
        let Some(token) = token else { return Ok(None) };
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| {
            let whose = match self {
                Self::File(file) => format!("the token file {}", file.path.display()),
                Self::Plugin(plugin) => plugin.name(),
            };
            let why = format!(
                "the token of {whose} holds a line break or another character that no header may have"
            );
            CredentialError { why, cause: CredentialCause::Characters }
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Keeps the credentials that client-go would use: those in the kubeconfig have precedence over an exec plug-in. A
/// token next to a token file is used while the file is empty. The error names the fields.
pub(crate) fn choose(name: &str, user: &mut AuthInfo) -> Result<(), String> {
    let token = user.token.is_some() || user.token_file.is_some();
    let basic = user.username.is_some();
    let certificate = user.client_certificate.is_some() || user.client_certificate_data.is_some();
    if basic && token {
        return Err(format!(
            "the user {name:?} has both a username and a token; only one of them can be sent"
        ));
    }
    if user.exec.is_some() && user.auth_provider.is_some() {
        return Err(format!(
            "the user {name:?} has both exec and auth-provider; only one of them can be used"
        ));
    }
    if basic && user.password.is_none() {
        user.password = Some(SecretString::from(""));
    }
    if token || basic || certificate {
        user.exec = None;
    }
    if token || basic {
        user.auth_provider = None;
    }
    Ok(())
}

/// Returns whether a user has any credentials.
pub(crate) fn has_any(user: &AuthInfo) -> bool {
    user.token.is_some()
        || user.token_file.is_some()
        || user.username.is_some()
        || user.client_certificate.is_some()
        || user.client_certificate_data.is_some()
        || user.exec.is_some()
        || user.auth_provider.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::config::Kubeconfig;

    fn chosen(user: &str) -> Result<AuthInfo, String> {
        let text = format!("users: [{{name: u, user: {{{user}}}}}]\n");
        let mut user = Kubeconfig::from_yaml(&text).unwrap().auth_infos.remove(0).auth_info.unwrap();
        choose("u", &mut user).map(|()| user)
    }

    #[test]
    fn of_two_credentials_that_counts_which_client_go_takes() {
        const EXEC: &str = "exec: {command: x, apiVersion: client.authentication.k8s.io/v1}";
        for fixed in [
            "token: t",
            "tokenFile: /t",
            "username: u",
            "client-certificate: /c",
            "client-certificate-data: Yw==",
        ] {
            assert!(chosen(&format!("{fixed}, {EXEC}")).unwrap().exec.is_none(), "{fixed}");
        }
        assert!(chosen(EXEC).unwrap().exec.is_some());
        let both = chosen("token: t, tokenFile: /t").unwrap();
        assert!(both.token.is_some() && both.token_file.is_some());
        let both = chosen("token: t, client-certificate: /c").unwrap();
        assert!(both.token.is_some() && both.client_certificate.is_some());
        for refused in [
            "username: u, token: t",
            "username: u, tokenFile: /t",
            "exec: {command: x}, auth-provider: {name: oidc}",
        ] {
            assert!(chosen(refused).is_err(), "{refused}");
        }
        let basic = chosen("username: u").unwrap();
        assert_eq!(basic.password.unwrap().expose_secret(), "");
    }

    #[tokio::test]
    async fn a_token_of_a_file_is_trimmed_and_outlives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "abc\n").unwrap();
        let file = TokenFile::new(path.to_str().unwrap(), None);
        let bearer = Bearer::File(Arc::new(file));
        assert_eq!(bearer.header().await.unwrap().unwrap(), "Bearer abc");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bearer.header().await.unwrap().unwrap(), "Bearer abc");
    }

    #[tokio::test]
    async fn a_token_stands_in_for_a_token_file_that_holds_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = |token: Option<&str>| {
            Bearer::File(Arc::new(TokenFile::new(path.to_str().unwrap(), token.map(SecretString::from))))
        };
        let bearer = file(Some("cached"));
        assert_eq!(bearer.header().await.unwrap().unwrap(), "Bearer cached");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(bearer.header().await.unwrap().unwrap(), "Bearer cached");
        let why = file(None).header().await.unwrap_err().to_string();
        assert!(why.ends_with("it is empty"), "{why}");
        std::fs::write(&path, "new").unwrap();
        assert_eq!(bearer.header().await.unwrap().unwrap(), "Bearer new");
    }
}
