//! `log=`: which messages are shown.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use log::{LevelFilter, Metadata};

use super::Problem;

/// Which log messages are shown: a level, and other levels for some targets.
///
/// A target is a module path. `net=debug` is about the crate `net`, about `fata_net`, and about all that is in them;
/// of several that fit, the longest decides.
///
/// ```
/// use fata::args::Args;
/// use log::LevelFilter;
/// let args = Args::parse("log=net=debug,warn").unwrap();
/// assert_eq!(args.log().level("net"), LevelFilter::Debug);
/// assert_eq!(args.log().level("fata_net::tcp"), LevelFilter::Debug);
/// assert_eq!(args.log().level("netfront"), LevelFilter::Warn);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    default: LevelFilter,
    targets: Vec<(String, LevelFilter)>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            default: LevelFilter::Info,
            targets: Vec::new(),
        }
    }
}

impl Filter {
    /// Parses `info` or `net=debug,info`.
    pub(super) fn parse(value: &str) -> Result<Self, Problem> {
        const EXPECTED: Problem = Problem::Expected(
            "off, error, warn, info, debug or trace, or TARGET=LEVEL, with commas, such as net=debug,info",
        );
        let mut filter = Self::default();
        for part in value.split(',') {
            match part.split_once('=') {
                None => filter.default = part.parse().map_err(|_| EXPECTED)?,
                Some((target, name)) if !target.is_empty() => {
                    filter
                        .targets
                        .push((target.to_string(), name.parse().map_err(|_| EXPECTED)?));
                }
                Some(_) => return Err(EXPECTED),
            }
        }
        Ok(filter)
    }

    /// The level up to which messages of `target` are shown.
    #[must_use]
    pub fn level(&self, target: &str) -> LevelFilter {
        let short = short_target(target);
        let fits = |name: &str| within(target, name) || within(short, name);
        self.targets
            .iter()
            .filter(|(name, _)| fits(name))
            .max_by_key(|(name, _)| name.len())
            .map_or(self.default, |(_, level)| *level)
    }

    /// The level beyond which no message of any target is shown.
    #[must_use]
    pub fn max_level(&self) -> LevelFilter {
        self.targets
            .iter()
            .map(|(_, level)| *level)
            .fold(self.default, Ord::max)
    }

    /// Whether a message is shown.
    #[must_use]
    pub fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level(metadata.target())
    }
}

/// Fata's own crates go by their folder's name: `net` for `fata_net`.
pub(crate) fn short_target(target: &str) -> &str {
    target.strip_prefix("fata_").unwrap_or(target)
}

/// Whether `target` is the module `name` or inside of it.
fn within(target: &str, name: &str) -> bool {
    target
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
