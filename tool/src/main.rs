//! `cargo fata`: sets up what is missing, builds images, runs them on a real Xen host, and tests everything.
#![forbid(unsafe_code)]

mod backtrace;
mod bench;
mod build;
mod cargo;
mod cli;
mod error;
mod fuzz;
mod progress;
mod run;
mod setup;
mod test;
mod workspace;
mod xl;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // As a cargo subcommand the tool is called `cargo-fata fata ...`; as the repository's alias it is not.
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|word| word == "fata") {
        arguments.remove(1);
    }
    match cli::Cli::parse_from(arguments).run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
