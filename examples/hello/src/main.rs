//! Says what it was given, and ends.
//!
//! `cargo fata run hello`
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

use core::fmt::Write;

use fata::Env;

#[fata::main]
async fn main(env: Env) -> core::fmt::Result {
    let mut console = env.console();
    writeln!(console, "Hello from {} on {}!", env.hostname(), env.machine())?;
    writeln!(console, "boot arguments: {}", env.args().line())?;
    let memory = env.memory();
    writeln!(
        console,
        "memory: {} KiB, of which {} KiB are free",
        memory.total / 1024,
        memory.free() / 1024
    )
}
