//! How large an image is, how little memory it needs, and how soon it answers.

use std::fs;

use fata_ci::bench::{self, Boot};
use fata_ci::suite::Images;
use fata_ci::{Clock, Options};

use crate::error::Error;
use crate::progress::spinner;

/// Measures and prints what docs/performance.md holds.
pub(super) fn run(options: &Options, images: &Images, rounds: usize) -> Result<(), Error> {
    println!("| Image, stripped | Bytes |\n|---|---|");
    for name in ["hello", "http", "echo"] {
        let path = images.folder.join(name);
        println!(
            "| `{name}` | {} |",
            fs::metadata(&path).map_err(Error::file(&path))?.len()
        );
    }
    println!("\n| Smallest `memory=` | MiB |\n|---|---|");
    for (name, memory) in bench::smallest_memory(options, images)? {
        println!("| `{name}` | {memory} |");
    }
    for (clock, title, unit) in [
        (Clock::Wall, "wall clock", "ms"),
        (Clock::Instructions, "instruction clock", "virtual ms"),
    ] {
        let bar = spinner(&format!("{rounds} rounds by the {title}"));
        let results = bench::boot(options, images, clock, rounds)?;
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
