//! The configuration file: types, parsing, and errors that name the nearest key.
//!
//! One YAML file: `--config FILE`, else `$POSTERN_CONFIG`, else `$XDG_CONFIG_HOME/postern/config.yaml`
//! (`~/.config` by default, as in the XDG Base Directory Specification). Only the last may be missing.

use base64::Engine as _;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

mod duration;
mod error;
mod ibm;
mod position;
pub mod providers;

pub use duration::{InvalidDuration, parse_duration};
pub use error::ConfigError;
pub use ibm::Ibm;

/// The configuration file. Every key is optional.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The kubeconfig context used when `--context` names none.
    pub context: Option<String>,
    /// The ops pod's image, instead of the one of this release.
    pub image: Option<String>,
    /// Replaces the registry host in image references, for air-gapped clusters.
    pub image_mirror: Option<String>,
    /// The Secret in the ops namespace with the credentials for pulling images.
    pub image_pull_secret: Option<String>,
    /// Which ops pod, where the command line does not say.
    pub ops: Ops,
    /// How `run` reaches the ops pod: `exec`, `stream` or `auto`.
    pub transport: Option<String>,
    /// Your own private key for streams, instead of the one from the install.
    pub stream_key: Option<PathBuf>,
    /// The name of this cluster's workspace. It distinguishes cloud resources made for this cluster from
    /// those of others.
    pub workspace: Option<String>,
    /// The cluster in IBM Cloud.
    pub ibm: Ibm,
    /// How often and at what interval a login to a cloud is attempted in the ops pod.
    pub login: Login,
    /// Providers of short-lived credentials by name.
    pub providers: BTreeMap<String, providers::Provider>,
    /// Credentials by name.
    pub credentials: BTreeMap<String, CredentialEntry>,
    /// Defaults for tools, by command name.
    pub tools: BTreeMap<String, Tool>,
}

/// The ops pod that `ops` and `run` mean.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ops {
    /// Its namespace, instead of `postern-ops`.
    pub namespace: Option<String>,
    /// Its name, instead of `postern-ops`.
    pub name: Option<String>,
}

/// One credential.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CredentialEntry {
    /// Its value in base64. Keep the file at mode 0600.
    pub value_base64: Option<String>,
    /// The only source that is used: `env`, `keychain`, `config` or `prompt`.
    pub source: Option<String>,
}

impl std::fmt::Debug for CredentialEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { value_base64, source } = self;
        f.debug_struct("CredentialEntry")
            .field("value_base64", &value_base64.as_ref().map(|_| "…"))
            .field("source", source)
            .finish()
    }
}

/// Defaults for one tool; command-line flags override them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tool {
    /// Variables added to its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub workdir: Option<String>,
    /// Its timeout, such as `90s` or `5m`.
    pub timeout: Option<String>,
}

/// A login in the ops pod, before a tool that needs it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    /// Maximum number of attempts: 1 to 10.
    pub attempts: Option<u8>,
    /// The interval between attempts, such as `20s`; at most 5m.
    pub interval: Option<String>,
}

impl Login {
    /// The number of attempts and the interval. The defaults cover the time that a cloud needs to apply a new
    /// grant.
    pub fn attempts(&self) -> (u8, Duration) {
        let Self { attempts, interval } = self;
        let interval = interval.as_deref().and_then(|text| parse_duration(text).ok());
        (attempts.unwrap_or(3), interval.unwrap_or(Duration::from_secs(20)))
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        let Self { attempts, interval } = self;
        if let Some(attempts) = attempts.filter(|attempts| !(1..=10).contains(attempts)) {
            return Err(("login.attempts", format!("{attempts} is not from 1 to 10")));
        }
        match interval.as_deref().map(parse_duration) {
            Some(Err(error)) => Err(("login.interval", error.to_string())),
            Some(Ok(interval)) if interval > Duration::from_secs(300) => {
                Err(("login.interval", format!("{} s is more than 5m", interval.as_secs())))
            }
            _ => Ok(()),
        }
    }
}

