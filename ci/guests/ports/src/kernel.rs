//! What the guest does.

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use alloc::{boxed::Box, format};
use core::cell::Cell;
use core::error::Error;

use fata_boot::{BootInfo, ExitStatus, console};
use fata_events::xen::{Channel, Ports, XenLoop};
use fata_events::{Handle, Signal};
use fata_hypercall::metal::Xen;
use fata_hypercall::{DomId, Hypervisor, Suspended};
use fata_xenstore::Store;
use fata_xenstore::control::{Control, Request};

fata_boot::entry!(main);

/// How often each pair signals to and fro.
const ROUNDS: u32 = 3;

type Pair = [Channel<Xen>; 2];

fn main(boot: BootInfo) -> ExitStatus {
    let mut xen = XenLoop::new(boot.xen);
    let guest = Guest {
        hv: boot.xen,
        ports: xen.ports().clone(),
        handle: xen.handle(),
        wanted: boot.command_line.trim().parse().unwrap_or(usize::MAX),
    };
    let clock = Rc::clone(xen.clock());
    let task = xen.handle().spawn(async move { guest.live(|| clock.resume()).await });
    while !task.is_finished() {
        xen.turn();
    }
    ExitStatus::SUCCESS
}

struct Guest {
    hv: Xen,
    ports: Ports<Xen>,
    handle: Handle,
    /// Event channels to open.
    wanted: usize,
}

impl Guest {
    async fn live(&self, resume_clock: impl Fn()) {
        if let Err(error) = self.try_to_live(resume_clock).await {
            say(&format!("ports: {error}"));
        }
    }

    async fn try_to_live(&self, resume_clock: impl Fn()) -> Result<(), Box<dyn Error>> {
        let store = Store::new(self.hv, &self.ports, self.handle.clone())?;
        let _serving = self.handle.spawn(store.run());
        let mut control = Control::new(store.client(), true)?;
        for life in 1.. {
            self.work(life).await;
            match control.next().await? {
                Request::Suspend => {
                    let quiet = store.quiet().await;
                    if self.hv.suspend()? == Suspended::Restored {
                        resume_clock();
                        self.ports.resume();
                        store.resume(&self.ports)?;
                        control.announce();
                    }
                    drop(quiet);
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Opens the ports, has all of them at it, and closes them.
    async fn work(&self, life: u32) {
        let mut pairs = Vec::new();
        while pairs.len() * 2 < self.wanted {
            match self.pair() {
                Ok(pair) => pairs.push(pair),
                Err(error) => {
                    say(&format!("{life}: no more: {error}"));
                    break;
                }
            }
        }
        let opened = pairs.len() * 2;
        let form = match self.hv.evtchn_control() {
            Some(_) => "FIFO",
            None => "two-level",
        };
        say(&format!("{life}: {opened} ports, {form}"));
        let (left, all) = (Rc::new(Cell::new(pairs.len())), Signal::new());
        let before = self.ports.stats().received;
        for pair in pairs {
            let (left, all) = (Rc::clone(&left), all.clone());
            let task = async move {
                ping(&pair).await;
                left.set(left.get() - 1);
                all.raise();
            };
            self.handle.spawn(task).detach();
        }
        let mut seen = 0;
        while left.get() > 0 {
            seen = all.after(seen).await;
        }
        let received = self.ports.stats().received - before;
        say(&format!(
            "{life}: signalled {opened} ports, {received} events, {} open",
            self.ports.len()
        ));
    }

    fn pair(&self) -> Result<Pair, fata_events::xen::Error> {
        let near = self.ports.alloc(DomId::SELF)?;
        let far = self.ports.bind(DomId::SELF, near.port())?;
        Ok([near, far])
    }
}

/// Signals to and fro, and waits for each signal.
async fn ping(pair: &Pair) {
    for _ in 0..ROUNDS {
        for (from, to) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            let seen = to.count();
            from.notify();
            to.after(seen).await;
        }
    }
}

fn say(line: &str) {
    console::write(line.as_bytes());
    console::write(b"\n");
}
