//! That `cargo fata bench net` measures. Nothing timed is asserted, only that there are figures.

use super::{Bench, Failure, Test, ensure};
use crate::bench::{Plan, Report, net};
use crate::{Clock, Error};

pub(super) const TESTS: &[Test] = &[
    ("measure::a_load_has_figures_of_both", |bench| {
        figures(bench, "udp-in-64")
    }),
    ("measure::a_start_has_figures_of_both", |bench| {
        figures(bench, "first-ping")
    }),
    ("measure::a_storm_has_figures_of_both", |bench| {
        figures(bench, "storm-none")
    }),
    ("measure::there_is_no_load_of_that_name", there_is_no_load_of_that_name),
];

/// Each row of the load has a figure of ours and one of Linux's.
fn figures(bench: &Bench<'_>, load: &str) -> Result<(), Failure> {
    let mut rows = Vec::new();
    net(bench.options, bench.images, plan(load), &mut |report| {
        if let Report::Row(row) = report {
            rows.push(row);
        }
    })?;
    ensure!(rows.len() == 2, "{rows:?}");
    for row in &rows {
        let positive = |values: &[f64]| matches!(values, [value] if *value > 0.0);
        ensure!(positive(&row.fata) && positive(&row.linux), "{row:?}");
    }
    Ok(())
}

fn there_is_no_load_of_that_name(bench: &Bench<'_>) -> Result<(), Failure> {
    let refused = net(bench.options, bench.images, plan("quic"), &mut |_| {});
    ensure!(matches!(refused, Err(Error::Argument { .. })), "{refused:?}");
    Ok(())
}

fn plan(load: &str) -> Plan<'_> {
    Plan {
        clock: Clock::Wall,
        rounds: 1,
        only: Some(load),
    }
}
