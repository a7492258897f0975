//! That `cargo fata bench net` measures. Nothing timed is asserted, only that there are figures.

use super::{Bench, Failure, Test, ensure};
use crate::bench::{Plan, Report, net};
use crate::{Clock, Error};

pub(super) const TESTS: &[Test] = &[("measure::rows_have_figures_of_both", rows_have_figures_of_both)];

fn rows_have_figures_of_both(bench: &Bench<'_>) -> Result<(), Failure> {
    let mut plan = Plan {
        clock: Clock::Wall,
        rounds: 1,
        only: Some("udp-in-64"),
    };
    let mut rows = Vec::new();
    net(bench.options, bench.images, plan, &mut |report| {
        if let Report::Row(row) = report {
            rows.push(row);
        }
    })?;
    ensure!(rows.len() == 2, "{rows:?}");
    for row in &rows {
        let positive = |values: &[f64]| matches!(values, [value] if *value > 0.0);
        ensure!(positive(&row.fata) && positive(&row.linux), "{row:?}");
    }
    plan.only = Some("no such load");
    let refused = net(bench.options, bench.images, plan, &mut |_| {});
    ensure!(matches!(refused, Err(Error::Argument { .. })), "{refused:?}");
    Ok(())
}
