//! One of the two guests that are compared.

use serde_json::Value;

use super::load::{Load, Setting};

use crate::bench::WAIT;
use crate::{Error, Guest, XenHost};

/// The guests' memory: what the Linux guest needs.
const MEMORY_MIB: u32 = 160;

/// A guest that offers the services of `ci/guests/services`. It is paused unless it is being measured, so that the other
/// has the machine for itself.
pub(super) struct Side<'a> {
    host: &'a XenHost,
    name: &'static str,
    /// Its IPv4 address.
    pub(super) address: &'static str,
    domain: u32,
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
            Setting::Plain | Setting::Rogue => 1,
        };
        let guest = (0..vifs).fold(guest.memory_mib(MEMORY_MIB), |guest, vif| {
            guest.vif(&format!("00:16:3e:00:0{last}:{vif:02x}"))
        });
        host.place(&guest)?;
        let rogue = match setting {
            Setting::Rogue => Some(host.start_with_rogue_vif(name)?),
            _ => host.start_placed(name).map(|()| None)?,
        };
        host.wait_for_log(name, ready, WAIT)?;
        let domain = host.domain(name)?.map_or(0, |domain| domain.id);
        let side = Self {
            host,
            name,
            address,
            domain,
            rogue,
        };
        // Once for nothing: Ethernet addresses are learnt, code is translated, the first connection's memory is there.
        side.peer(&format!("http {address}:80 / --requests 20"))?;
        side.pause()?;
        Ok(side)
    }

    /// Takes it apart.
    pub(super) fn end(self) -> Result<(), Error> {
        self.host.destroy(self.name)
    }

    pub(super) fn pause(&self) -> Result<(), Error> {
        self.host.check(&format!("xl pause {}", self.name), WAIT).map(drop)
    }

    pub(super) fn unpause(&self) -> Result<(), Error> {
        self.host.check(&format!("xl unpause {}", self.name), WAIT).map(drop)
    }

    /// Puts a load on it. `None`: it cannot carry that.
    pub(super) fn measure(&self, load: &Load) -> Result<Option<Measured>, Error> {
        self.unpause()?;
        let before = self.statistics()?;
        let port = self.rogue.filter(|_| load.arguments.ends_with("--storm"));
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        let line = self.peer(&format!(
            "--domain {} {} {port}",
            self.domain,
            load.command(self.address)
        ));
        let line = match line {
            // Mostly so many connections.
            Err(Error::Command { .. }) if load.arguments.contains("--open") => {
                self.pause()?;
                return Ok(None);
            }
            line => line?,
        };
        let after = self.statistics()?;
        self.pause()?;
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
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

    fn peer(&self, arguments: &str) -> Result<String, Error> {
        self.host
            .check(&format!("ulimit -n 20000; /tmp/peer {arguments}"), WAIT)
    }

    fn statistics(&self) -> Result<Value, Error> {
        let text = self
            .host
            .check(&format!("busybox wget -q -O - http://{}/stats", self.address), WAIT)?;
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

fn arguments(address: &str) -> String {
    format!("ipv4={address}/24 gateway=10.0.0.1 ipv6=none")
}
