//! The integration tests: images on a real Xen, met by the real netback, xenstored, xenconsoled, xl, curl and ping.
//!
//! A test is a function of a [`Bench`]. They share a few hosts, on which each has guests, names and addresses of its own; a
//! test that loses its host gets the next test a new one.

mod balloon;
mod bench;
mod boot;
mod debug;
mod devices;
mod host;
mod input;
mod life;
mod limits;
mod measure;
mod memory;
mod network;
mod p9;
mod ports;
mod pv;
mod shim;
mod suspend;
mod vchan;

use std::fmt;
use std::io::ErrorKind;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use bench::Bench;

use crate::{Error, Options, Reporter, XenHost};

/// Why a test failed.
#[derive(Debug)]
pub enum Failure {
    /// The host or a guest did not do what was asked.
    Host(Error),
    /// Something was not as it should be.
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Failure {}

/// Fails the test with a message if a condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        match $condition {
            true => {}
            false => return Err(crate::suite::Failure::Wrong(format!($($message)+))),
        }
    };
}
pub(crate) use ensure;

/// What a test is made of.
type Test = (&'static str, fn(&Bench<'_>) -> Result<(), Failure>);

/// The files that the tests start.
#[derive(Clone, Debug)]
pub struct Images {
    /// A folder with `NAME` (stripped), `NAME.debug` and `NAME.cfg` for `hello`, `http`, `echo`, `ports`,
    /// `probe` and `services`.
    pub folder: PathBuf,
    /// The program `fata-peer`, linked statically, which runs in dom0.
    pub peer: PathBuf,
}

/// All tests, in the order in which they run: what others stand on comes first.
fn tests() -> impl Iterator<Item = Test> {
    [
        host::TESTS,
        boot::TESTS,
        debug::TESTS,
        network::TESTS,
        life::TESTS,
        balloon::TESTS,
        devices::TESTS,
        input::TESTS,
        limits::TESTS,
        suspend::TESTS,
        ports::TESTS,
        shim::TESTS,
        debug::CORES,
        pv::TESTS,
        pv::TESTS_OF_BOTH,
        memory::TESTS,
        vchan::TESTS,
        p9::TESTS,
        measure::TESTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The names of the tests that contain `only`.
pub fn names(only: Option<&str>) -> Vec<&'static str> {
    tests()
        .map(|(name, _)| name)
        .filter(|name| only.is_none_or(|only| name.contains(only)))
        .collect()
}

/// Hosts at the same time, if there are as many processors: each keeps one of them busy, and takes 1.5 GiB.
const HOSTS: usize = 4;

/// Runs the tests whose names contain `only`, and calls `report` after each.
///
/// # Errors
/// [`Error`] when no host can be had at all.
pub fn run(
    options: &Options,
    images: &Images,
    only: Option<&str>,
    report: impl FnMut(&str, Duration, Result<(), Failure>) + Send,
) -> Result<(), Error> {
    let chosen: Vec<(usize, Test)> = tests()
        .enumerate()
        .filter(|(_, (name, _))| only.is_none_or(|only| name.contains(only)))
        .collect();
    let hosts = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(HOSTS)
        .min(chosen.len());
    let queue = Mutex::new(chosen.into_iter());
    let report = Mutex::new(report);
    let quiet = options.clone().reporter(Reporter::silent());
    thread::scope(|scope| {
        // One tells of what is set up; the others wait for it.
        let others: Vec<_> = (1..hosts)
            .map(|_| scope.spawn(|| work(&quiet, images, &queue, &report)))
            .collect();
        let first = work(options, images, &queue, &report);
        let ends = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        ends.fold(first, Result::and)
    })
}

/// Runs tests of the queue, until there are none, on one host.
fn work(
    options: &Options,
    images: &Images,
    queue: &Mutex<impl Iterator<Item = (usize, Test)>>,
    report: &Mutex<impl FnMut(&str, Duration, Result<(), Failure>)>,
) -> Result<(), Error> {
    let mut host: Option<XenHost> = None;
    loop {
        let next = locked(queue).next();
        let Some((number, (name, test))) = next else {
            return Ok(());
        };
        let began = Instant::now();
        let mut running = match host.take() {
            Some(running) => running,
            None => XenHost::start(options)?,
        };
        let mut result = test(&Bench::new(&running, options, images, number));
        let mut title = name.to_owned();
        if stands_still(&result) {
            // Once in some hundred tests the emulated machine does, whoever runs on it. A guest that has it do so does it again.
            drop(running);
            running = XenHost::start(options)?;
            result = test(&Bench::new(&running, options, images, number));
            title.push_str(" (second try: dom0 had stopped to answer)");
        }
        locked(report)(&title, began.elapsed(), result);
        // Still there, and nothing left over? Then the next test may have it.
        host = running
            .domains()
            .is_ok_and(|domains| domains.len() == 1)
            .then_some(running);
    }
}

/// Whether dom0 did not answer in time, though nothing has ended the connection to it.
fn stands_still(result: &Result<(), Failure>) -> bool {
    let Err(Failure::Host(Error::Agent { source, .. })) = result else {
        return false;
    };
    matches!(source.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Another test's panic is none of this one's business.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
