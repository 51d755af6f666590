//! `postern-agent`: see the library.

use std::process::ExitCode;

const USAGE: &str = "usage: postern-agent run [--unlink] | serve | --version\n";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    match arguments.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..] {
        ["run"] => postern_agent::supervise::main(),
        ["run", "--unlink"] => {
            // Injected: the file has served once it runs, and nothing of it may stay in someone else's pod.
            if let Ok(own) = std::env::current_exe() {
                let _ = std::fs::remove_file(own);
            }
            postern_agent::supervise::main()
        }
        ["serve"] => postern_agent::serve::main(),
        ["--version"] => {
            say(concat!("postern-agent ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::SUCCESS
        }
        _ => {
            let _ = rustix::io::write(rustix::stdio::stderr(), USAGE.as_bytes());
            ExitCode::from(2)
        }
    }
}

fn say(text: &str) {
    let _ = rustix::io::write(rustix::stdio::stdout(), text.as_bytes());
}
