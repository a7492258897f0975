//! Figures beside Linux's, as a table.

use std::fs;

use fata_ci::bench::{self, Boot};
use fata_ci::{Cache, Clock, Options};

use crate::cli::BenchArgs;
use crate::error::Error;
use crate::progress::{self, spinner};
use crate::workspace::Workspace;
use crate::{setup, test};

/// Builds, measures and prints what docs/performance.md holds.
pub(crate) fn boot(workspace: &Workspace, args: &BenchArgs) -> Result<(), Error> {
    setup::bare_metal_target(workspace)?;
    let images = test::images(workspace)?;
    let options = Options::new(Cache::locate()?).reporter(progress::reporter());
    println!("| Image, stripped | Bytes |\n|---|---|");
    for name in ["hello", "http", "echo"] {
        let path = images.folder.join(name);
        println!(
            "| `{name}` | {} |",
            fs::metadata(&path).map_err(Error::file(&path))?.len()
        );
    }
    println!("\n| Smallest `memory=` | MiB |\n|---|---|");
    for (name, memory) in bench::smallest_memory(&options, &images)? {
        println!("| `{name}` | {memory} |");
    }
    for (clock, title, unit) in [
        (Clock::Wall, "wall clock", "ms"),
        (Clock::Instructions, "instruction clock", "virtual ms"),
    ] {
        let bar = spinner(&format!("{} rounds by the {title}", args.rounds));
        let results = bench::boot(&options, &images, clock, args.rounds)?;
        bar.done();
        table(title, unit, &results);
    }
    Ok(())
}

fn table(title: &str, unit: &str, results: &[Boot; 2]) {
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1000.0;
    println!(
        "\n| {title}, medians of {} | `xl create` returns, {unit} | first answer, {unit} |",
        results[0].rounds.len()
    );
    println!("|---|---|---|");
    for result in results {
        println!(
            "| {} | {:.1} | {:.1} |",
            result.name,
            millis(result.returned()),
            millis(result.first_answer())
        );
    }
    let [ours, linux] = results.each_ref().map(|result| millis(result.first_answer()));
    println!("| Linux / Fata | | {:.1} |", linux / ours);
}
