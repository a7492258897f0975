//! The network's figures: a table on the terminal, every round in a file.

use std::fs;

use fata_ci::bench::{self, Plan, Report, Row};
use fata_ci::suite::Images;
use fata_ci::{Clock, Options};
use serde_json::json;

use crate::cli::{BenchArgs, BenchClock};
use crate::error::Error;
use crate::progress::bar;

/// Measures by one clock or both, and prints. What was measured before an error is printed as well.
pub(super) fn run(options: &Options, images: &Images, args: &BenchArgs) -> Result<(), Error> {
    let (mut wall, mut counted) = (Vec::new(), Vec::new());
    let result = [
        (Clock::Wall, BenchClock::Wall, "by the wall clock", &mut wall),
        (
            Clock::Instructions,
            BenchClock::Instructions,
            "by the instruction clock",
            &mut counted,
        ),
    ]
    .into_iter()
    .filter(|(_, name, ..)| args.clock.is_none_or(|only| only == *name))
    .try_for_each(|(clock, _, title, rows)| {
        let plan = Plan {
            clock,
            rounds: args.rounds,
            only: args.only.as_deref(),
        };
        let bar = bar(title);
        bench::net(options, images, plan, &mut |report| match report {
            Report::Progress { what, done, total } => bar.show(what, done, total),
            Report::Row(row) => rows.push(row),
        })?;
        bar.done();
        Ok(())
    });
    print!("{}", table(&wall, &counted, args.rounds));
    if let Some(path) = &args.json {
        let rows: Vec<_> = wall.iter().chain(&counted).map(Row::json).collect();
        let file = json!({ "rounds": args.rounds, "rows": rows });
        fs::write(path, format!("{file:#}\n")).map_err(Error::file(path))?;
        eprintln!("every round is in {}", path.display());
    }
    result
}

/// The same rows by both clocks, as far as there are both. Times of an emulated machine mean nothing, so beside the
/// instruction clock's the wall's are told as a ratio only.
fn table(wall: &[Row], counted: &[Row], rounds: usize) -> String {
    let mut text = format!(
        "\nMedians of {rounds}. A ratio above 1 is in Fata's favour; `<` marks one below its aim.\n\n\
         | Load | Figure | Fata | Linux | Ratio | Ratio by the wall clock | Aim |\n|---|---|---:|---:|---:|---:|---:|\n"
    );
    let shown = if counted.is_empty() { wall } else { counted };
    for (nth, row) in shown.iter().enumerate() {
        let [fata, linux] = row.medians().map(number);
        let ratio = |rows: &[Row]| match rows.get(nth).and_then(Row::ratio) {
            Some(ratio) if ratio < row.aim => format!("{ratio:.2} <"),
            Some(ratio) => format!("{ratio:.2}"),
            None => "-".into(),
        };
        let Row {
            load,
            figure,
            unit,
            aim,
            ..
        } = row;
        text += &format!(
            "| {load} | {figure}, {unit} | {fata} | {linux} | {} | {} | {aim:.1} |\n",
            ratio(counted),
            ratio(wall)
        );
    }
    text
}

/// Four significant digits or so.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value >= 1000.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fata_ci::bench::Better;

    #[test]
    fn what_is_below_its_aim_is_marked() {
        let row = |clock, linux: &[f64]| Row {
            load: "tcp-in",
            figure: "throughput",
            unit: "MiB/s",
            better: Better::More,
            clock,
            timed: true,
            aim: 1.5,
            fata: vec![120.0],
            linux: linux.to_vec(),
        };
        let table = table(&[row(Clock::Wall, &[])], &[row(Clock::Instructions, &[100.0])], 1);
        let line = "| tcp-in | throughput, MiB/s | 120.0 | 100.0 | 1.20 < | - | 1.5 |";
        assert!(table.lines().any(|l| l == line), "{table}");
    }
}
