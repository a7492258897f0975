//! Telling a terminal how far the machine is.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A part of the work of [`XenHost::start`](crate::XenHost::start), in the order in which they come.
///
/// On a computer that has done it before, only [`Stage::Restore`] happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Waiting until another set-up in the same cache has ended.
    Lock,
    /// Fetching the index of the Debian archive (14 MB).
    Index,
    /// Fetching the packages of QEMU, Xen, Linux and dom0's programs.
    Download,
    /// Unpacking the packages.
    Unpack,
    /// Building dom0's initial RAM disk.
    Image,
    /// Starting Xen and dom0 from nothing.
    Boot,
    /// Writing the snapshot that later runs start from.
    Snapshot,
    /// Starting from the snapshot.
    Restore,
}

impl Stage {
    /// A few words for a progress bar.
    pub fn title(self) -> &'static str {
        match self {
            Stage::Lock => "waiting for another set-up",
            Stage::Index => "reading the package index",
            Stage::Download => "downloading QEMU, Xen and Linux",
            Stage::Unpack => "unpacking packages",
            Stage::Image => "building the dom0 image",
            Stage::Boot => "booting Xen and dom0",
            Stage::Snapshot => "saving the snapshot",
            Stage::Restore => "restoring the Xen host",
        }
    }
}

/// How far a [`Stage`] is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// The stage begins.
    Began,
    /// The stage goes on.
    Advanced {
        /// How much is done, from 0 to 1.
        fraction: f32,
    },
    /// The stage is done.
    Ended {
        /// How long it took.
        took: Duration,
    },
}

/// Where progress is reported to: a closure that is called from the thread that does the work.
///
/// ```
/// use fata_ci::{Progress, Reporter};
/// let reporter = Reporter::new(|stage, progress| {
///     if let Progress::Ended { took } = progress {
///         eprintln!("{}: {:.1} s", stage.title(), took.as_secs_f32());
///     }
/// });
/// # let _ = reporter;
/// ```
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(Stage, Progress) + Send + Sync>);

impl Reporter {
    /// A reporter that calls `report`.
    pub fn new(report: impl Fn(Stage, Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    /// A reporter that says nothing.
    pub fn silent() -> Self {
        Self::new(|_, _| ())
    }

    /// Runs `work` as the stage `stage`. The end is reported only when it succeeds.
    pub(crate) fn stage<T, E>(&self, stage: Stage, work: impl FnOnce(&Step<'_>) -> Result<T, E>) -> Result<T, E> {
        let begin = Instant::now();
        (self.0)(stage, Progress::Began);
        let result = work(&Step { reporter: self, stage })?;
        (self.0)(stage, Progress::Ended { took: begin.elapsed() });
        Ok(result)
    }
}

impl Default for Reporter {
    fn default() -> Self {
        Self::silent()
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

/// The running stage, for reporting how far it is.
pub(crate) struct Step<'a> {
    reporter: &'a Reporter,
    stage: Stage,
}

impl Step<'_> {
    /// Reports that `done` of `total` is done.
    pub(crate) fn advance(&self, done: f32, total: f32) {
        let fraction = if total > 0.0 {
            (done / total).clamp(0.0, 1.0)
        } else {
            0.0
        };
        (self.reporter.0)(self.stage, Progress::Advanced { fraction });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_stage_that_fails_does_not_end() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let reporter = Reporter::new(move |stage, progress| sink.lock().unwrap().push((stage, progress)));
        let failed: Result<(), ()> = reporter.stage(Stage::Boot, |_| Err(()));
        assert_eq!(failed, Err(()));
        let done: Result<u8, ()> = reporter.stage(Stage::Image, |step| {
            step.advance(3.0, 2.0);
            Ok(1)
        });
        assert_eq!(done, Ok(1));
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0], (Stage::Boot, Progress::Began));
        assert_eq!(seen[1], (Stage::Image, Progress::Began));
        assert_eq!(seen[2], (Stage::Image, Progress::Advanced { fraction: 1.0 }));
        assert!(matches!(seen[3], (Stage::Image, Progress::Ended { .. })));
    }
}
