//! Programs in domains that are saved, restored and copied.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fata::stats::Memory;
use fata::xen::{Facts, start};
use fata::{Env, LifecycleEvent};
use fata_hypercall::Suspended;
use fata_sim::wire::{Host, HostConfig};
use fata_sim::{Consoled, Domain, ShutdownRequest, Sim, VifConfig};

const SECOND: Duration = Duration::from_secs(1);

fn boot<F: Future<Output = ()> + 'static>(sim: &Sim, main: impl FnOnce(Env) -> F + 'static) -> (Domain, Consoled) {
    let domain = sim.domain("guest");
    let console = Consoled::start(sim, &domain).unwrap();
    let facts = Facts {
        command_line: "ipv4=10.0.0.2/24 ipv6=none".into(),
        entropy: vec![1; 32],
        ram: Rc::new(|| Memory {
            total: 8 << 20,
            used: 1 << 20,
            ..Memory::default()
        }),
    };
    let mut guest = start(domain.clone(), facts, main);
    sim.add_guest(&domain, move || {
        guest.turn();
    });
    (domain, console)
}

fn end(sim: &Sim, domain: &Domain) {
    sim.request_shutdown(domain, ShutdownRequest::PowerOff);
    sim.run_until(|| domain.shutdown_reason().is_some(), 30 * SECOND);
    sim.run_for(SECOND);
    sim.remove_guest(domain);
    sim.run_for(SECOND);
    sim.assert_no_leaks(domain);
}

/// Notes what a program is told, and when; it keeps each hold for so long.
async fn listen(env: Env, log: Rc<RefCell<Vec<(&'static str, Duration)>>>, hold_for: Duration) {
    let mut lifecycle = env.lifecycle();
    loop {
        let event = lifecycle.next().await;
        let name = match &event {
            LifecycleEvent::Suspending(_) => "suspending",
            LifecycleEvent::Cancelled => "cancelled",
            _ => "resumed",
        };
        log.borrow_mut().push((name, env.now().since_zero()));
        if let LifecycleEvent::Suspending(hold) = event {
            env.sleep(hold_for).await;
            drop(hold);
        }
    }
}

#[test]
fn tasks_are_told_and_may_ask_for_a_moment() {
    fata_sim::check(0..20, |sim| {
        for (hold_for, at_least, at_most) in [(0, 0, 1), (2, 2, 3), (3600, 5, 6)] {
            let log = Rc::default();
            let (domain, _console) = boot(sim, {
                let log = Rc::clone(&log);
                move |env| listen(env, log, Duration::from_secs(hold_for))
            });
            sim.run_for(SECOND);
            let asked = domain.now().0;
            sim.suspend(&domain, Suspended::Cancelled);
            sim.run_until(|| !sim.is_suspending(&domain), 10 * SECOND);
            let waited = Duration::from_nanos(domain.now().0 - asked);
            assert!(
                waited >= Duration::from_secs(at_least) && waited < Duration::from_secs(at_most),
                "{waited:?}"
            );
            sim.run_for(SECOND);
            sim.suspend(&domain, Suspended::Restored);
            sim.run_until(|| sim.restores(&domain) == 1, 10 * SECOND);
            sim.run_for(SECOND);
            let names: Vec<_> = log.borrow().iter().map(|&(name, _)| name).collect();
            match hold_for {
                // It sleeps over what comes of it.
                3600 => assert_eq!(names, ["suspending"]),
                _ => assert_eq!(names, ["suspending", "cancelled", "suspending", "resumed"]),
            }
            end(sim, &domain);
        }
    });
}

/// Timers keep their distance, the clock goes on where it stopped, whatever the new host's says.
#[test]
fn time_goes_on_and_so_does_the_console() {
    fata_sim::check(0..50, |sim| {
        let (domain, console) = boot(sim, |env| async move {
            for tick in 0.. {
                env.sleep(SECOND).await;
                let (up, clock) = (env.now().since_zero().as_secs_f64(), env.wall_clock().as_secs());
                env.console().print(&format!("tick {tick} {up:.2} {clock}\n"));
            }
        });
        sim.run_for(3 * SECOND + SECOND / 2);
        for round in 1..=3 {
            sim.suspend(&domain, Suspended::Restored);
            sim.run_until(|| sim.restores(&domain) == round, 5 * SECOND);
            sim.run_for(2 * SECOND);
        }
        console.type_in(b"x");
        let text = console.text();
        let ticks: Vec<Vec<f64>> = text
            .lines()
            .filter_map(|line| line.strip_prefix("tick "))
            .map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(ticks.len() >= 9, "{text}");
        for pair in ticks.windows(2) {
            let [number, up, clock] = [0, 1, 2].map(|index| pair[1][index] - pair[0][index]);
            assert_eq!(number, 1.0, "a line is missing:\n{text}");
            assert!((0.99..1.1).contains(&up), "a second took {up}:\n{text}");
            assert!(
                (0.0..=2.0).contains(&clock),
                "the wall clock jumped by {clock} s:\n{text}"
            );
        }
        end(sim, &domain);
    });
}

/// A connection that was open before is open afterwards, and nothing that was sent is lost.
#[test]
fn a_connection_survives() {
    fata_sim::check(0..50, |sim| {
        let (domain, _console) = boot(sim, |env| async move {
            let listener = env.net().await.unwrap().listen(7).unwrap();
            let stream = listener.accept().await.unwrap();
            let mut buffer = [0; 512];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..len]).await.unwrap();
            }
            core::future::pending::<()>().await;
        });
        let vif = sim.add_vif(&domain, VifConfig::default());
        let host = Host::start(sim, &sim.bridge("xenbr0"), HostConfig::default());
        sim.run_until(|| vif.is_connected(), 10 * SECOND);
        sim.run_for(SECOND);
        let client = host.connect(([10, 0, 0, 2], 7).into());
        let (mut sent, mut back) = (Vec::new(), Vec::new());
        for round in 0..4_u8 {
            let piece: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8 ^ round).collect();
            client.send(&piece);
            sent.extend(piece);
            sim.run_for(Duration::from_micros(sim.random(4000)));
            sim.suspend(
                &domain,
                [Suspended::Restored, Suspended::Cancelled][sim.random(2) as usize],
            );
            sim.run_until(|| !sim.is_suspending(&domain), 10 * SECOND);
        }
        sim.run_until(
            || {
                back.extend(client.take());
                back.len() >= sent.len()
            },
            120 * SECOND,
        );
        assert!(back == sent, "bytes were lost or changed");
        client.close();
        sim.run_for(SECOND);
        end(sim, &domain);
    });
}
