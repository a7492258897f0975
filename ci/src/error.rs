//! What can go wrong with the machine, said so that a person knows what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::DomainState;

/// A failure of the Xen host or of something that was asked of it.
///
/// Its text is meant for a terminal: what failed, why, and what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// This computer cannot have the machine at all (wrong system, a program that nothing replaces).
    Unsupported {
        /// What is missing or different.
        what: String,
        /// What the user can do.
        next: &'static str,
    },
    /// A file operation failed.
    Io {
        /// What was being done, as in "cannot {doing} {path}".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A program of this computer or of the unpacked packages failed.
    Program {
        /// The command line, shortened.
        command: String,
        /// How it ended, with the last lines it printed.
        why: String,
        /// What the user can do.
        next: &'static str,
    },
    /// A package did not hold what the recipe expects.
    Package {
        /// What was looked for.
        missing: String,
    },
    /// QEMU ended although nobody asked it to.
    QemuDied {
        /// Its exit status.
        status: String,
        /// The last lines of its own log and of Xen's console.
        log: String,
    },
    /// QEMU refused a command on its control socket.
    Qmp {
        /// The command.
        command: String,
        /// QEMU's answer.
        answer: String,
    },
    /// Something did not happen in the time it was given.
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The last lines of the log that would have shown it.
        log: String,
    },
    /// The conversation with dom0's agent broke off.
    Agent {
        /// What was being asked.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A command in dom0 ended with a status other than 0.
    Command {
        /// The command.
        command: String,
        /// Its exit status.
        status: i32,
        /// What it printed, errors first.
        output: String,
    },
    /// A guest ended, crashed or was never there while something was waited for in its log.
    Guest {
        /// The guest's name.
        name: String,
        /// The state it was found in.
        state: DomainState,
        /// The last lines of its console.
        log: String,
        /// The last lines that Xen said; registers, if Xen itself ended the guest.
        xen: String,
    },
    /// A value from the caller cannot be used.
    Argument {
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// Wraps an I/O error for `path`; `doing` completes "cannot ... PATH".
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { doing, path, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unsupported { what, next } => write!(f, "{what}\n  next: {next}"),
            Error::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}", path.display())?;
                match source.kind() {
                    io::ErrorKind::StorageFull => {
                        f.write_str("\n  next: free about 1 GB there, or set FATA_CACHE to a folder on a larger disk")
                    }
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        f.write_str("\n  next: make it writable, or set FATA_CACHE to a folder that is")
                    }
                    _ => Ok(()),
                }
            }
            Error::Program { command, why, next } => {
                write!(f, "`{command}` failed: {}\n  next: {next}", why.trim_end())
            }
            Error::Package { missing } => write!(
                f,
                "the Debian packages hold no {missing}\n  next: the recipe in ci/src/recipe.rs may need an update for a newer package"
            ),
            Error::QemuDied { status, log } => write!(
                f,
                "QEMU ended unexpectedly ({status}); its last lines:\n{}\n  next: if it was killed, check for free memory (2 GB); \
                 otherwise remove the cache folder and try again",
                Indented(log)
            ),
            Error::Qmp { command, answer } => {
                write!(
                    f,
                    "QEMU refused `{command}`: {answer}\n  next: remove the cache folder and try again"
                )
            }
            Error::Timeout { what, after, log } => write!(
                f,
                "{what}: nothing after {:.1} s; last lines of the log:\n{}\n  next: look at the log above; on a busy computer try again",
                after.as_secs_f64(),
                Indented(log)
            ),
            Error::Agent { what, source } => write!(
                f,
                "dom0 did not answer to `{what}`: {source}\n  next: start the host again; Xen's console says whether dom0 still lives"
            ),
            Error::Command {
                command,
                status,
                output,
            } => {
                write!(
                    f,
                    "`{command}` in dom0 ended with status {status}:\n{}",
                    Indented(output)
                )
            }
            Error::Guest { name, state, log, xen } => {
                write!(
                    f,
                    "guest `{name}` is {state}; last lines of its console:\n{}",
                    Indented(log)
                )?;
                write!(f, "\n  and of Xen's:\n{}", Indented(xen))
            }
            Error::Argument { what } => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } | Error::Agent { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Shows a text with every line moved in, so that a quoted log stands apart from the message.
struct Indented<'a>(&'a str);

impl fmt::Display for Indented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.trim().is_empty() {
            return f.write_str("    (empty)");
        }
        for (n, line) in self.0.trim_end().lines().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}    | {line}")?;
        }
        Ok(())
    }
}

/// The last `lines` lines of `text`, for quoting.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_the_end_of_a_log() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("", 3), "");
        assert_eq!(Indented("x\ny\n").to_string(), "    | x\n    | y");
    }

    #[test]
    fn says_what_to_do_when_the_disk_is_full() {
        let error = Error::io("write", Path::new("/c/f"))(io::Error::from(io::ErrorKind::StorageFull));
        let text = error.to_string();
        assert!(text.contains("cannot write /c/f"), "{text}");
        assert!(text.contains("FATA_CACHE"), "{text}");
    }
}
