//! One scenario, many seeds.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;

use crate::sim::Sim;

/// Runs `scenario` on a new [`Sim`] for each seed, on all processors. When one panics, a line says how to run that one
/// again: with the environment variable `FATA_SEED`, which this function obeys. `FATA_SEEDS=1000` runs seeds 0 to 999 in
/// place of those that the test names.
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
/// As the scenario does, for one of the seeds that fail; or if `FATA_SEED` or `FATA_SEEDS` is not a number.
pub fn check<I>(seeds: I, scenario: impl Fn(&Sim) + Sync)
where
    I: IntoIterator<Item = u64, IntoIter: Send>,
{
    if let Some(seed) = number("FATA_SEED") {
        run(seed..=seed, &scenario);
    } else if let Some(count) = number("FATA_SEEDS") {
        run(0..count, &scenario);
    } else {
        run(seeds.into_iter(), &scenario);
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    let number = value.trim().parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

type Panic = Box<dyn std::any::Any + Send>;

/// Each thread takes the next seed, until there is none or one has failed.
fn run(seeds: impl Iterator<Item = u64> + Send, scenario: &(impl Fn(&Sim) + Sync)) {
    let seeds = Mutex::new(seeds.fuse());
    let failed: Mutex<Option<(u64, Panic)>> = Mutex::new(None);
    let locked = "no panic while it is locked";
    let work = || {
        while failed.lock().expect(locked).is_none() {
            let Some(seed) = seeds.lock().expect(locked).next() else {
                return;
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(&Sim::new(seed)))) {
                let mut failed = failed.lock().expect(locked);
                if failed.as_ref().is_none_or(|(first, _)| seed < *first) {
                    *failed = Some((seed, panic));
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    if let Some((seed, panic)) = failed.into_inner().expect(locked) {
        eprintln!("to replay: {}", replay(seed));
        resume_unwind(panic);
    }
}

/// The command that runs one seed of the test in this thread.
fn replay(seed: u64) -> String {
    let thread = thread::current();
    let test = thread.name().unwrap_or("TEST");
    let package =
        std::env::var("CARGO_PKG_NAME").map_or_else(|_| "--workspace".to_owned(), |name| format!("-p {name}"));
    format!("FATA_SEED={seed} cargo test {package} {test} -- --exact")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_seed_runs_once() {
        let seen = Mutex::new(Vec::new());
        run(1..100, &|sim: &Sim| seen.lock().unwrap().push(sim.seed()));
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (1..100).collect::<Vec<_>>());
    }

    #[test]
    fn runs_until_one_fails() {
        let seen = Mutex::new(BTreeSet::new());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            // Without an end, if it did not stop.
            run(1.., &|sim: &Sim| {
                seen.lock().unwrap().insert(sim.seed());
                assert!(sim.seed() != 300, "number 300");
            });
        }));
        let message = outcome.expect_err("300 fails");
        assert_eq!(message.downcast_ref::<&str>(), Some(&"number 300"));
        assert!(seen.into_inner().unwrap().contains(&299));
        assert!(replay(300).starts_with("FATA_SEED=300 cargo test "));
    }
}
