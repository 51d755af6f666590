//! `postern`: the command line: arguments, calls into the capabilities, output.

mod cli;
mod commands;
mod failure;
mod printer;
mod signals;
mod terminal;

fn main() -> std::process::ExitCode {
    commands::main()
}
