//! The drivers that run on Xen, on this: store client, console, grants, from connect to disconnect without a leak.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use fata_console::Console;
use fata_events::Handle;
use fata_events::xen::{Ports, XenLoop};
use fata_grant::{ReadWrite, Table};
use fata_hypercall::{DomId, Hypervisor, ShutdownReason};
use fata_sim::{Access, Consoled, Domain, Sim};
use fata_xenstore::Store;

const SECOND: Duration = Duration::from_secs(1);

/// Gives `domain` a program: one future under a loop. The cell says when it has ended.
fn boot<F: Future<Output = ()> + 'static>(
    sim: &Sim,
    domain: &Domain,
    program: impl FnOnce(Domain, Ports<Domain>, Handle) -> F,
) -> Rc<Cell<bool>> {
    let mut xen_loop = XenLoop::new(domain.clone());
    let program = program(domain.clone(), xen_loop.ports().clone(), xen_loop.handle());
    let ended = Rc::new(Cell::new(false));
    let end = Rc::clone(&ended);
    let task = xen_loop.handle().spawn(async move {
        program.await;
        end.set(true);
    });
    task.detach();
    sim.add_guest(domain, move || {
        xen_loop.turn();
    });
    ended
}

#[test]
fn the_loop_sleeps_and_keeps_virtual_time() {
    fata_sim::check(0..20, |sim| {
        let domain = sim.domain("guest");
        let start = sim.now().0;
        let ended = boot(sim, &domain, |_, _, handle| async move {
            handle.sleep(3 * SECOND).await;
        });
        sim.run_until(|| ended.get(), 10 * SECOND);
        let slept = sim.now().0 - start;
        assert!((3_000_000_000..3_001_000_000).contains(&slept), "{slept}");
        domain.set_spurious_wakes(0);
        sim.run_for(SECOND);
        let turns = domain.activity().turns;
        sim.run_for(10 * SECOND);
        assert_eq!(domain.activity().turns, turns, "an idle domain uses no time");
    });
}

#[test]
fn the_store_client_reads_writes_watches_and_transacts() {
    fata_sim::check(0..40, |sim| {
        let domain = sim.domain("guest");
        let said = Rc::new(RefCell::new(Vec::new()));
        sim.store().refuse_commits(2);
        let ended = boot(sim, &domain, |domain, ports, handle| {
            let said = Rc::clone(&said);
            async move {
                let store = Store::new(domain, &ports, handle.clone()).unwrap();
                let service = handle.spawn(store.run());
                assert_eq!(store.read_string("name").await.unwrap(), "guest");
                store.write("data/a", "1").await.unwrap();
                let mut watch = store.watch("control/shutdown").unwrap();
                watch.changed().await.unwrap();
                loop {
                    let request = store.read_string("control/shutdown").await.unwrap();
                    if !request.is_empty() {
                        said.borrow_mut().push(request);
                        break;
                    }
                    said.borrow_mut().push("waiting".to_owned());
                    watch.changed().await.unwrap();
                }
                store
                    .transaction(async |transaction| {
                        let value: u32 = transaction.read_number("data/a", 0..=100).await?;
                        transaction.write("data/a", &(value + 1).to_string()).await
                    })
                    .await
                    .unwrap();
                for index in 0..200 {
                    store
                        .mkdir(&format!("data/long/a-name-that-is-thirty-letters-{index}"))
                        .await
                        .unwrap();
                }
                assert_eq!(store.list("data/long").await.unwrap().len(), 200, "by parts");
                drop(watch);
                // The unwatch is on its way; one more answer proves that it has arrived.
                store.read("name").await.unwrap();
                drop(service);
            }
        });
        sim.run_until(|| said.borrow().len() == 1, SECOND);
        sim.request_shutdown(&domain, fata_sim::ShutdownRequest::PowerOff);
        sim.run_until(|| ended.get(), 20 * SECOND);
        assert_eq!(*said.borrow(), ["waiting", "poweroff"]);
        assert_eq!(sim.store().read_text("/local/domain/1/data/a").as_deref(), Some("2"));
        sim.assert_no_leaks(&domain);
    });
}

