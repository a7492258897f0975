//! Figures, always beside a peer's: from the same host, in the same run, in turns.

mod boot;
mod memory;
mod net;

use std::fs;
use std::path::Path;
use std::time::Duration;

pub use boot::{Boot, boot};
pub use memory::smallest_memory;
pub use net::{Better, Plan, Report, Row, net};

use crate::Error;

fn median(values: impl Iterator<Item = Duration>) -> Duration {
    let mut values: Vec<Duration> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// For the slowest of the peers, emulated.
const WAIT: Duration = Duration::from_secs(150);

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let millis = |values: &[u64]| median(values.iter().copied().map(Duration::from_millis)).as_millis();
        assert_eq!(millis(&[5, 1, 9]), 5);
        assert_eq!(millis(&[]), 0);
    }
}
