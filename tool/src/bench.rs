//! Figures beside Linux's, as a table.

mod boot;
mod micro;
mod net;

use fata_ci::{Cache, Options};

use crate::cli::{BenchArgs, BenchPart};
use crate::error::Error;
use crate::workspace::Workspace;
use crate::{progress, setup, test};

/// Builds, measures and prints.
pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<(), Error> {
    let wanted = |part| args.part.is_none_or(|only| only == part);
    fata_ci::bench::find_rows(args.only.as_deref())?;
    if wanted(BenchPart::Micro) {
        micro::run(workspace)?;
    }
    if args.part == Some(BenchPart::Micro) {
        return Ok(());
    }
    setup::bare_metal_target(workspace)?;
    let images = test::images(workspace)?;
    let options = Options::new(Cache::locate()?).reporter(progress::reporter());
    if wanted(BenchPart::Boot) {
        boot::run(&options, &images, args.rounds)?;
    }
    if wanted(BenchPart::Net) {
        net::run(&options, &images, args)?;
    }
    Ok(())
}
