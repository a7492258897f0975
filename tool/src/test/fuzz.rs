//! Ten seconds of each fuzz target, as many at a time as there are processors.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Counts;
use super::host::{captured, report};
use crate::error::Error;
use crate::fuzz::Targets;
use crate::progress::{spinner, stage_line};
use crate::setup;
use crate::workspace::Workspace;

/// How long each runs.
const SECONDS: u64 = 10;
/// What it may take in all: it reads its seeds first, and the last input may hang.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the targets whose name contains `only`. Without a nightly compiler they are skipped.
pub(super) fn test(workspace: &Workspace, only: Option<&str>) -> Result<Counts, Error> {
    let targets = Targets::find(workspace)?;
    let names: Vec<&str> = targets
        .names()
        .filter(|name| only.is_none_or(|only| name.contains(only)))
        .collect();
    if names.is_empty() {
        return Ok(Counts::default());
    }
    if let Err(Error::NoNightly { why }) = setup::nightly() {
        stage_line(&format!("fuzz: skipped, {why}"), Duration::ZERO);
        return Ok(Counts {
            skipped: names.len() as u32,
            ..Counts::default()
        });
    }
    let programs = targets.build(workspace, None)?;
    let mut counts = Counts::default();
    for some in names.chunks(thread::available_parallelism().map_or(1, usize::from)) {
        let bar = spinner(&format!("fuzz {}", some.join(", ")));
        let results: Vec<_> = thread::scope(|scope| {
            let fuzz = |name| fuzz(&targets, &programs, name);
            let threads: Vec<_> = some.iter().map(|name| scope.spawn(move || fuzz(name))).collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        bar.done();
        for result in results {
            // A thread that panicked has said so.
            counts += Counts::one(result.unwrap_or(Ok(false))?);
        }
    }
    Ok(counts)
}

/// Whether the target survived.
fn fuzz(targets: &Targets, programs: &Path, name: &str) -> Result<bool, Error> {
    let began = Instant::now();
    let before = targets.failing(name);
    // A new one each time, so that a run does not depend on the runs before.
    let corpus = tempfile::tempdir().map_err(Error::file(Path::new("a temporary folder")))?;
    let outcome = captured(
        targets.command(&programs.join(name), name, corpus.path(), SECONDS)?,
        LIMIT,
    )?;
    if !outcome.success() {
        report(&format!("fuzz {name}"), &outcome, LIMIT, began.elapsed());
        eprintln!("error: {}", targets.finding(name, &targets.failing(name) - &before));
    }
    Ok(outcome.success())
}
