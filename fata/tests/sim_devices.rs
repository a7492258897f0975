//! Programs whose interfaces come and go.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fata::stats::{Memory, Stats};
use fata::xen::{Facts, start};
use fata::{Env, NetworkError};
use fata_sim::wire::{Connection, Host, HostConfig};
use fata_sim::{Consoled, Domain, Netback, ShutdownRequest, Sim, VifConfig};

const SECOND: Duration = Duration::from_secs(1);

fn boot<F: Future<Output = Result<(), NetworkError>> + 'static>(
    sim: &Sim,
    domain: &Domain,
    main: impl FnOnce(Env) -> F + 'static,
) -> Consoled {
    let console = Consoled::start(sim, domain).unwrap();
    let facts = Facts {
        command_line: "ipv4=10.0.0.2/24 net1.ipv4=10.0.1.2/24 ipv6=none net1.ipv6=none".into(),
        entropy: vec![1; 32],
        ram: Rc::new(|| Memory {
            total: 8 << 20,
            used: 1 << 20,
            ballooned: 0,
        }),
    };
    let mut guest = start(domain.clone(), facts, main);
    sim.add_guest(domain, move || {
        guest.turn();
    });
    console
}

/// Sends back what it gets, for ever, and shows its figures.
async fn echo(env: Env, name: &str, figures: Rc<RefCell<Stats>>) -> Result<(), NetworkError> {
    let listener = env.interface(name).await?.listen(7)?;
    loop {
        *figures.borrow_mut() = env.stats();
        let Ok(Ok(stream)) = env.timeout(SECOND / 10, listener.accept()).await else {
            continue;
        };
        env.spawn(async move {
            let mut buffer = [0; 512];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..length]).await.is_err() {
                    break;
                }
            }
        })
        .detach();
    }
}

/// What has to be the same at the end.
fn holdings(stats: &Stats) -> [usize; 5] {
    let grants = stats.grants;
    [
        grants.active,
        grants.quarantined,
        stats.ports,
        stats.watches,
        stats.tasks,
    ]
}

fn host(sim: &Sim) -> Host {
    Host::start(sim, &sim.bridge("xenbr0"), HostConfig::default())
}

/// A byte there and back, over a new connection if need be.
#[track_caller]
fn answers(sim: &Sim, host: &Host) {
    for _ in 0..20 {
        let client = host.connect(([10, 0, 0, 2], 7).into());
        client.send(b"x");
        let answered = sim.try_run_until(|| client.received() > 0 || client.is_over(), 3 * SECOND);
        if answered && client.take() == b"x" {
            client.close();
            sim.try_run_until(|| client.is_over(), SECOND);
            return;
        }
        client.close();
    }
    panic!("no answer");
}

fn end(sim: &Sim, domain: &Domain) {
    sim.request_shutdown(domain, ShutdownRequest::PowerOff);
    sim.run_until(|| domain.shutdown_reason().is_some(), 30 * SECOND);
    sim.run_for(SECOND);
    sim.remove_guest(domain);
    sim.run_for(SECOND);
    sim.assert_no_leaks(domain);
}

/// The same number is the same interface: a connection outlives a cable that is pulled and put back, and even a new card.
#[test]
fn a_connection_outlives_its_interface() {
    fata_sim::check(0..10, |sim| {
        let domain = sim.domain("guest");
        let vif = sim.add_vif(&domain, VifConfig::default());
        let _console = boot(
            sim,
            &domain,
            |env| async move { echo(env, "net0", Rc::default()).await },
        );
        let host = host(sim);
        sim.run_for(3 * SECOND);
        let client = host.connect(([10, 0, 0, 2], 7).into());
        client.send(b"before");
        sim.run_until(|| client.received() == 6, 5 * SECOND);
        assert!(sim.remove_vif(&vif, 5 * SECOND), "it takes leave");
        client.send(b"between");
        sim.run_for(SECOND);
        let _vif = sim.add_vif(
            &domain,
            VifConfig {
                mac: Some([0, 0x16, 0x3e, 1, 2, 3]),
                mtu: 1400,
                ..VifConfig::default()
            },
        );
        sim.run_until(|| client.received() == 13, 30 * SECOND);
        assert_eq!(client.take(), b"beforebetween");
        client.close();
        sim.run_until(|| client.is_over(), 10 * SECOND);
        end(sim, &domain);
    });
}

