//! `fata-bench`: names the cases. `fata-bench count CASE rust|c N`: does a case N times, to be counted from outside.
//! `fata-bench time FOLDER`: measures how long each takes; criterion leaves what it found in the folder, under the case's
//! number and its side.

mod bare;
mod cases;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use cases::CASES;
use criterion::{Criterion, SamplingMode};
use rustix::time::{ClockId, clock_gettime};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => CASES.iter().for_each(|case| println!("{}", case.name)),
        ["time", folder] => time(Path::new(folder)),
        ["count", case, side, count] => {
            let case = case.parse().ok().and_then(|case: usize| CASES.get(case));
            let (Some(case), Ok(count)) = (case, count.parse()) else {
                return ExitCode::FAILURE;
            };
            (if side == "c" { case.c } else { case.rust })(count);
        }
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// Ours and C's after one another, case by case.
fn time(folder: &Path) {
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(folder)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    for (number, case) in CASES.iter().enumerate() {
        let mut group = criterion.benchmark_group(number.to_string());
        // Each sample is long, so that what comes before its first operation does not count.
        group.sampling_mode(SamplingMode::Flat);
        for (side, operate) in [("rust", case.rust), ("c", case.c)] {
            group.bench_function(side, |bencher| {
                bencher.iter_custom(|count| {
                    let began = cpu_time();
                    operate(count);
                    cpu_time() - began
                });
            });
        }
    }
}

/// The CPU time of this thread: the computer may have other work.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
