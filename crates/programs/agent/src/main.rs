//! `postern-agent`: see the library.

use postern_agent::credentials;
use postern_agent::serve::Stream;
use postern_agent::target_root::{self, TargetRootError};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: postern-agent run [--unlink | --key KEY] | multiplex | copy [--unlink | --of CONTAINER_ID] \
                     | serve [--stream PORT KEYS | --once SECONDS] | install FILE | credentials | which TOOL \
                     | own UID:GID PATH... | target-root CONTAINER_ID \
                     | target-user CONTAINER_ID | --version\n";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    match arguments.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
        ["run"] => postern_agent::supervise::main(None),
        ["run", "--key", key] => postern_agent::supervise::main(Some(key)),
        ["run", "--unlink"] => {
            unlink();
            postern_agent::supervise::main(None)
        }
        ["multiplex"] => postern_agent::multiplex::main(),
        ["copy"] => postern_agent::copy::main(None),
        ["copy", "--of", container] => postern_agent::copy::main(Some(container)),
        ["copy", "--unlink"] => {
            unlink();
            postern_agent::copy::main(None)
        }
        #[cfg(target_os = "linux")]
        ["own", ref arguments @ ..] => postern_agent::own::main(arguments),
        ["serve"] => postern_agent::serve::main(None, None),
        ["serve", "--stream", port, keys] => match port.parse() {
            Ok(port) => postern_agent::serve::main(Some(Stream { port, keys: Path::new(keys) }), None),
            Err(_) => usage(),
        },
        ["serve", "--once", seconds] => match seconds.parse() {
            Ok(seconds) => postern_agent::serve::main(None, Some(Duration::from_secs(seconds))),
            Err(_) => usage(),
        },
        ["install", file] => install(Path::new(file)),
        ["--version"] => {
            print(concat!("postern-agent ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::SUCCESS
        }
        ["credentials"] => match credentials::mounted(Path::new(credentials::DIRECTORY)) {
            Ok(found) => {
                for (name, _) in found {
                    print(&format!("{name}\n"));
                }
                ExitCode::SUCCESS
            }
            Err(error) => {
                print(&format!("{error}\n"));
                ExitCode::FAILURE
            }
        },
        ["which", tool] => match which(tool) {
            Some(path) => {
                print(&format!("{}\n", path.display()));
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        },
        ["target-root", id] => print_result(target_root::find(id).map(|root| root.display().to_string())),
        ["target-user", id] => print_result(target_root::user(id).map(|(uid, gid)| format!("{uid}:{gid}"))),
        _ => usage(),
    }
}

/// For an injected agent: the file is not needed once it runs, and nothing may remain in someone else's pod.
fn unlink() {
    if let Ok(own) = std::env::current_exe() {
        let _ = std::fs::remove_file(own);
    }
}

/// Copies this program for the other containers of a pod. A copy that was cut short never has the name.
fn install(file: &Path) -> ExitCode {
    let unfinished = file.with_extension("unfinished");
    let copied = std::fs::copy("/proc/self/exe", &unfinished)
        .and_then(|_| std::fs::set_permissions(&unfinished, Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&unfinished, file));
    let Err(error) = copied else { return ExitCode::SUCCESS };
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("postern-agent: {error}\n").as_bytes());
    ExitCode::FAILURE
}

fn usage() -> ExitCode {
    let _ = rustix::io::write(rustix::stdio::stderr(), USAGE.as_bytes());
    ExitCode::from(2)
}

fn print_result(answer: Result<String, TargetRootError>) -> ExitCode {
    match answer {
        Ok(answer) => {
            print(&format!("{answer}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("{error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) {
    let _ = rustix::io::write(rustix::stdio::stdout(), text.as_bytes());
}

/// The path of the command with this name, as found by execvp(3).
fn which(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(tool))
        .find(|file| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}