/// A program that was started without an interface gets one; others learn of all that happens.
#[test]
fn interfaces_come_and_go_and_the_program_is_told() {
    let sim = Sim::new(1);
    let domain = sim.domain("guest");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    let _console = boot(&sim, &domain, |env| async move {
        let changes = env.interface_changes();
        let mut count = changes.count();
        loop {
            let stats = env.stats().interfaces;
            let state: Vec<_> = stats.into_iter().map(|one| (one.name, one.link_up)).collect();
            if log.borrow().last() != Some(&state) {
                log.borrow_mut().push(state);
            }
            count = changes.after(count).await;
        }
    });
    sim.run_for(SECOND);
    let vif0 = sim.add_vif(&domain, VifConfig::default());
    sim.run_for(2 * SECOND);
    let vif1 = sim.add_vif(&domain, VifConfig::default());
    sim.run_for(2 * SECOND);
    assert!(sim.remove_vif(&vif0, 5 * SECOND));
    sim.run_for(SECOND);
    sim.forget_vif(&vif1);
    sim.run_for(10 * SECOND);
    let net = |number: usize, up: bool| (format!("net{number}"), up);
    assert_eq!(
        seen.take(),
        [
            vec![],
            vec![net(0, false)],
            vec![net(0, true)],
            vec![net(0, true), net(1, false)],
            vec![net(0, true), net(1, true)],
            vec![net(0, false), net(1, true)],
            vec![net(1, true)],
            vec![],
        ]
    );
    end(&sim, &domain);
}

#[test]
fn an_interface_that_comes_in_time_is_opened() {
    let sim = Sim::new(1);
    for name in ["net0", "00:16:3e:01:02:03"] {
        let domain = sim.domain("guest");
        let opened = Rc::new(Cell::new(None));
        let done = Rc::clone(&opened);
        let _console = boot(&sim, &domain, move |env| async move {
            let stack = env.interface(name).await;
            done.set(Some((stack.is_ok(), env.now().since_zero())));
            core::future::pending().await
        });
        sim.run_for(5 * SECOND);
        assert_eq!(opened.get(), None);
        let mac = Some([0, 0x16, 0x3e, 1, 2, 3]);
        let _vif = sim.add_vif(
            &domain,
            VifConfig {
                mac,
                ..VifConfig::default()
            },
        );
        sim.run_for(SECOND);
        let (ok, when) = opened.get().unwrap();
        assert!(ok && when < 6 * SECOND, "{name}: {when:?}");
        end(&sim, &domain);
    }
}

/// What is held after a hundred interfaces is what was held with the first one.
#[test]
fn a_hundred_interfaces_leave_nothing_behind() {
    for orderly in [true, false] {
        let sim = Sim::new(u64::from(orderly));
        let domain = sim.domain("guest");
        let figures = Rc::new(RefCell::new(Stats::default()));
        let add = || sim.add_vif(&domain, VifConfig::default());
        let mut vif: Netback = add();
        let _console = boot(&sim, &domain, {
            let figures = Rc::clone(&figures);
            |env| async move { echo(env, "net0", figures).await }
        });
        let host = host(&sim);
        sim.run_for(3 * SECOND);
        answers(&sim, &host);
        sim.run_for(10 * SECOND);
        let before = holdings(&figures.borrow());
        for cycle in 0..100 {
            // In the middle of a transfer.
            let load: Connection = host.connect(([10, 0, 0, 2], 7).into());
            load.send(&[1; 20_000]);
            sim.run_for(Duration::from_micros(sim.random(20_000)));
            if orderly {
                assert!(sim.remove_vif(&vif, 10 * SECOND), "cycle {cycle}");
            } else {
                sim.forget_vif(&vif);
            }
            sim.run_for(Duration::from_micros(sim.random(1_000_000)));
            vif = add();
            sim.run_for(SECOND / 2);
            load.close();
            let _ = load.take();
        }
        answers(&sim, &host);
        // The connections of the load give up, or end.
        sim.run_for(600 * SECOND);
        answers(&sim, &host);
        sim.run_for(10 * SECOND);
        assert_eq!(
            before,
            holdings(&figures.borrow()),
            "grants, quarantine, ports, watches, tasks"
        );
        end(&sim, &domain);
    }
}
