//! Figures, always beside a peer's: from the same host, in the same run, in turns.

mod boot;
mod memory;
mod net;

use std::fs;
use std::path::Path;
use std::time::Duration;

pub use boot::{Boot, boot};
pub use memory::smallest_memory;
pub use net::{Better, Plan, Report, Row, find_rows, net};

use crate::{Error, XenHost};

fn median(values: impl Iterator<Item = Duration>) -> Duration {
    let mut values: Vec<Duration> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// For the slowest of the peers, emulated.
const WAIT: Duration = Duration::from_secs(150);

/// Has dom0 ask for a guest's Ethernet address as often as it can, every 8 ms, unless the guest says it by itself. So who waits
/// for a guest that starts sees it soon.
fn ask_often(host: &XenHost) -> Result<(), Error> {
    let neigh = "net.ipv4.neigh.xenbr0";
    let settings = format!("{neigh}.retrans_time_ms=4 {neigh}.mcast_solicit=100000");
    host.check(&format!("sysctl -q -w {settings}"), WAIT).map(drop)
}

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
