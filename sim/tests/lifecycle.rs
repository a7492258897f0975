//! A guest that is saved, restored and copied, again and again, in whatever state it is, while all else goes wrong as well.
//!
//! More seeds: `FATA_SEEDS=100000 cargo fata test sim --only lifecycle`. A seed that fails prints the line that replays it.

#![allow(unreachable_pub, dead_code, reason = "the module is shared by test files")]

mod scenario;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use fata_hypercall::{Errno, Suspended};
use fata_sim::netback::{Behaviour, Malice, Trick};
use fata_sim::wire::Impairment;
use fata_sim::{Call, EventFaults, Sim, StoreFaults, VifConfig};
use scenario::{SECOND, Transfer, World, echo};

/// What happens to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// `xl save` and `xl restore`, or `xl migrate`.
    Restore,
    /// `xl save -c`.
    Copy,
    /// The backend's domain dies, or its driver is loaded anew.
    Crash,
    Restart,
    /// The backend hangs, or goes on.
    Silence(bool),
    /// xenstored hangs, or goes on.
    StoreStopped(bool),
    /// xenstored refuses commits and repeats itself.
    StoreFaults,
    /// Events without a cause.
    Storm,
    /// The backend breaks a rule.
    Malice,
    /// Xen has no pages, no ports or no room in the grant table.
    Shortage,
}

impl Event {
    const ALL: [Self; 12] = [
        Self::Restore,
        Self::Copy,
        Self::Crash,
        Self::Restart,
        Self::Silence(true),
        Self::Silence(false),
        Self::StoreStopped(true),
        Self::StoreStopped(false),
        Self::StoreFaults,
        Self::Storm,
        Self::Malice,
        Self::Shortage,
    ];

    /// Every second time the domain is suspended; else anything may happen.
    fn any(sim: &Sim) -> Self {
        match sim.random(4) {
            0 => Self::Copy,
            1 => Self::Restore,
            _ => Self::ALL[sim.random(Self::ALL.len() as u64) as usize],
        }
    }

    fn happen(self, world: &World<'_>) {
        let (sim, vif, domain) = (world.sim, &world.vif, &world.domain);
        match self {
            Self::Restore => sim.suspend(domain, Suspended::Restored),
            Self::Copy => sim.suspend(domain, Suspended::Cancelled),
            Self::Crash => vif.crash(),
            Self::Restart => vif.restart(),
            Self::Silence(on) => vif.set_silent(on),
            Self::StoreStopped(on) => sim.store().set_stopped(on),
            Self::StoreFaults => sim.store().set_faults(StoreFaults {
                refuse_commit_one_in: 2 + sim.random(4),
                repeat_watch_one_in: 2 + sim.random(8),
            }),
            Self::Storm => sim.spurious_events(domain, 1 + sim.random(50) as u32),
            Self::Malice => {
                let trick = sim.random(Trick::ALL.len() as u64) as usize;
                vif.set_malice(Malice {
                    one_in: 1 + sim.random(8),
                    tricks: &Trick::ALL[trick..=trick],
                });
            }
            Self::Shortage => {
                let (call, errno) = [
                    (Call::AllocPages, Errno::ENOMEM),
                    (Call::EvtchnAlloc, Errno::ENOSPC),
                    (Call::GrantFrame, Errno::ENOMEM),
                ][sim.random(3) as usize];
                domain.faults().fail_one_in(call, 1 + sim.random(4), errno);
            }
        }
    }
}

/// Says under what a run failed.
struct Story(Vec<Event>);

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}", self.0);
        }
    }
}

/// How often a domain was suspended while the two ends were in these states.
static SUSPENDED_IN: [[AtomicU32; 7]; 7] = [const { [const { AtomicU32::new(0) }; 7] }; 7];

fn note_states(world: &World<'_>) {
    let state = |path: String| {
        let value = world.sim.store().read_text(&format!("{path}/state"));
        value.and_then(|value| value.parse().ok()).unwrap_or(0_usize).min(6)
    };
    let (own, theirs) = (state(world.vif.frontend_path()), state(world.vif.backend_path()));
    SUSPENDED_IN[own][theirs].fetch_add(1, Relaxed);
}

fn run(sim: &Sim) {
    let config = VifConfig {
        backend: Behaviour {
            scatter_gather: sim.random(4) != 0,
            split_event_channels: sim.random(2) == 0,
            ..Behaviour::default()
        },
        ..VifConfig::default()
    };
    let world = World::new(sim, "guest", config);
    if sim.random(2) == 0 {
        sim.bridge("xenbr0").impair(Impairment {
            loss: 50,
            duplicate: 50,
            reorder: 20,
            corrupt: 50,
        });
    }
    world.domain.set_event_faults(EventFaults {
        late_one_in: sim.random(4) * 4,
        late_by: std::time::Duration::from_micros(1 + sim.random(2000)),
        again_one_in: sim.random(4) * 4,
    });
    world.boot(echo);

    let mut story = Story(Vec::new());
    let mut transfer = Transfer::start(&world, sim.random(32 << 10) as usize);
    for _ in 0..1 + sim.random(6) {
        let event = Event::any(sim);
        story.0.push(event);
        if event == Event::Malice {
            transfer.tampered.set(true);
        }
        event.happen(&world);
        if matches!(event, Event::Restore | Event::Copy) {
            note_states(&world);
        }
        let _ = transfer.is_done();
        transfer.go_on();
        world.run_turns(sim.random(800));
        if sim.random(8) == 0 {
            sim.run_for(sim.random(15) as u32 * SECOND);
        }
    }

    // It all ends, and what is left must work.
    world.domain.faults().clear();
    sim.store().set_stopped(false);
    sim.store().set_faults(StoreFaults::default());
    world.vif.set_silent(false);
    let tampered = transfer.tampered.get();
    if tampered {
        world.vif.set_malice(Malice::NONE);
    }
    if tampered || !world.vif.is_alive() {
        world.vif.restart();
    }
    if !sim.try_run_until(|| !sim.is_suspending(&world.domain), 60 * SECOND) {
        // A wish that was taken while xenstored said nothing more for a while.
        sim.give_up_suspend(&world.domain);
        assert!(
            story.0.contains(&Event::StoreStopped(true)),
            "not suspended, and for no reason"
        );
    }
    if tampered {
        // Whoever broke the rules is not believed at once, nor are the bytes that came from him.
        sim.run_for(20 * SECOND);
    } else {
        transfer.finish(300 * SECOND);
    }
    world.power_off();
}

#[test]
fn xsa_465_suspended_in_every_state_rule_72() {
    fata_sim::check(0..10_000, run);
    if std::env::var_os("FATA_SEED").is_some() || std::env::var_os("FATA_SEEDS").is_some() {
        return;
    }
    // Rule 72: in every state, of both ends.
    let count = |own: usize, theirs: usize| SUSPENDED_IN[own][theirs].load(Relaxed);
    for state in [1, 4, 5, 6] {
        let times: u32 = (0..7).map(|theirs| count(state, theirs)).sum();
        assert!(times >= 5, "suspended {times} times in our state {state}");
    }
    for state in [1, 2, 4, 5, 6] {
        let times: u32 = (0..7).map(|own| count(own, state)).sum();
        assert!(times >= 5, "suspended {times} times in the backend's state {state}");
    }
}
