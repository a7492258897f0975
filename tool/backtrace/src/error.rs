//! What can go wrong, said so that the next step is clear.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no backtrace.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The image cannot be read.
    Image {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The image has been stripped.
    NoSymbols {
        /// Which.
        path: PathBuf,
    },
    /// Log or core cannot be read.
    Io(io::Error),
    /// The text has no crash report.
    NoReport,
    /// An ELF file, but not a core of an x86-64 domain.
    NotACore {
        /// What is wrong with it.
        why: String,
    },
    /// A section of the core is not there, or is not within the file.
    Section {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The code in the core is not that of the image.
    WrongImage {
        /// Where they differ first.
        address: u64,
    },
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { path, why } => write!(
                f,
                "{}: {why}\n  next: name an application that was built, or the path of its .debug file",
                path.display()
            ),
            Self::NoSymbols { path } => write!(
                f,
                "{}: has no debugging information\n  next: give the file NAME.debug that `cargo fata build` wrote beside it",
                path.display()
            ),
            Self::Io(error) => write!(f, "cannot read the log or core: {error}"),
            Self::NoReport => f.write_str(
                "the text has no crash report: no line has `fata: panic`, `fata: fault` or `fata: backtrace:`\n  \
                 next: give the guest's console log, which is /var/log/xen/console/guest-NAME.log if xenconsoled keeps \
                 one (--log=all), or what `xl dmesg` prints",
            ),
            Self::NotACore { why } => write!(
                f,
                "this is an ELF file, but no core of a domain: {why}\n  next: give what `xl dump-core` wrote"
            ),
            Self::Section { name, why } => write!(
                f,
                "the core's section {name} {why}\n  next: see whether the disk was full when it was written, and dump again"
            ),
            Self::WrongImage { address } => write!(
                f,
                "the core's code is not the image's: they differ at {address:#x}\n  \
                 next: give the .debug file of the build that ran"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
