//! One of the two guests that are compared.

use std::time::Duration;

use serde_json::Value;

use super::load::{Load, Setting};
use crate::bench::{WAIT, ask_often};
use crate::{Error, Guest, XenHost};

/// For ten thousand connections on a busy computer, emulated.
const LIMIT: Duration = Duration::from_secs(1800);

/// A guest that offers the services of `ci/guests/services`. While the other is measured it has nothing to do.
pub(super) struct Side<'a> {
    host: &'a XenHost,
    name: &'static str,
    /// Its IPv4 address.
    address: &'static str,
    setting: Setting,
    /// The event channel of the interface whose backend is ours.
    rogue: Option<u32>,
}

/// What a load did, and what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Measured {
    /// Things done: requests, or windows of datagrams.
    pub(super) done: f64,
    /// Bytes, or datagrams that arrived.
    pub(super) moved: f64,
    /// Seconds of the host's clock.
    pub(super) seconds: f64,
    /// Seconds of the guest's CPU time.
    pub(super) guest: f64,
    /// Seconds of dom0's.
    pub(super) dom0: f64,
    /// Frames, both ways together.
    pub(super) frames: f64,
    /// Signals from the guest to its backends.
    pub(super) sent: f64,
    /// Events from the backends in the guest.
    pub(super) received: Option<f64>,
    /// Hypercalls of the guest: those that the loop makes. Linux does not count its own.
    pub(super) hypercalls: Option<f64>,
}

impl<'a> Side<'a> {
    /// Ours.
    pub(super) fn fata(host: &'a XenHost, image: &[u8], setting: Setting) -> Result<Self, Error> {
        let guest = Guest::new("fata", image).arguments(arguments("10.0.0.2"));
        Self::start(host, "fata", "10.0.0.2", guest, "listening on port 80", setting)
    }

    /// Debian's Linux with `server` (the program `fata-peer`).
    pub(super) fn linux(host: &'a XenHost, server: &[u8], setting: Setting) -> Result<Self, Error> {
        let guest = host.linux_guest("linux", &arguments("10.0.0.3"), Some(server))?;
        Self::start(host, "linux", "10.0.0.3", guest, "linux guest is ready", setting)
    }

    fn start(
        host: &'a XenHost,
        name: &'static str,
        address: &'static str,
        guest: Guest,
        ready: &str,
        setting: Setting,
    ) -> Result<Self, Error> {
        let last = address.rsplit('.').next().unwrap_or_default();
        let vifs = match setting {
            Setting::Vifs(vifs) => vifs,
            _ => 1,
        };
        let guest = (0..vifs).fold(guest.memory_mib(setting.memory_mib()), |guest, vif| {
            guest.vif(&format!("00:16:3e:00:0{last}:{vif:02x}"))
        });
        host.place(&guest)?;
        let mut side = Self {
            host,
            name,
            address,
            setting,
            rogue: None,
        };
        match setting {
            Setting::New => {
                ask_often(host)?;
                return Ok(side);
            }
            Setting::Rogue => side.rogue = Some(host.start_with_rogue_vif(name)?),
            _ => host.start_placed(name)?,
        }
        host.wait_for_log(name, ready, WAIT)?;
        // Once for nothing: Ethernet addresses are learnt, code is translated, the first connection's memory is there.
        // Linux says that it is ready when its server has been started, which is not yet listening.
        let warm = format!("/tmp/peer http {address}:80 / --requests 20");
        host.check(
            &format!("n=0; until {warm}; do n=$((n+1)); [ $n -lt 50 ] || exit 1; usleep 200000; done"),
            WAIT,
        )?;
        Ok(side)
    }

    /// Puts a load on it. `None`: it cannot carry that.
    pub(super) fn measure(&self, load: &Load) -> Result<Option<Measured>, Error> {
        let Self { name, address, .. } = self;
        let port = self.rogue.filter(|_| load.arguments.ends_with("--storm"));
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        let command = format!("/tmp/peer --domain $(xl domid {name}) {} {port}", load.command(address));
        // One script: each command from outside costs more than most loads.
        let script = match self.setting {
            Setting::New => format!(
                "set -e; xl create -p /guests/{name}.cfg >/dev/null; ip neigh flush dev xenbr0 >/dev/null 2>&1\n\
                 {command}; xl destroy {name}"
            ),
            _ => {
                let statistics = format!("busybox wget -q -O - http://{address}/stats");
                format!("ulimit -n 20000; {statistics} && {command} && {statistics}")
            }
        };
        let text = match self.host.check(&script, LIMIT) {
            // Mostly so many connections.
            Err(Error::Command { .. }) if load.may_be_refused() => return Ok(None),
            text => text?,
        };
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_default())
            .collect();
        // The guest's own statistics, before and after, if it was asked for them.
        let (before, line, after) = match lines.as_slice() {
            [line] => (&Value::Null, line, &Value::Null),
            [before, line, after] => (before, line, after),
            _ => {
                return Err(Error::Command {
                    command: script,
                    status: 0,
                    output: text,
                });
            }
        };
        let number = |path: &str| line.pointer(path).and_then(Value::as_f64).unwrap_or_default();
        let counted = |name: &str| {
            let pointer = format!("/events/{name}");
            Some(after.pointer(&pointer)?.as_f64()? - before.pointer(&pointer)?.as_f64()?)
        };
        let frames = number("/cost/frames_in") + number("/cost/frames_out");
        Ok(Some(Measured {
            done: number("/load/ok"),
            moved: number("/load/bytes"),
            seconds: number("/cost/ns") / 1e9,
            guest: number("/cost/guest_ns") / 1e9,
            dom0: number("/cost/dom0_ns") / 1e9,
            frames,
            sent: number("/cost/signals"),
            received: counted("received"),
            hypercalls: counted("sent")
                .zip(counted("sleeps"))
                .map(|(sent, sleeps)| sent + sleeps),
        }))
    }
}

fn arguments(address: &str) -> String {
    format!("ipv4={address}/24 gateway=10.0.0.1 ipv6=none")
}
