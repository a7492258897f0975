//! One scenario, many seeds.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::sim::Sim;

/// Runs `scenario` on a new [`Sim`] for each seed. When one panics, a line says how to run that one again: with the
/// environment variable `FATA_SEED`, which this function obeys. `FATA_SEEDS=1000` runs seeds 0 to 999 in place of
/// those that the test names.
///
/// ```
/// fata_sim::check(0..10, |sim| {
///     let domain = sim.domain("guest");
///     sim.run_until_idle();
///     sim.assert_no_leaks(&domain);
/// });
/// ```
///
/// # Panics
/// As the scenario does, for the first seed that fails; or if `FATA_SEED` or `FATA_SEEDS` is not a number.
pub fn check(seeds: impl IntoIterator<Item = u64>, scenario: impl Fn(&Sim)) {
    if let Some(seed) = number("FATA_SEED") {
        run(seed, &scenario);
    } else if let Some(count) = number("FATA_SEEDS") {
        (0..count).for_each(|seed| run(seed, &scenario));
    } else {
        seeds.into_iter().for_each(|seed| run(seed, &scenario));
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.trim().parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

fn run(seed: u64, scenario: &impl Fn(&Sim)) {
    let outcome = catch_unwind(AssertUnwindSafe(|| scenario(&Sim::new(seed))));
    if let Err(panic) = outcome {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("TEST");
        eprintln!("to replay: FATA_SEED={seed} cargo test {test} -- --exact");
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn runs_each_seed_until_one_fails() {
        let seen = RefCell::new(Vec::new());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for seed in 1..10 {
                run(seed, &|sim: &Sim| {
                    seen.borrow_mut().push(sim.seed());
                    assert!(sim.seed() < 3);
                });
            }
        }));
        assert!(outcome.is_err());
        assert_eq!(*seen.borrow(), [1, 2, 3]);
    }
}
