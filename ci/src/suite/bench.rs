//! What a test works with.

use std::cell::Cell;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::{Failure, Images, ensure};
use crate::{DomainState, Guest, Options, XenHost};

/// Emulated, on a computer that does other things as well: what takes a second may take many.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A host, images, and names that no other test has.
pub struct Bench<'a> {
    pub(super) host: &'a XenHost,
    /// What the host was started with.
    pub(super) options: &'a Options,
    pub(super) images: &'a Images,
    /// The test's number, from which its guests' addresses come.
    number: usize,
    guests: Cell<usize>,
    /// Whether its guests are PV and not PVH.
    pv: bool,
}

/// A guest of the test's. Dropping it destroys it.
pub(super) struct Running<'a> {
    pub(super) host: &'a XenHost,
    pub(super) name: String,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

impl<'a> Bench<'a> {
    pub(super) fn new(host: &'a XenHost, options: &'a Options, images: &'a Images, number: usize) -> Self {
        Self {
            host,
            options,
            images,
            number,
            guests: Cell::new(0),
            pv: false,
        }
    }

    /// The same with PV guests.
    pub(super) fn with_pv_guests(&self) -> Self {
        Self {
            guests: Cell::new(0),
            pv: true,
            ..*self
        }
    }

    /// Whether its guests are PV and not PVH.
    pub(super) fn is_pv(&self) -> bool {
        self.pv
    }

    /// A file of the images' folder.
    pub(super) fn image(&self, file: &str) -> PathBuf {
        self.images.folder.join(file)
    }

    pub(super) fn read(&self, file: &str) -> Result<Vec<u8>, Failure> {
        let path = self.image(file);
        fs::read(&path).map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))
    }

    /// A guest that runs `image` with 8 MiB and no network.
    pub(super) fn guest(&self, image: &str) -> Result<Guest, Failure> {
        let nth = self.guests.replace(self.guests.get() + 1);
        let guest = Guest::new(format!("{image}-{}-{nth}", self.number), self.read(image)?).memory_mib(8);
        Ok(if self.pv { guest.pv() } else { guest })
    }

    /// The same with a network interface and fixed addresses: those that [`Running::v4`] and [`Running::v6`] tell.
    pub(super) fn server(&self, image: &str, more: &str) -> Result<Guest, Failure> {
        let guest = self.guest(image)?;
        let (v4, v6) = (self.v4(), self.v6());
        let arguments = format!("ipv4={v4}/24 gateway=10.0.0.1 dns=10.0.0.1 ipv6={v6}/64 {more}");
        Ok(guest.vif(&self.mac()).arguments(arguments))
    }

    /// The MAC address of the guest made last.
    pub(super) fn mac(&self) -> String {
        format!("00:16:3e:00:{:02x}:{:02x}", self.number, self.guests.get())
    }

    fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.host_part())
    }

    fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.host_part().into())
    }

    /// Four addresses for each test, from 10.0.0.8 on.
    fn host_part(&self) -> u8 {
        (8 + (self.number * 4 + self.guests.get()) % 200) as u8
    }

    /// Creates the guest and starts it.
    pub(super) fn start(&self, guest: Guest) -> Result<Running<'a>, Failure> {
        let name = guest.name().to_owned();
        self.host.create(&guest)?;
        Ok(Running {
            host: self.host,
            name,
            v4: self.v4(),
            v6: self.v6(),
        })
    }

    /// Creates the guest with a second interface whose backend is ours, and gives its event channel.
    pub(super) fn start_with_rogue_vif(&self, guest: Guest) -> Result<(Running<'a>, u32), Failure> {
        let name = guest.name().to_owned();
        self.host.place(&guest)?;
        let running = Running {
            host: self.host,
            name,
            v4: self.v4(),
            v6: self.v6(),
        };
        let port = self.host.start_with_rogue_vif(&running.name)?;
        Ok((running, port))
    }

    /// Creates the guest; it does not run before `xl unpause`.
    pub(super) fn start_paused(&self, guest: Guest) -> Result<Running<'a>, Failure> {
        let name = guest.name().to_owned();
        self.host.place(&guest)?;
        self.dom0(&format!("xl create -p /guests/{name}.cfg"))?;
        Ok(Running {
            host: self.host,
            name,
            v4: self.v4(),
            v6: self.v6(),
        })
    }

    /// Runs a command in dom0 that must succeed: what it printed.
    pub(super) fn dom0(&self, script: &str) -> Result<String, Failure> {
        Ok(self.host.check(script, PATIENCE)?)
    }

    /// Runs the test's client in dom0; nothing may have failed.
    pub(super) fn peer(&self, arguments: &str) -> Result<String, Failure> {
        let there = self.host.run("test -x /tmp/peer", PATIENCE)?.success();
        if !there {
            let path = &self.images.peer;
            let program = fs::read(path).map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))?;
            self.host.put_program("/tmp/peer", &program)?;
        }
        Ok(self.host.check(&format!("/tmp/peer {arguments}"), PATIENCE * 5)?)
    }
}

impl Running<'_> {
    /// Waits until the console has `text`: the whole console.
    pub(super) fn says(&self, text: &str) -> Result<String, Failure> {
        Ok(self.host.wait_for_log(&self.name, text, PATIENCE)?)
    }

    /// Waits until the guest is gone: its console.
    pub(super) fn ends(&self) -> Result<String, Failure> {
        self.host.wait_for_state(&self.name, DomainState::Absent, PATIENCE)?;
        Ok(self.host.console(&self.name)?)
    }

    /// Waits until the guest is gone, and checks its exit status.
    pub(super) fn ends_with(&self, status: u8) -> Result<String, Failure> {
        let console = self.ends()?;
        let line = format!("fata: exit status {status}");
        ensure!(
            console.lines().any(|l| l.trim() == line),
            "no `{line}` on the console:\n{console}"
        );
        Ok(console)
    }

    /// Waits until the guest is preserved as crashed: its console.
    pub(super) fn crashes(&self) -> Result<String, Failure> {
        self.host.wait_for_state(&self.name, DomainState::Crashed, PATIENCE)?;
        Ok(self.host.console(&self.name)?)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // It may be gone already; what is left is seen after the test.
        let _ = self.host.destroy(&self.name);
    }
}
