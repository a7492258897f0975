//! Running cargo.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cargo_metadata::{Artifact, Message};

use crate::error::Error;

/// The cargo that runs us, or the one on the path.
pub(crate) fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs a cargo command that prints JSON messages: the programs it built.
pub(crate) fn artifacts(mut command: Command) -> Result<Vec<Artifact>, Error> {
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let failed = |why: String| Error::Program {
        program: format!("cargo {}", words.join(" ")),
        why,
    };
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed("failed; see above".into()));
    }
    let messages = Message::parse_stream(output.stdout.as_slice()).flatten();
    Ok(messages
        .filter_map(|message| match message {
            Message::CompilerArtifact(artifact) if artifact.executable.is_some() => Some(artifact),
            _ => None,
        })
        .collect())
}

/// Runs a cargo command that builds the program `name`: where it is.
pub(crate) fn executable(command: Command, name: &str) -> Result<PathBuf, Error> {
    let built = artifacts(command)?
        .into_iter()
        .find(|artifact| artifact.target.name == name);
    built
        .and_then(|artifact| artifact.executable)
        .map(Into::into)
        .ok_or_else(|| Error::Program {
            program: "cargo build".into(),
            why: format!("linked no program `{name}`"),
        })
}
