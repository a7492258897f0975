//! The tests on a real Xen host.

use std::fs;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use fata_ci::suite::{self, Images};
use fata_ci::{Cache, Options, XenHost};

use super::Counts;
use crate::error::Error;
use crate::progress::{self, spinner, stage_line};
use crate::workspace::Workspace;
use crate::{build, cargo};

/// The host's own target, in a form that links the C library statically: dom0 need not have the same.
const PEER_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds what the tests start, and runs those whose name contains `only`.
pub(super) fn test(workspace: &Workspace, only: Option<&str>) -> Result<Counts, Error> {
    if suite::names(only).is_empty() {
        return Ok(Counts::default());
    }
    let options = Options::new(Cache::locate()?).reporter(progress::reporter());
    // What is missing of the host is set up meanwhile: the last step of every image keeps but one processor busy.
    let (images, host) = thread::scope(|scope| {
        let host = scope.spawn(|| XenHost::start(&options).map(XenHost::stop));
        (images(workspace), host.join())
    });
    host.unwrap_or_else(|panic| resume_unwind(panic))?;
    let images = images?;
    let mut counts = match only {
        None => sizes(workspace)?,
        Some(_) => Counts::default(),
    };
    suite::run(&options, &images, only, |name, took, result| {
        counts += Counts::one(result.is_ok());
        match result {
            Ok(()) => stage_line(&format!("xen {name}"), took),
            Err(failure) => stage_line(&format!("xen {name}: FAILED: {failure}"), took),
        }
    })?;
    Ok(counts)
}

/// Builds every application, and the program that meets them.
pub(crate) fn images(workspace: &Workspace) -> Result<Images, Error> {
    for application in workspace.applications() {
        build::image(workspace, &application)?;
    }
    Ok(Images {
        folder: workspace.dist(),
        peer: peer(workspace)?,
    })
}

/// Holds the stripped images against the limits that their packages set.
fn sizes(workspace: &Workspace) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    for name in workspace.applications() {
        let Some(limit) = workspace.application(&name)?.size_limit else {
            continue;
        };
        let path = workspace.dist().join(&name);
        let bytes = fs::metadata(&path).map_err(Error::file(&path))?.len();
        let fits = bytes <= limit;
        let verdict = if fits { "" } else { ": FAILED" };
        eprintln!("{bytes:>10} B  size of {name}, limit {limit}{verdict}");
        counts += Counts::one(fits);
    }
    Ok(counts)
}

/// Builds the program that meets the guests from dom0.
fn peer(workspace: &Workspace) -> Result<PathBuf, Error> {
    let bar = spinner("building fata-peer");
    let mut command = Command::new(cargo::program());
    command
        .args([
            "build",
            "--quiet",
            "--package",
            "fata-peer",
            "--profile",
            "image",
            "--target",
            PEER_TARGET,
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        // It travels into dom0 for each run.
        .env("CARGO_PROFILE_IMAGE_STRIP", "true")
        .current_dir(workspace.root())
        .stderr(Stdio::inherit());
    let program = cargo::executable(command, "fata-peer")?;
    bar.done();
    Ok(program)
}