#[test]
fn the_console_writes_more_than_its_ring_and_reads_lines() {
    fata_sim::check(0..20, |sim| {
        let domain = sim.domain("guest");
        let console = Consoled::start(sim, &domain).unwrap();
        let long: String = (0..100)
            .map(|line| format!("line {line} of a text longer than the ring\n"))
            .collect();
        let ended = boot(sim, &domain, |domain, ports, handle| {
            let long = long.clone();
            async move {
                let console = Console::new(domain, &ports);
                handle.spawn(console.clone().run()).detach();
                console.write(long.as_bytes());
                let line = console.read_line().await.unwrap();
                console.write(format!("you said {line:?}\n").as_bytes());
            }
        });
        sim.run_for(SECOND);
        assert_eq!(console.text(), long.replace('\n', "\r\n"));
        console.type_in(b"hello\n");
        sim.run_until(|| ended.get(), SECOND);
        sim.run_for(SECOND);
        assert!(
            console.text().ends_with("you said \"hello\"\r\n"),
            "{:?}",
            console.text()
        );
    });
}

#[test]
fn a_stopped_console_daemon_does_not_stop_the_guest() {
    let sim = Sim::new(1);
    let domain = sim.domain("guest");
    let console = Consoled::start(&sim, &domain).unwrap();
    console.set_stopped(true);
    let ended = boot(&sim, &domain, |domain, ports, handle| async move {
        let console = Console::new(domain, &ports);
        handle.spawn(console.clone().run()).detach();
        for _ in 0..10_000 {
            console.write(b"nobody reads this\n");
        }
    });
    sim.run_until(|| ended.get(), SECOND);
    assert_eq!(console.output(), b"");
    console.set_stopped(false);
    sim.run_for(SECOND);
    assert!(console.text().contains("nobody reads this"));
}

#[test]
fn a_shared_page_is_busy_while_mapped_and_comes_back_after() {
    let sim = Sim::new(1);
    let domain = sim.domain("guest");
    let table = Table::new(domain.clone());
    let shared = table.share_zeroed(1, DomId::DOM0, ReadWrite).unwrap();
    let reference = shared.references()[0];
    let mapping = sim.dom0().map_grant(domain.id(), reference, Access::Write).unwrap();
    mapping.page().write(0, b"from dom0");
    let mut bytes = [0; 9];
    shared.page(0).read(0, &mut bytes);
    assert_eq!(&bytes, b"from dom0");
    assert!(shared.revoke().is_err(), "busy");
    assert_eq!(sim.leaks(&domain).pages, 1, "in quarantine");
    drop(mapping);
    table.retry_quarantine();
    sim.assert_no_leaks(&domain);
}

#[test]
fn never_is_not_at_once() {
    fata_sim::check(0..8, |sim| {
        let domain = sim.domain("guest");
        boot(
            sim,
            &domain,
            |_, _, handle| async move { handle.sleep(Duration::MAX).await },
        );
        domain.set_spurious_wakes(0);
        sim.run_for(SECOND);
        let turns = domain.activity().turns;
        sim.run_for(10 * SECOND);
        assert_eq!(
            domain.activity().turns,
            turns,
            "Xen's time is signed, and the largest number long past"
        );
    });
}

#[test]
fn more_transactions_than_xenstored_allows_wait_their_turn() {
    fata_sim::check(0..8, |sim| {
        let domain = sim.domain("guest");
        let done = Rc::new(Cell::new(0));
        let count = Rc::clone(&done);
        boot(sim, &domain, |domain, ports, handle| async move {
            let store = Store::new(domain, &ports, handle.clone()).unwrap();
            let client = fata_xenstore::Client::clone(&store);
            handle.spawn(store.run()).detach();
            for n in 0..30 {
                let (client, count) = (client.clone(), Rc::clone(&count));
                let one = async move {
                    let path = format!("data/{n}");
                    client
                        .transaction(async |nodes| nodes.write(&path, "1").await)
                        .await
                        .unwrap();
                    count.set(count.get() + 1);
                };
                handle.spawn(one).detach();
            }
        });
        sim.run_until(|| done.get() == 30, 60 * SECOND);
    });
}

#[test]
fn time_goes_on_after_a_domain_has_shut_down() {
    let sim = Sim::new(3);
    let domain = sim.domain("guest");
    let ended = boot(&sim, &domain, |domain, _, handle| async move {
        let sleeper = handle.clone();
        handle.spawn(async move { sleeper.sleep(5 * SECOND).await }).detach();
        domain.shutdown(ShutdownReason::PowerOff);
    });
    sim.run_until(|| ended.get(), SECOND);
    let before = sim.now().0;
    sim.run_for(20 * SECOND);
    assert!(sim.now().0 - before >= 20_000_000_000);
}
