//! Connect, DHCP, transfer with checksum, power-off; under everything that can go wrong, once for each seed.
//!
//! More seeds: `FATA_SEEDS=100000 cargo fata test sim --only full_scenario`. A seed that fails prints the line that replays
//! it.

#![allow(unreachable_pub, dead_code, reason = "the module is shared by test files")]

mod scenario;

use std::time::Duration;

use fata_hypercall::{Errno, Suspended};
use fata_sim::netback::{Behaviour, Checksums, Fill, Malice, Trick};
use fata_sim::wire::Impairment;
use fata_sim::{Call, EventFaults, Sim, StoreFaults, VifConfig};
use scenario::{SECOND, Transfer, World, echo};

/// What strikes while the guest works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing but a bad bridge.
    Weather,
    /// The driver domain dies, and comes back or comes back at once.
    Crash,
    /// The backend hangs for a while.
    Silence,
    /// Events without a cause.
    Storm,
    /// xenstored refuses commits, repeats watch events, pauses.
    Store,
    /// The domain is saved and restored, or only copied.
    Suspend,
    /// The administrator takes memory and gives it, and Xen does not always have it.
    Balloon,
    /// The backend breaks every rule.
    Malice,
    /// The toolstack takes the device away.
    Unplug,
    /// There is no memory, no port, no room in the grant table.
    Shortage,
}

impl Trouble {
    const ALL: [Self; 10] = [
        Self::Weather,
        Self::Crash,
        Self::Silence,
        Self::Storm,
        Self::Store,
        Self::Suspend,
        Self::Balloon,
        Self::Malice,
        Self::Unplug,
        Self::Shortage,
    ];

    /// The guest has to work in spite of it.
    fn is_bearable(self) -> bool {
        !matches!(self, Self::Malice | Self::Unplug | Self::Shortage)
    }

    /// It begins before the guest does.
    fn prepare(self, world: &World<'_>) {
        let (sim, domain) = (world.sim, &world.domain);
        match self {
            Self::Store => sim.store().set_faults(StoreFaults {
                refuse_commit_one_in: 3,
                repeat_watch_one_in: 5,
            }),
            Self::Shortage => {
                let (call, errno) = [
                    (Call::AllocPages, Errno::ENOMEM),
                    (Call::EvtchnAlloc, Errno::ENOSPC),
                    (Call::GrantFrame, Errno::ENOMEM),
                ][sim.random(3) as usize];
                domain.faults().fail_one_in(call, 1 + sim.random(4), errno);
            }
            _ => {}
        }
    }

    /// It strikes once.
    fn strike(self, world: &World<'_>) {
        let (sim, vif) = (world.sim, &world.vif);
        match self {
            Self::Crash => match sim.random(3) {
                0 => vif.crash(),
                1 => vif.restart(),
                _ => {
                    vif.crash();
                    world.run_turns(sim.random(30));
                    vif.restart();
                }
            },
            Self::Silence => vif.set_silent(sim.random(2) == 0),
            Self::Storm => sim.spurious_events(&world.domain, 1 + sim.random(50) as u32),
            Self::Store => sim.store().set_stopped(sim.random(2) == 0),
            Self::Suspend => {
                let outcome = [Suspended::Cancelled, Suspended::Restored][sim.random(2) as usize];
                sim.suspend(&world.domain, outcome);
            }
            Self::Balloon => {
                sim.set_memory_target(&world.domain, sim.random(20 << 10));
                let call = [Call::ReleasePages, Call::PopulatePages][sim.random(2) as usize];
                world
                    .domain
                    .faults()
                    .fail_one_in(call, 1 + sim.random(4), Errno::ENOMEM);
            }
            Self::Malice => {
                // One kind of trick each time, or all of them.
                let first = sim.random(Trick::ALL.len() as u64) as usize;
                let tricks = [&Trick::ALL[..], &Trick::ALL[first..=first]][sim.random(2) as usize];
                vif.set_malice(Malice {
                    one_in: 1 + sim.random(8),
                    tricks,
                });
            }
            Self::Unplug => {
                if sim.random(2) == 0 {
                    sim.forget_vif(vif);
                } else {
                    sim.remove_vif(vif, 10 * SECOND);
                }
            }
            Self::Weather | Self::Shortage => {}
        }
    }

