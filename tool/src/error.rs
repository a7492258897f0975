//! What can go wrong, said so that the next step is clear.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A failure of the tool.
#[derive(Debug)]
pub(crate) enum Error {
    /// `cargo metadata` gave no answer.
    Metadata(cargo_metadata::Error),
    /// No such application in the workspace.
    NoApplication { name: String, known: Vec<String> },
    /// An application of which there is no image yet.
    NotBuilt { name: String },
    /// No backtrace.
    Backtrace(fata_backtrace::Error),
    /// `[package.metadata.fata]` cannot be read.
    BadMetadata {
        application: String,
        why: serde_json::Error,
    },
    /// The target's core library is not there and cannot be added.
    NoTarget { target: &'static str, why: String },
    /// A program could not be started, or failed after having said why.
    Program { program: String, why: String },
    /// A file could not be read or written.
    File { path: PathBuf, source: io::Error },
    /// The Xen host or a guest on it.
    Host(fata_ci::Error),
    /// The guest did not answer.
    NoAnswer { whom: String, why: String, console: String },
    /// clippy or rustfmt are not there and cannot be added.
    NoLinters { why: String },
    /// There is no nightly compiler, or what else fuzzing needs.
    NoNightly { why: &'static str },
    /// No such fuzz target.
    NoFuzzTarget { name: String, known: Vec<String> },
    /// A fuzz target failed, and this is what it had read.
    Finding { target: String, inputs: Vec<PathBuf> },
    /// A guest that has to be reached from here would have no known address.
    BadAddress { text: String },
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl From<fata_ci::Error> for Error {
    fn from(error: fata_ci::Error) -> Self {
        Self::Host(error)
    }
}

impl From<fata_backtrace::Error> for Error {
    fn from(error: fata_backtrace::Error) -> Self {
        Self::Backtrace(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(error) => write!(
                f,
                "cannot read the workspace: {error}\n  next: run this inside a cargo workspace"
            ),
            Self::NoApplication { name, known } => {
                write!(
                    f,
                    "no application `{name}` here\n  next: name one of {}",
                    known.join(", ")
                )
            }
            Self::NotBuilt { name } => write!(
                f,
                "there is no dist/{name}.debug\n  next: give the path of the .debug file of the build that ran; \
                 `cargo fata build {name}` builds what is in the source now"
            ),
            Self::Backtrace(error) => error.fmt(f),
            Self::BadMetadata { application, why } => {
                write!(
                    f,
                    "[package.metadata.fata] of `{application}`: {why}\n  next: see examples/http/Cargo.toml"
                )
            }
            Self::NoTarget { target, why } => write!(
                f,
                "the Rust target {target} is not installed, and adding it failed: {why}\n  \
                 next: run `rustup target add {target}` inside this folder, so that it is added to the pinned toolchain; \
                 without rustup, install the core library of {target} for this very compiler"
            ),
            Self::NoLinters { why } => write!(
                f,
                "clippy and rustfmt are not installed, and adding them failed: {why}\n  \
                 next: run `rustup component add clippy rustfmt` inside this folder; without rustup, install both for this very \
                 compiler; `cargo fata test unit` and the other parts do without"
            ),
            Self::NoNightly { why } => write!(
                f,
                "fuzzing needs a nightly compiler and a C++ compiler, but {why}\n  \
                 next: run `rustup toolchain install nightly --profile minimal`, or install g++; the other tests do without"
            ),
            Self::NoFuzzTarget { name, known } => {
                write!(f, "no fuzz target `{name}`\n  next: name one of {}", known.join(", "))
            }
            Self::Finding { target, inputs } if inputs.is_empty() => write!(
                f,
                "the fuzz target `{target}` failed, and left no input\n  next: see what it printed above"
            ),
            Self::Finding { target, inputs } => {
                write!(f, "the fuzz target `{target}` failed")?;
                for input in inputs {
                    write!(
                        f,
                        "\n  its input: {0}\n  next: cargo fata fuzz {target} --replay {0}",
                        input.display()
                    )?;
                }
                f.write_str("\n  then: once it is fixed, keep the input as a unit test of the crate")
            }
            Self::BadAddress { text } => write!(
                f,
                "`run` connects to this application, which ipv4={text} makes impossible\n  \
                 next: leave ipv4= out, or give an address from ipv4=10.0.0.2/24 to ipv4=10.0.0.250/24"
            ),
            Self::Program { program, why } => write!(f, "`{program}`: {why}"),
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Host(error) => error.fmt(f),
            Self::NoAnswer { whom, why, console } => {
                write!(f, "{whom} gave no answer: {why}\n  the guest's console:\n")?;
                console.lines().try_for_each(|line| writeln!(f, "    | {line}"))
            }
        }
    }
}

impl std::error::Error for Error {}
