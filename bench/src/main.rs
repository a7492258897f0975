//! `fata-bench`: names the cases. `fata-bench CASE rust|c N`: does a case N times, to be counted from outside.
//! `fata-bench CASE time ROUNDS`: nanoseconds of each side in turns, the median of the rounds.

mod bare;
mod cases;

use std::process::ExitCode;
use std::time::Instant;

use cases::{CASES, Case};

/// Operations in one round of `time`.
const ROUND: u64 = 200_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let case = |index: &str| index.parse().ok().and_then(|index: usize| CASES.get(index));
    match words[..] {
        [] => CASES.iter().for_each(|case| println!("{}", case.name)),
        [index, how, count] => {
            let (Some(case), Ok(count)) = (case(index), count.parse()) else {
                return ExitCode::FAILURE;
            };
            match how {
                "rust" => (case.rust)(count),
                "c" => (case.c)(count),
                _ => time(case, count),
            }
        }
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// Prints what one operation takes, ours and C's, in nanoseconds.
fn time(case: &Case, rounds: u64) {
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (side, took) in [case.rust, case.c].into_iter().zip(&mut took) {
            let began = Instant::now();
            side(ROUND);
            took.push(began.elapsed().as_nanos() as f64 / ROUND as f64);
        }
    }
    let [rust, c] = took.map(|mut took| {
        took.sort_by(f64::total_cmp);
        took[took.len() / 2]
    });
    println!("{rust:.2} {c:.2}");
}
