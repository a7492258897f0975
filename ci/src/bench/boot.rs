//! How soon a guest answers.

use std::time::Duration;

use serde_json::Value;

use super::{WAIT, ask_often, median, read};
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
    let linux = host.linux_guest("linux", fixed, None)?;
    let mac = "00:16:3e:00:00:02";
    for guest in [ours.vif(mac), linux.vif(mac)] {
        host.place(&guest)?;
    }
    host.put_program("/etc/xen/scripts/vif-bridge", &read(&images.peer)?)?;
    ask_often(&host)?;
    let mut results = ["fata", "linux"].map(|name| Boot {
        name,
        rounds: Vec::new(),
    });
    for _ in 0..rounds {
        for result in &mut results {
            let name = result.name;
            let line = host.check(
                &format!(
                    "ip neigh flush dev xenbr0 >/dev/null 2>&1\n\
                     /tmp/peer first 10.0.0.2:80 / --run 'xl create /guests/{name}.cfg'"
                ),
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
