//! The tests: what is checked, in which order, and how many there were.

mod consumer;
mod fuzz;
mod host;
mod xen;

use std::fmt;
use std::ops::AddAssign;
use std::process::ExitCode;

use crate::cli::{Part, TestArgs};
use crate::error::Error;
use crate::workspace::Workspace;

pub(crate) use xen::images;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// Runs the parts that were asked for. The exit code tells whether all passed.
pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> Result<ExitCode, Error> {
    let wanted = |part| args.part.is_none_or(|only| only == part);
    let only = args.only.as_deref();
    let mut counts = Counts::default();
    // The slow set-up comes last, so that what fails early is seen early.
    if wanted(Part::Lint) && only.is_none() {
        crate::setup::bare_metal_target(workspace)?;
        crate::setup::linters(workspace)?;
        counts += host::lint(workspace)?;
    }
    if wanted(Part::Unit) || wanted(Part::Sim) {
        counts += host::test(workspace, &wanted, only)?;
    }
    // What takes long to build, and has nothing to do with one test of another part.
    if wanted(Part::Loom) && (only.is_none() || args.part.is_some()) {
        counts += host::loom(workspace, only)?;
    }
    if wanted(Part::Fuzz) {
        counts += fuzz::test(workspace, only)?;
    }
    if wanted(Part::Xen) {
        crate::setup::bare_metal_target(workspace)?;
        counts += xen::test(workspace, only)?;
    }
    println!("\n{counts}");
    let success = counts.failed == 0 && counts.passed > 0;
    if counts == Counts::default() {
        eprintln!("error: no test has such a name");
    }
    Ok(if success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Counts {
    fn one(passed: bool) -> Self {
        Self {
            passed: passed.into(),
            failed: (!passed).into(),
            skipped: 0,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}
