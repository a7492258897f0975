//! A Fata program started as a process: there is no port for that yet, so it says what to do instead.

extern crate std;

use core::future::Future;

pub use std::process::ExitCode;

use crate::{Env, Termination};

/// Says how `name` is run, and fails.
///
/// It takes the application's main function so that the compiler checks it here as it does for an image.
pub fn run<F, T>(name: &str, _main: F) -> ExitCode
where
    F: FnOnce(Env) -> T + 'static,
    T: Future<Output: Termination> + 'static,
{
    std::eprintln!(
        "{name}: this is an image for a hypervisor, not a program for this system; run it with: cargo fata run {name}"
    );
    ExitCode::FAILURE
}
