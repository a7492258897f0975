//! Boot arguments: what the toolstack passes to the program (`extra=` in an `xl` configuration).
//!
//! ```text
//! ipv4=10.0.0.2/24 gateway=10.0.0.1 log=net=debug,info -- --greeting 'good morning'
//! ```
//!
//! The words before `--` are Fata's: all are `key=value`, all are checked, and an unknown or malformed one ends the
//! program with a message and status 2. The words after `--` are the application's and pass through as they are.
//!
//! | Argument | Meaning | Default |
//! |---|---|---|
//! | `ipv4=` | `ADDRESS/PREFIX`, `dhcp` or `none` | `dhcp` |
//! | `gateway=` | IPv4 router; with a static `ipv4=` only | none |
//! | `ipv6=` | `ADDRESS/PREFIX`, `auto` (SLAAC) or `none` | `auto` |
//! | `gateway6=` | IPv6 router; with a static `ipv6=` only | none |
//! | `dns=` | name servers, with commas; before what DHCP offers | DHCP's |
//! | `hostname=` | the machine's name, sent to the DHCP server | the domain's name |
//! | `log=` | what to log, with commas: a level, or `target=level` | `info` |
//! | `help` | prints this table and ends with status 0 | |
//!
//! The network arguments are those of the interface `net0`. Another interface's are named with it:
//! `net1.ipv4=10.0.1.2/24`. On Xen, `netN` is the domain's `device/vif/N`. A program that is built without the feature
//! `net` has none of them, and says so.
//!
//! Words are separated by white space. `'…'` keeps everything, `"…"` keeps everything but a backslash before `"` or
//! `\`, and outside of quotes a backslash keeps the character after it. As in a shell, quotes may begin inside a word.

mod filter;
#[cfg(feature = "net")]
mod interface;
mod words;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

pub use filter::Filter;
pub(crate) use filter::short_target;
#[cfg(feature = "net")]
pub use interface::{InterfaceArgs, Ipv4, Ipv6};

/// The longest command line that is taken, in bytes.
pub const MAX_COMMAND_LINE: usize = 8192;

/// The most interfaces: `net0` to `net15`.
#[cfg(feature = "net")]
pub const MAX_INTERFACES: usize = 16;

/// What `help` prints, in pieces.
pub const HELP: &[&str] = &[
    "boot arguments:\n",
    #[cfg(feature = "net")]
    "  ipv4=ADDRESS/PREFIX|dhcp|none   IPv4 of net0 (default: dhcp)
  gateway=ADDRESS                 IPv4 router, with a static ipv4=
  ipv6=ADDRESS/PREFIX|auto|none   IPv6 of net0 (default: auto)
  gateway6=ADDRESS                IPv6 router, with a static ipv6=
  dns=ADDRESS,...                 name servers (default: those of DHCP)
  netN.ARGUMENT=...               any of the above for interface netN
",
    "  hostname=NAME                   the machine's name (default: the domain's)
  log=LEVEL,TARGET=LEVEL,...      off, error, warn, info, debug or trace
  help                            prints this
  -- WORDS                        for the application
",
];

/// The boot arguments, parsed.
///
/// ```
/// use fata::args::{Args, Ipv4};
/// let args = Args::parse("ipv4=10.0.0.2/24 gateway=10.0.0.1 -- user=ann 'two words'").unwrap();
/// assert!(matches!(args.interface(0).ipv4, Ipv4::Static { prefix: 24, .. }));
/// assert_eq!(args.application(), ["user=ann", "two words"]);
/// assert_eq!(args.value("user"), Some("ann"));
///
/// let error = Args::parse("ipv4=10.0.0.2").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "boot argument ipv4=10.0.0.2: expected ADDRESS/PREFIX such as 10.0.0.2/24, dhcp or none"
/// );
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    line: String,
    #[cfg(feature = "net")]
    interfaces: Vec<InterfaceArgs>,
    hostname: Option<String>,
    log: Filter,
    help: bool,
    application: Vec<String>,
}

impl Args {
    /// Parses a command line.
    ///
    /// # Errors
    /// The first argument that is unknown, malformed, given twice or without the argument that it needs.
    pub fn parse(line: &str) -> Result<Self, Error> {
        if line.len() > MAX_COMMAND_LINE {
            return Err(Error::of("", Problem::TooLong));
        }
        let mut args = Self {
            line: line.to_string(),
            ..Self::default()
        };
        let mut words = words::split(line)?;
        if let Some(end) = words.iter().position(|word| word == "--") {
            args.application = words.split_off(end + 1);
            words.truncate(end);
        }
        let mut seen = Vec::new();
        for word in &words {
            if matches!(word.as_str(), "help" | "--help" | "-h") {
                args.help = true;
                continue;
            }
            let Some((key, value)) = word.split_once('=') else {
                return Err(Error::of(word, Problem::Unknown));
            };
            if seen.contains(&key) {
                return Err(Error::of(word, Problem::Twice));
            }
            args.set(key, value).map_err(|problem| Error::of(word, problem))?;
            seen.push(key);
        }
        #[cfg(feature = "net")]
        for (index, interface) in args.interfaces.iter().enumerate() {
            interface.check(index)?;
        }
        Ok(args)
    }