/// Checks a name that becomes part of names in a cloud.
fn workspace(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(format!("{name:?}: use 1 to 63 letters, digits, '-', '_' and '.'")),
    }
}

impl Config {
    /// Reads the configuration file: the explicit one, or the default.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let named =
            explicit.map(Path::to_path_buf).or_else(|| std::env::var_os("POSTERN_CONFIG").map(Into::into));
        let (path, must_exist) = match named {
            Some(path) => (path, true),
            None => match default_path() {
                Some(path) => (path, false),
                None => return Ok(Self::default()),
            },
        };
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }

    /// Reads the text of a file; `path` is for messages.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| ConfigError::NotUtf8 { path: path.to_owned(), at: error.valid_up_to() })?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let config: Self =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::from_yaml(path, text, &error))?;
        config.validate().map_err(|(key, why)| {
            let (line, column) = position::find(text, &key).unwrap_or_default();
            ConfigError::Invalid { path: path.to_owned(), line, column, key, why }
        })?;
        Ok(config)
    }

    /// Returns the first invalid key and the reason.
    fn validate(&self) -> Result<(), (String, String)> {
        let invalid = |key: String, why: String| (key, why);
        if let Some(transport) = &self.transport
            && !["exec", "stream", "auto"].contains(&transport.as_str())
        {
            return Err(invalid(
                "transport".to_owned(),
                format!("{transport:?} is not exec, stream or auto"),
            ));
        }
        if let Some(Err(why)) = self.workspace.as_deref().map(workspace) {
            return Err(invalid("workspace".to_owned(), why));
        }
        for checked in [self.ibm.validate(), self.login.validate()] {
            checked.map_err(|(key, why)| invalid(key.to_owned(), why))?;
        }
        for (name, provider) in &self.providers {
            providers::name(name).map_err(|why| invalid(format!("providers.{name}"), why))?;
            provider.validate().map_err(|(key, why)| invalid(format!("providers.{name}.{key}"), why))?;
        }
        for (name, CredentialEntry { value_base64, source }) in &self.credentials {
            if value_base64.as_ref().is_some_and(|value| decode(value).is_none()) {
                return Err(invalid(
                    format!("credentials.{name}.value_base64"),
                    "it is not base64; make it with: printf %s VALUE | base64 -w0".to_owned(),
                ));
            }
            if let Some(source) = source
                && !["env", "keychain", "config", "prompt"].contains(&source.as_str())
            {
                return Err(invalid(
                    format!("credentials.{name}.source"),
                    format!("{source:?} is not a source; use env, keychain, config or prompt"),
                ));
            }
        }
        for (name, Tool { env, workdir: _, timeout }) in &self.tools {
            if let Some(wrong) = env.keys().find(|key| key.is_empty() || key.contains(['=', '\0'])) {
                let why = format!("{wrong:?} is not a variable name; write NAME: VALUE");
                return Err(invalid(format!("tools.{name}.env"), why));
            }
            if let Some(Err(error)) = timeout.as_deref().map(parse_duration) {
                return Err(invalid(format!("tools.{name}.timeout"), error.to_string()));
            }
        }
        Ok(())
    }

    /// The value of a credential in the file.
    pub fn credential(&self, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        decode(self.credentials.get(name)?.value_base64.as_deref()?).map(Zeroizing::new)
    }

    /// A tool's default time-out.
    pub fn timeout(&self, tool: &str) -> Option<Duration> {
        parse_duration(self.tools.get(tool)?.timeout.as_deref()?).ok()
    }
}

/// The file's schema (JSON Schema 2020-12), for editors and generators.
pub fn schema() -> String {
    serde_json::to_string_pretty(&schemars::schema_for!(Config)).unwrap_or_default() + "\n"
}

fn decode(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
}

fn default_path() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(base.join("postern/config.yaml"))
}

#[cfg(test)]
mod tests;
