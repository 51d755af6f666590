//! A stand-in for the `ibmcloud` command in an ops pod: it logs in as the real one does (`login --cr-token @FILE
//! --profile ID`, or with `IBMCLOUD_API_KEY`), keeps its session in `~/.bluemix/config.json`, and prints its token.

use super::http::post;
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// The command with these arguments; its exit code.
pub fn main(arguments: &[String]) -> u8 {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["login", flags @ ..] => login(flags),
        ["iam", "oauth-tokens", ..] => {
            session().map(|session| format!("IAM token:  {}", session["IAMToken"].as_str().unwrap()))
        }
        ["target", ..] => session().map(|session| format!("Region: {}", session["Region"].as_str().unwrap())),
        ["logout", ..] => {
            std::fs::remove_file(config()).map(|()| "OK".to_owned()).map_err(|error| error.to_string())
        }
        other => Err(format!("unknown command {other:?}")),
    };
    match result {
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            0
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "FAILED\n{error}\n");
            1
        }
    }
}

fn config() -> PathBuf {
    let home = std::env::var_os("IBMCLOUD_HOME").or_else(|| std::env::var_os("HOME")).unwrap();
    PathBuf::from(home).join(".bluemix/config.json")
}

fn session() -> Result<Value, String> {
    let none = || "Not logged in. Use 'ibmcloud login' to log in.".to_owned();
    let text = std::fs::read(config()).map_err(|_| none())?;
    serde_json::from_slice(&text).map_err(|_| none())
}

fn login(flags: &[&str]) -> Result<String, String> {
    let flag =
        |name: &str| flags.iter().position(|flag| *flag == name).and_then(|at| flags.get(at + 1).copied());
    let endpoint = flag("-a").ok_or("no endpoint")?;
    let grant = "grant_type=urn:ibm:params:oauth:grant-type:";
    let form = match (flag("--cr-token"), std::env::var("IBMCLOUD_API_KEY")) {
        (Some(token), _) => {
            let file = token.strip_prefix('@').ok_or("the token is in argv")?;
            let token = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            format!(
                "{grant}cr-token&cr_token={}&profile_id={}",
                token.trim(),
                flag("--profile").ok_or("no profile")?
            )
        }
        (None, Ok(key)) => format!("{grant}apikey&apikey={key}"),
        (None, Err(_)) => return Err("no API key".to_owned()),
    };
    let answer = post(endpoint, "/identity/token", &form)?;
    let Some(token) = answer["access_token"].as_str() else {
        let part = |name: &str| answer[name].as_str().unwrap_or("?").to_owned();
        return Err(format!(
            "Remote server error. Error code: {}, message: {}",
            part("errorCode"),
            part("errorMessage")
        ));
    };
    let session =
        json!({"APIEndpoint": endpoint, "IAMToken": format!("Bearer {token}"), "Region": flag("-r")});
    let path = config();
    std::fs::create_dir_all(path.parent().unwrap()).map_err(|error| error.to_string())?;
    let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| write!(file, "{session:#}"));
    written.map(|()| "Authenticating...\nOK".to_owned()).map_err(|error| error.to_string())
}
