//! Fuzzing: the targets in fuzz/, built by cargo-fuzz with a nightly compiler, fed by libFuzzer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cargo_metadata::MetadataCommand;
use serde::Deserialize;

use crate::cli::FuzzArgs;
use crate::error::Error;
use crate::progress::spinner;
use crate::setup;
use crate::workspace::Workspace;

/// What one input may take. They need milliseconds, so more is a loop without end.
const INPUT_SECONDS: u32 = 20;
/// What a target may hold, in MiB.
const MEMORY: u32 = 4096;

/// The targets, as fuzz/Cargo.toml describes them.
pub(crate) struct Targets {
    /// The folder fuzz/.
    folder: PathBuf,
    /// Where cargo builds them.
    target_dir: PathBuf,
    descriptions: BTreeMap<String, String>,
}

/// `cargo fata fuzz`: lists the targets, runs one, or has one read a file.
pub(crate) fn run(workspace: &Workspace, args: &FuzzArgs) -> Result<(), Error> {
    let targets = Targets::find(workspace)?;
    let Some(name) = &args.target else {
        for (name, description) in &targets.descriptions {
            println!("{name:16} {description}");
        }
        println!("\nnext: cargo fata fuzz TARGET --seconds 600");
        return Ok(());
    };
    let name = targets.known(name)?;
    let program = targets.build(workspace, Some(name))?.join(name);
    let mut command = match &args.replay {
        Some(input) => targets.replay(&program, input)?,
        None => targets.command(&program, name, &targets.folder.join("corpus").join(name), args.seconds)?,
    };
    if args.jobs > 1 && args.replay.is_none() {
        command.arg(format!("-fork={}", args.jobs));
    }
    let before = targets.failing(name);
    let status = command.status().map_err(|error| Error::Program {
        program: name.into(),
        why: error.to_string(),
    })?;
    match &args.replay {
        _ if status.success() => Ok(()),
        Some(input) => Err(targets.finding(name, [input.clone()].into())),
        None => Err(targets.finding(name, &targets.failing(name) - &before)),
    }
}

impl Targets {
    pub(crate) fn find(workspace: &Workspace) -> Result<Self, Error> {
        let folder = workspace.root().join("fuzz");
        let metadata = MetadataCommand::new()
            .manifest_path(folder.join("Cargo.toml"))
            .no_deps()
            .exec()
            .map_err(Error::Metadata)?;
        let package = metadata.packages.iter().find(|package| package.name == "fata-fuzz");
        let described = package.map_or(&serde_json::Value::Null, |package| &package.metadata["targets"]);
        let descriptions = BTreeMap::deserialize(described).map_err(|why| Error::BadMetadata {
            application: "fata-fuzz".into(),
            why,
        })?;
        Ok(Self {
            folder,
            target_dir: workspace.target_dir().join("fuzz"),
            descriptions,
        })
    }

    /// The names of all targets.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.descriptions.keys().map(String::as_str)
    }

    fn known<'a>(&self, name: &'a str) -> Result<&'a str, Error> {
        if self.descriptions.contains_key(name) {
            return Ok(name);
        }
        Err(Error::NoFuzzTarget {
            name: name.into(),
            known: self.names().map(String::from).collect(),
        })
    }

    /// Builds one target, or all; gives the folder with the programs.
    pub(crate) fn build(&self, workspace: &Workspace, name: Option<&str>) -> Result<PathBuf, Error> {
        setup::nightly()?;
        let cargo_fuzz = setup::cargo_fuzz(workspace)?;
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let bar = spinner("building the fuzz targets with the nightly compiler");
        let output = Command::new(cargo_fuzz)
            .args(["fuzz", "build", "--target", &host, "--fuzz-dir"])
            .arg(&self.folder)
            .arg("--target-dir")
            .arg(&self.target_dir)
            .args(name)
            .current_dir(workspace.root())
            // Not the cargo that runs us, but nightly's, through rustup's.
            .env("RUSTUP_TOOLCHAIN", setup::NIGHTLY)
            .env_remove("CARGO")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::Program {
                program: "cargo fuzz build".into(),
                why: error.to_string(),
            })?;
        if !output.status.success() {
            return Err(Error::Program {
                program: "cargo fuzz build".into(),
                why: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        bar.done();
        Ok(self.target_dir.join(host).join("release"))
    }

    /// Runs a target for some seconds, from its seeds and from what is in `corpus`, where it also puts what it finds
    /// worth keeping.
    pub(crate) fn command(&self, program: &Path, name: &str, corpus: &Path, seconds: u64) -> Result<Command, Error> {
        let artifacts = self.artifacts(name);
        for folder in [corpus, &artifacts] {
            fs::create_dir_all(folder).map_err(Error::file(folder))?;
        }
        let mut command = libfuzzer(program);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            .arg(corpus)
            .arg(self.folder.join("seeds").join(name));
        Ok(command)
    }

    fn replay(&self, program: &Path, input: &Path) -> Result<Command, Error> {
        fs::metadata(input).map_err(Error::file(input))?;
        let mut command = libfuzzer(program);
        command.arg(input);
        Ok(command)
    }

    /// Inputs on which the target has failed.
    pub(crate) fn failing(&self, name: &str) -> BTreeSet<PathBuf> {
        // No folder, no findings.
        let entries = fs::read_dir(self.artifacts(name)).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    }

    pub(crate) fn finding(&self, target: &str, inputs: BTreeSet<PathBuf>) -> Error {
        Error::Finding {
            target: target.into(),
            inputs: inputs.into_iter().collect(),
        }
    }

    fn artifacts(&self, name: &str) -> PathBuf {
        self.folder.join("artifacts").join(name)
    }
}

fn libfuzzer(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY}"));
    if program.file_name().is_some_and(|name| name == LEAKS) {
        command.env("ASAN_OPTIONS", "detect_leaks=0");
    }
    command
}

/// The target that drops network stacks. What DHCP lends smoltcp is lent for ever, as smoltcp's types have it; an image has one
/// stack an interface for as long as it lives.
const LEAKS: &str = "net";
