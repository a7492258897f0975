//! Figures, always beside a peer's: from the same host, in the same run, in turns.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::suite::Images;
use crate::{Clock, Error, Guest, Options, XenHost};

/// From `xl create` to the first HTTP answer.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Who.
    pub name: &'static str,
    /// One entry per round: when `xl create` came back, and when the answer was there.
    pub rounds: Vec<(Duration, Duration)>,
}

impl Boot {
    /// The median of when `xl create` came back.
    pub fn returned(&self) -> Duration {
        median(self.rounds.iter().map(|round| round.0))
    }

    /// The median of when the answer was there.
    pub fn first_answer(&self) -> Duration {
        median(self.rounds.iter().map(|round| round.1))
    }
}

fn median(values: impl Iterator<Item = Duration>) -> Duration {
    let mut values: Vec<Duration> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Debian's Linux 6.1 with busybox's httpd, and our `http`, in turns, `rounds` times each.
///
/// # Errors
/// [`Error`] if a guest does not answer.
pub fn boot(options: &Options, images: &Images, clock: Clock, rounds: usize) -> Result<[Boot; 2], Error> {
    let host = XenHost::start(&options.clone().clock(clock))?;
    host.put_program("/tmp/peer", &read(&images.peer)?)?;
    let fixed = "ipv4=10.0.0.2/24 gateway=10.0.0.1";
    let ours = Guest::new("fata", read(&images.folder.join("http"))?)
        .memory_mib(8)
        .arguments(fixed);
    let linux = host.linux_guest("linux", fixed)?;
    let mac = "00:16:3e:00:00:02";
    for guest in [ours.vif(mac), linux.vif(mac)] {
        host.place(&guest)?;
    }
    // What is measured is the guest, not how often dom0 asks for its Ethernet address.
    host.check(&format!("busybox arp -i xenbr0 -s 10.0.0.2 {mac}"), WAIT)?;
    let mut results = ["fata", "linux"].map(|name| Boot {
        name,
        rounds: Vec::new(),
    });
    for _ in 0..rounds {
        for result in &mut results {
            let name = result.name;
            let line = host.check(
                &format!("/tmp/peer first 10.0.0.2:80 / --run 'xl create /guests/{name}.cfg'"),
                WAIT,
            )?;
            let times: Value = serde_json::from_str(&line).unwrap_or_default();
            let micros = |key: &str| Duration::from_micros(times[key].as_u64().unwrap_or(0));
            result.rounds.push((micros("returned_us"), micros("first_us")));
            host.destroy(name)?;
        }
    }
    Ok(results)
}

/// The smallest `memory=`, in MiB, with which `hello` ends well and `http` answers.
///
/// # Errors
/// [`Error`] if none up to 16 MiB does.
pub fn smallest_memory(options: &Options, images: &Images) -> Result<[(&'static str, u32); 2], Error> {
    let host = XenHost::start(options)?;
    host.put_program("/tmp/peer", &read(&images.peer)?)?;
    let smallest = |name: &'static str| -> Result<(&'static str, u32), Error> {
        let elf = read(&images.folder.join(name))?;
        for memory in 1..=16 {
            let guest = Guest::new(format!("{name}-{memory}"), elf.clone()).memory_mib(memory);
            let guest = match name {
                "http" => guest.vif("00:16:3e:00:00:02").arguments("ipv4=10.0.0.2/24"),
                _ => guest,
            };
            let works = host.create(&guest).is_ok()
                && match name {
                    "http" => host
                        .run("/tmp/peer http 10.0.0.2:80 / --requests 200 --parallel 8", WAIT)?
                        .success(),
                    _ => host.wait_for_log(guest.name(), "fata: exit status 0", WAIT).is_ok(),
                };
            // Gone already, if it has ended.
            let _ = host.destroy(guest.name());
            if works {
                return Ok((name, memory));
            }
        }
        Err(Error::Argument {
            what: format!("`{name}` does not work with 16 MiB either"),
        })
    };
    Ok([smallest("hello")?, smallest("http")?])
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