    /// It is over.
    fn end(self, world: &World<'_>) {
        let (sim, vif) = (world.sim, &world.vif);
        match self {
            Self::Crash if !vif.is_alive() => vif.restart(),
            Self::Silence => vif.set_silent(false),
            Self::Store => {
                sim.store().set_stopped(false);
                sim.store().set_faults(StoreFaults::default());
            }
            Self::Malice => {
                vif.set_malice(Malice::NONE);
                if sim.random(2) == 0 {
                    vif.crash();
                } else {
                    vif.restart();
                }
                // Leaving a backend that does not answer takes a while, and so do pages that were kept.
                sim.run_for(20 * SECOND);
            }
            Self::Shortage => world.domain.faults().clear(),
            Self::Balloon => {
                world.domain.faults().clear();
                sim.set_memory_target(&world.domain, 16 << 10);
                sim.run_until(|| world.domain.pages_ballooned() == 0, 60 * SECOND);
            }
            Self::Suspend => sim.run_until(|| !sim.is_suspending(&world.domain), 60 * SECOND),
            _ => {}
        }
    }
}

fn any_backend(sim: &Sim) -> Behaviour {
    let pick = |choices: [usize; 4]| choices[sim.random(4) as usize];
    let checksums = [
        Checksums::AsTheyAre,
        Checksums::Blank,
        Checksums::Validated,
        Checksums::Mixed,
    ];
    Behaviour {
        scatter_gather: sim.random(4) != 0,
        ipv6_csum_offload: sim.random(2) == 0,
        split_event_channels: sim.random(2) == 0,
        fill: Fill {
            chunk: pick([4096, 4096, 600, 100]),
            headroom: pick([0, 0, 2, 256]),
        },
        checksums: checksums[sim.random(4) as usize],
        ..Behaviour::default()
    }
}

fn any_weather(sim: &Sim) -> Impairment {
    let one_in = |n| if sim.random(2) == 0 { 0 } else { n + sim.random(100) };
    Impairment {
        loss: one_in(30),
        duplicate: one_in(20),
        reorder: one_in(10),
        corrupt: one_in(30),
    }
}

fn any_event_faults(sim: &Sim) -> EventFaults {
    let one_in = |n| if sim.random(2) == 0 { 0 } else { 1 + sim.random(n) };
    EventFaults {
        late_one_in: one_in(8),
        late_by: Duration::from_micros(1 + sim.random(2000)),
        again_one_in: one_in(8),
    }
}

/// Says under what a run failed.
struct Plan(Trouble, Behaviour, Impairment, EventFaults);

impl Drop for Plan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(trouble, backend, weather, events) = self;
            eprintln!("{trouble:?}, {weather:?}, {events:?}, {backend:?}");
        }
    }
}

fn run(sim: &Sim) {
    let trouble = Trouble::ALL[sim.random(Trouble::ALL.len() as u64) as usize];
    let plan = Plan(trouble, any_backend(sim), any_weather(sim), any_event_faults(sim));
    let world = World::new(
        sim,
        "guest",
        VifConfig {
            backend: plan.1,
            ..VifConfig::default()
        },
    );
    sim.bridge("xenbr0").impair(plan.2);
    world.domain.set_event_faults(plan.3);
    trouble.prepare(&world);
    world.boot(echo);

    let mut transfer = Transfer::start(&world, sim.random(64 << 10) as usize);
    for _ in 0..1 + sim.random(4) {
        world.run_turns(sim.random(1500));
        transfer.tampered.set(trouble == Trouble::Malice);
        trouble.strike(&world);
        let _ = transfer.is_done();
        transfer.go_on();
    }
    world.run_turns(sim.random(1000));
    trouble.end(&world);
    if trouble.is_bearable() {
        transfer.finish(300 * SECOND);
    }
    world.power_off();
}

#[test]
fn full_scenario() {
    fata_sim::check(0..10_000, run);
}
