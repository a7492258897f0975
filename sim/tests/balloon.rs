//! Memory that goes and comes while a guest works. Up and down at random is in `full_scenario`.

#![allow(unreachable_pub, dead_code, reason = "the module is shared by test files")]

mod scenario;

use std::cell::RefCell;

use fata_hypercall::{Errno, Hypervisor};
use fata_sim::{Call, Sim, VifConfig};
use log::{LevelFilter, Log, Metadata, Record};
use scenario::{SECOND, Transfer, World, echo};

/// What a domain has, in KiB.
const WHOLE: u64 = 16 << 10;
/// Pages that stay free.
const RESERVE: usize = 512;

fn booted(sim: &Sim) -> World<'_> {
    let world = World::new(sim, "guest", VifConfig::default());
    // Another test may have done it.
    let _ = log::set_logger(&Logged).map(|()| log::set_max_level(LevelFilter::Info));
    logged();
    world.boot(echo);
    Transfer::start(&world, 1000).finish(60 * SECOND);
    world
}

thread_local! {
    /// What the programs of this thread's simulator have logged.
    static LOGGED: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Logged;

impl Log for Logged {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "fata::xen::balloon"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            LOGGED.with_borrow_mut(|logged| *logged += &format!("{}\n", record.args()));
        }
    }

    fn flush(&self) {}
}

/// What the balloon has logged since the last time this was asked.
fn logged() -> String {
    LOGGED.take()
}

#[test]
fn what_a_domain_does_not_have_at_the_start_is_given_back_before_drivers_take_any() {
    fata_sim::check(0..20, |sim| {
        let world = World::new(sim, "guest", VifConfig::default());
        sim.set_memory_target(&world.domain, WHOLE - 2000 * 4);
        world.boot(echo);
        sim.run_until(|| world.domain.pages_used() > 0, 10 * SECOND);
        assert_eq!(world.domain.pages_ballooned(), 2000);
        Transfer::start(&world, 10_000).finish(60 * SECOND);
        world.power_off();
    });
}

#[test]
fn it_follows_the_target() {
    fata_sim::check(0..20, |sim| {
        let world = booted(sim);
        for gone in [1, 1500, 0, 2500, 300, 0] {
            sim.set_memory_target(&world.domain, WHOLE - gone * 4);
            sim.run_until(|| world.domain.pages_ballooned() == gone as usize, SECOND);
        }
        // More than all is all, and what is no number changes nothing.
        for target in ["99999999", "", "12x", "-1"] {
            let path = format!("/local/domain/{}/memory/target", world.domain.id().0);
            sim.store().write(&path, target).unwrap();
            sim.run_for(SECOND);
            assert_eq!(world.domain.pages_ballooned(), 0);
        }
        assert_eq!(logged(), "");
        world.power_off();
    });
}

#[test]
fn a_reserve_stays_and_it_says_so_once() {
    fata_sim::check(0..10, |sim| {
        let world = booted(sim);
        sim.set_memory_target(&world.domain, 1 << 10);
        sim.run_for(200 * SECOND);
        assert_eq!(world.domain.pages_free(), RESERVE);
        let logged = logged();
        assert_eq!(logged.lines().count(), 1, "{logged}");
        assert!(
            logged.contains("KiB were asked back, but only 2048 KiB are free"),
            "{logged}"
        );
        Transfer::start(&world, 10_000).finish(60 * SECOND);
        // The next target is another matter.
        sim.set_memory_target(&world.domain, WHOLE);
        sim.run_until(|| world.domain.pages_ballooned() == 0, SECOND);
        world.power_off();
    });
}

#[test]
fn memory_that_xen_does_not_have_comes_when_it_has() {
    fata_sim::check(0..10, |sim| {
        let world = booted(sim);
        sim.set_memory_target(&world.domain, WHOLE - 8000);
        sim.run_until(|| world.domain.pages_ballooned() == 2000, SECOND);
        world.domain.faults().fail_after(Call::PopulatePages, 3, Errno::ENOMEM);
        sim.set_memory_target(&world.domain, WHOLE);
        let before = world.domain.activity().polls;
        sim.run_for(300 * SECOND);
        assert_eq!(world.domain.pages_ballooned(), 2000 - 3 * 256);
        assert_eq!(logged(), "Xen has no memory for 4928 KiB that we may have\n");
        let polls = world.domain.activity().polls - before;
        assert!(polls < 400, "it slept only {polls} times in 300 s");
        world.domain.faults().clear();
        sim.run_until(|| world.domain.pages_ballooned() == 0, 33 * SECOND);
        world.power_off();
    });
}

#[test]
fn a_program_whose_memory_is_gone_goes_on_when_it_is_back() {
    fata_sim::check(0..20, |sim| {
        let world = booted(sim);
        sim.set_memory_target(&world.domain, 0);
        sim.run_until(|| world.domain.pages_free() == RESERVE, SECOND);
        // The program takes what stayed, all of it.
        let taken: Vec<_> = std::iter::from_fn(|| world.domain.alloc_pages(1)).collect();
        assert_eq!(taken.len(), RESERVE);
        world.vif.restart();
        sim.run_for(5 * SECOND);
        for page in taken {
            // SAFETY: allocated above, one by one, and never shown to anybody.
            unsafe { world.domain.free_pages(page, 1) };
        }
        Transfer::start(&world, 10_000).finish(120 * SECOND);
        world.power_off();
    });
}
