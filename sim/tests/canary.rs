//! No byte that a backend could read, and none that leaves on the wire, ever comes from memory that was not meant for it.
//!
//! All such memory is poisoned: what is fresh and what was freed, on the heap and in pages; and the program keeps a secret
//! of the same bytes. After each step every page that the domain has granted is searched, whole, and on the bridge every
//! frame.

#![allow(unreachable_pub, dead_code, reason = "the module is shared by test files")]

mod scenario;

use std::cell::Cell;
use std::rc::Rc;

use fata::{Env, NetworkError};
use fata_sim::netback::{Behaviour, Malice, Trick};
use fata_sim::{DomainConfig, POISON, PoisonHeap, Sim, VifConfig, find_poison};
use scenario::{SECOND, Transfer, World, echo};

#[global_allocator]
static HEAP: PoisonHeap = PoisonHeap;

/// The echo program, with a secret beside its work.
async fn keep_a_secret(env: Env) -> Result<(), NetworkError> {
    let secret = vec![POISON; 1 << 16];
    let result = echo(env).await;
    assert!(secret.iter().all(|&byte| byte == POISON));
    result
}

fn config(zeroed_pages: bool) -> DomainConfig {
    DomainConfig {
        zeroed_pages,
        ..DomainConfig::new("guest")
    }
}

/// Counts the guest's frames with poison in them, but for those to UDP port `except`.
fn search_frames(sim: &Sim, except: u16) -> Rc<Cell<u64>> {
    let found = Rc::new(Cell::new(0));
    sim.bridge("xenbr0").set_filter({
        let found = Rc::clone(&found);
        move |packet| {
            let bytes = &packet.bytes;
            let is_guests = bytes.get(6..9) == Some(&[0x00, 0x16, 0x3e]);
            let is_udp = bytes.get(23) == Some(&17);
            let is_excepted = is_udp && bytes.get(36..38) == Some(&except.to_be_bytes());
            if is_guests && !is_excepted && find_poison(bytes).is_some() {
                found.set(found.get() + 1);
            }
            1
        }
    });
    found
}

#[test]
fn memory_that_is_not_meant_for_the_backend_stays_with_us() {
    fata_sim::check(0..60, |sim| {
        let backend = Behaviour {
            scatter_gather: sim.random(2) == 0,
            ..Behaviour::default()
        };
        let world = World::new(
            sim,
            config(true),
            VifConfig {
                backend,
                ..VifConfig::default()
            },
        );
        world.domain.watch_for_poison();
        let found = search_frames(sim, 0);
        world.boot(keep_a_secret);
        Transfer::start(&world, sim.random(30_000) as usize).finish(300 * SECOND);
        // Once more with pages that have been used, and then with a backend that will break every rule.
        world.vif.restart();
        Transfer::start(&world, sim.random(30_000) as usize).finish(300 * SECOND);
        world.vif.set_malice(Malice {
            one_in: 10,
            tricks: &Trick::ALL,
        });
        let last = Transfer::start(&world, 30_000);
        world.run_turns(5000);
        world.vif.set_malice(Malice::NONE);
        world.vif.restart();
        sim.run_for(20 * SECOND);
        drop(last);
        world.power_off();
        assert_eq!(found.get(), 0, "frames with memory that was not meant for them");
    });
}

/// CVE-2003-0001: padding and unused fields of one frame are not what is left of another in the same buffer.
#[test]
fn frames_do_not_carry_what_is_left_of_others() {
    fata_sim::check(0..40, |sim| {
        const UDP: u16 = 9;
        let world = World::new(sim, config(true), VifConfig::default());
        let found = search_frames(sim, UDP);
        let inbox = world.host.udp(UDP);
        world.boot(|env| async move {
            let stack = env.net().await?;
            let to = (scenario::HOST, UDP).into();
            env.spawn({
                let (env, socket) = (env.clone(), stack.udp(1000)?);
                async move {
                    while socket.send_to(&[POISON; 1400], to).await.is_ok() {
                        env.sleep(SECOND / 100).await;
                    }
                }
            })
            .detach();
            echo(env).await
        });
        for _ in 0..3 {
            sim.run_for(SECOND);
            Transfer::start(&world, sim.random(10_000) as usize).finish(300 * SECOND);
            let pings = [0, 1, 17, 500].map(|len| world.host.ping(scenario::ADDRESS.into(), len));
            sim.run_until(|| pings.iter().all(|ping| ping.is_answered()), 10 * SECOND);
        }
        assert!(inbox.waiting() > 100, "every buffer has been full of it");
        world.power_off();
        assert_eq!(found.get(), 0, "frames with what was in others");
    });
}

/// The search finds what it is for: pages that the hypervisor's allocator does not clear.
#[test]
fn pages_that_are_not_cleared_are_found() {
    let sim = Sim::new(1);
    sim.expect_violations();
    let world = World::new(&sim, config(false), VifConfig::default());
    world.domain.watch_for_poison();
    world.boot(echo);
    sim.run_for(SECOND);
    let broken = sim.take_violations();
    assert!(
        broken.iter().any(|rule| rule.contains("not meant for anybody")),
        "{broken:?}"
    );
}

/// The same for frames, and for what a program sends: its secret.
#[test]
fn a_secret_that_is_sent_is_found() {
    let sim = Sim::new(1);
    sim.expect_violations();
    let world = World::new(&sim, config(true), VifConfig::default());
    world.domain.watch_for_poison();
    let found = search_frames(&sim, 0);
    world.boot(|env| async move {
        let socket = env.net().await?.udp(1000)?;
        socket.send_to(&[POISON; 100], (scenario::HOST, 9).into()).await?;
        env.sleep(SECOND).await;
        Ok::<_, NetworkError>(())
    });
    sim.run_for(20 * SECOND);
    assert_eq!(found.get(), 1);
    assert!(!sim.take_violations().is_empty(), "it was in a transmit buffer, too");
}