    /// Takes one `key=value`.
    fn set(&mut self, key: &str, value: &str) -> Result<(), Problem> {
        match key {
            "hostname" => self.hostname = Some(hostname(value)?),
            "log" => self.log = Filter::parse(value)?,
            #[cfg(not(feature = "net"))]
            _ => return Err(Problem::Unknown),
            #[cfg(feature = "net")]
            _ => {
                let (index, key) = interface::split_key(key).ok_or(Problem::Unknown)?;
                if self.interfaces.len() <= index {
                    self.interfaces.resize_with(index + 1, InterfaceArgs::default);
                }
                let interface = self.interfaces.get_mut(index).ok_or(Problem::Unknown)?;
                interface.set(key, value)?;
            }
        }
        Ok(())
    }

    /// The whole command line as it came.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// What was said about the interface `net<index>`; the defaults if nothing was.
    #[cfg(feature = "net")]
    #[must_use]
    pub fn interface(&self, index: usize) -> InterfaceArgs {
        self.interfaces.get(index).cloned().unwrap_or_default()
    }

    /// The number of the last interface that an argument names, if any does.
    #[cfg(feature = "net")]
    #[must_use]
    pub fn last_interface(&self) -> Option<usize> {
        self.interfaces.len().checked_sub(1)
    }

    /// `hostname=`, if given.
    #[must_use]
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// `log=`: what shall be logged.
    #[must_use]
    pub fn log(&self) -> &Filter {
        &self.log
    }

    /// Whether `help` was asked for.
    #[must_use]
    pub fn help(&self) -> bool {
        self.help
    }

    /// The words after `--`, which are the application's.
    #[must_use]
    pub fn application(&self) -> &[String] {
        &self.application
    }

    /// The value of the application's last word of the form `key=value`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.application
            .iter()
            .rev()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// A name as DNS has them: labels of letters, digits and hyphens (RFC 1123, section 2.1).
fn hostname(value: &str) -> Result<String, Problem> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if value.len() <= 253 && value.split('.').all(label) {
        Ok(value.to_string())
    } else {
        Err(Problem::Expected("a name of letters, digits, hyphens and dots"))
    }
}

/// A boot argument that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    argument: String,
    problem: Problem,
}

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// There is no such argument.
    Unknown,
    /// It may be given once only.
    Twice,
    /// The value is not what it has to be.
    Expected(&'static str),
    /// It says nothing without another argument.
    #[cfg(feature = "net")]
    Needs(&'static str),
    /// A quote or backslash at which the line ends.
    Unfinished(&'static str),
    /// The line is longer than [`MAX_COMMAND_LINE`].
    TooLong,
}

impl Error {
    fn of(argument: &str, problem: Problem) -> Self {
        /// As much of a wrong argument as fits a line of the console.
        const SHOWN: usize = 200;
        let mut shown = String::new();
        for c in argument.chars() {
            shown.extend(c.escape_default());
            if shown.len() > SHOWN {
                // It is ASCII.
                shown.truncate(SHOWN);
                shown.push_str("...");
                break;
            }
        }
        Self {
            argument: shown,
            problem,
        }
    }

    /// The argument at fault, cut and escaped so that it can be shown; empty if it is the line as a whole.
    #[must_use]
    pub fn argument(&self) -> &str {
        &self.argument
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.argument.is_empty() {
            f.write_str("boot arguments: ")?;
        } else {
            f.write_str("boot argument ")?;
            f.write_str(&self.argument)?;
            f.write_str(": ")?;
        }
        let (before, what) = match self.problem {
            Problem::Unknown if cfg!(feature = "net") => (
                "",
                "there is no such argument (\"help\" lists all; the application's come after --)",
            ),
            Problem::Unknown => (
                "",
                "there is no such argument in a program without network (\"help\" lists all; the application's come \
                 after --)",
            ),
            Problem::Twice => ("", "it is given twice"),
            Problem::Expected(what) => ("expected ", what),
            #[cfg(feature = "net")]
            Problem::Needs(what) => ("it needs ", what),
            Problem::Unfinished(what) => ("the line ends after ", what),
            Problem::TooLong => ("", "more than 8192 bytes"),
        };
        f.write_str(before)?;
        f.write_str(what)
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests;
