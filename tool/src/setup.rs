//! Getting what is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::progress;
use crate::workspace::Workspace;

/// rustup's name of the compiler that fuzzing needs.
pub(crate) const NIGHTLY: &str = "nightly";
/// What builds the fuzz targets.
const CARGO_FUZZ: &str = "0.13.2";

/// The target of an x86-64 image.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// Everything: the target, and a Xen host that has been started once.
pub(crate) fn all(workspace: &Workspace) -> Result<(), Error> {
    bare_metal_target(workspace)?;
    progress::host()?.stop();
    println!("ready; the cache is {}", fata_ci::Cache::locate()?.path().display());
    Ok(())
}

/// Adds the bare-metal target to the pinned toolchain if it is not there.
///
/// `rustup target add` is called by name: the environment may have switched rustup's automatic installation off.
pub(crate) fn bare_metal_target(workspace: &Workspace) -> Result<(), Error> {
    let failed = |why| Error::NoTarget { target: TARGET, why };
    if has_target(workspace.root()) {
        return Ok(());
    }
    let bar = progress::spinner("adding the Rust target x86_64-unknown-none");
    let output = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(workspace.root())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot run rustup: {error}")))?;
    if !output.status.success() || !has_target(workspace.root()) {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    bar.done();
    Ok(())
}

/// Whether fuzz targets can be built. Nothing is installed: who wants to fuzz decides about a second compiler.
pub(crate) fn nightly() -> Result<(), Error> {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(printed)
    };
    // The list, because to name the toolchain would make rustup fetch it.
    let toolchains = output("rustup", &["toolchain", "list"]).ok_or(Error::NoNightly {
        why: "there is no rustup",
    })?;
    let is_nightly = |line: &str| {
        line.strip_prefix(NIGHTLY)
            .is_some_and(|rest| rest.starts_with("-x86_64"))
    };
    if !toolchains.lines().any(is_nightly) {
        return Err(Error::NoNightly {
            why: "rustup has no nightly toolchain",
        });
    }
    // libFuzzer is C++.
    output("c++", &["--version"])
        .map(drop)
        .ok_or(Error::NoNightly { why: "there is no c++" })
}

/// cargo-fuzz, put into the cache if it is not there.
pub(crate) fn cargo_fuzz(workspace: &Workspace) -> Result<PathBuf, Error> {
    let folder = fata_ci::Cache::locate()?
        .path()
        .join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let program = folder.join("bin/cargo-fuzz");
    if program.is_file() {
        return Ok(program);
    }
    let bar = progress::spinner("building cargo-fuzz");
    let output = Command::new(crate::cargo::program())
        .args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--root"])
        .arg(&folder)
        .current_dir(workspace.root())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Program {
            program: "cargo install cargo-fuzz".into(),
            why: error.to_string(),
        })?;
    if !output.status.success() {
        return Err(Error::Program {
            program: "cargo install cargo-fuzz".into(),
            why: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    bar.done();
    Ok(program)
}

/// Adds clippy and rustfmt to the pinned toolchain if they are not there.
pub(crate) fn linters(workspace: &Workspace) -> Result<(), Error> {
    let failed = |why| Error::NoLinters { why };
    let complete = || {
        ["clippy", "fmt"]
            .iter()
            .all(|name| has_subcommand(workspace.root(), name))
    };
    if complete() {
        return Ok(());
    }
    let bar = progress::spinner("adding clippy and rustfmt");
    let output = Command::new("rustup")
        .args(["component", "add", "clippy", "rustfmt"])
        .current_dir(workspace.root())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot run rustup: {error}")))?;
    if !output.status.success() || !complete() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    bar.done();
    Ok(())
}

/// Whether `cargo NAME` works; rustup's stand-in for a missing component fails.
fn has_subcommand(root: &Path, name: &str) -> bool {
    Command::new(crate::cargo::program())
        .args([name, "--version"])
        .current_dir(root)
        .output()
        .is_ok_and(|output| output.status.success())
}

fn has_target(root: &Path) -> bool {
    Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(root)
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|folder| Path::new(folder.trim()).read_dir().ok())
        // The folder may be there and empty.
        .is_some_and(|files| {
            files
                .flatten()
                .any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
        })
}
