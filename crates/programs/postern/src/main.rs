//! `postern`: arguments, one call into a capability, printing. No logic lives here.

mod cli;
mod commands;
mod failure;
mod printer;
mod signals;
mod terminal;

fn main() -> std::process::ExitCode {
    commands::main()
}
