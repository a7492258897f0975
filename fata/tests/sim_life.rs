//! A program's life in a simulated domain, from the boot arguments to the exit status.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use fata::stats::Memory;
use fata::xen::{Facts, start};
use fata::{Env, ExitCode, Failure, ShutdownRequest, Termination};
use fata_hypercall::ShutdownReason;
use fata_sim::wire::{Connection, Host, HostConfig};
use fata_sim::{Consoled, Domain, Netback, Sim, VifConfig};

const SECOND: Duration = Duration::from_secs(1);

fn memory() -> Memory {
    Memory {
        total: 8 << 20,
        used: 1 << 20,
        ..Memory::default()
    }
}

/// An application that is not started.
async fn never_runs(_: Env) {
    panic!("it must not run");
}

/// A domain, its console, and whether it has a network interface.
struct Guest<'a> {
    sim: &'a Sim,
    domain: Domain,
    console: Consoled,
    vif: Option<Netback>,
}

impl<'a> Guest<'a> {
    fn new(sim: &'a Sim) -> Self {
        let domain = sim.domain("guest");
        let console = Consoled::start(sim, &domain).unwrap();
        Self {
            sim,
            domain,
            console,
            vif: None,
        }
    }

    fn with_vif(mut self) -> Self {
        self.vif = Some(self.sim.add_vif(&self.domain, VifConfig::default()));
        self
    }

    fn boot<F, T>(&self, command_line: &str, main: F)
    where
        F: FnOnce(Env) -> T + 'static,
        T: Future<Output: Termination> + 'static,
    {
        let facts = Facts {
            command_line: command_line.into(),
            entropy: vec![1; 32],
            ram: Rc::new(memory),
        };
        let mut guest = start(self.domain.clone(), facts, main);
        self.sim.add_guest(&self.domain, move || {
            guest.turn();
        });
    }

    /// A connection from a host on the bridge.
    fn client(&self) -> Connection {
        let host = Host::start(self.sim, &self.sim.bridge("xenbr0"), HostConfig::default());
        self.sim.run_for(2 * SECOND);
        host.connect(([10, 0, 0, 2], 7).into())
    }

    /// Waits for the end; gives the reason, and the console's text.
    fn end(&self, limit: Duration) -> (ShutdownReason, String) {
        self.sim.run_until(|| self.domain.shutdown_reason().is_some(), limit);
        self.sim.run_for(SECOND);
        self.sim.remove_guest(&self.domain);
        self.sim.run_for(SECOND);
        self.sim.assert_no_leaks(&self.domain);
        (
            self.domain.shutdown_reason().unwrap(),
            self.console.text().replace('\r', ""),
        )
    }

    fn exit_status(&self) -> Option<Vec<u8>> {
        self.sim
            .store()
            .read(&format!("/local/domain/{}/data/fata/exit-status", self.domain.id().0))
    }
}

#[test]
fn a_program_runs_and_ends_with_status_0() {
    fata_sim::check(0..20, |sim| {
        let guest = Guest::new(sim);
        guest.boot("hostname=me -- a 'b c'", |env| async move {
            assert_eq!(env.args().application(), ["a", "b c"]);
            assert_eq!(env.hostname(), "me");
            assert!(env.machine().starts_with("Xen "));
            let before = env.now();
            env.sleep(3 * SECOND).await;
            assert!(env.now() - before >= 3 * SECOND);
            assert!(env.timeout(SECOND, core::future::pending::<()>()).await.is_err());
            assert_eq!(env.spawn(async { 7 }).await, Ok(7));
            env.console().print("hello\n");
        });
        let (reason, text) = guest.end(30 * SECOND);
        assert_eq!(text, "hello\nfata: exit status 0\n");
        assert_eq!(reason, ShutdownReason::PowerOff);
        assert_eq!(guest.exit_status().as_deref(), Some(&b"0"[..]));
    });
}

#[test]
fn an_error_is_printed_and_gives_its_status() {
    let sim = Sim::new(1);
    let guest = Guest::new(&sim);
    guest.boot("", |_| async { Err::<(), _>(Failure::new(ExitCode(7), "too hot")) });
    assert_eq!(guest.end(30 * SECOND).1, "error: too hot\nfata: exit status 7\n");
    assert_eq!(guest.exit_status().as_deref(), Some(&b"7"[..]));
}

#[test]
fn a_wrong_boot_argument_ends_it_with_status_2() {
    let sim = Sim::new(1);
    let guest = Guest::new(&sim).with_vif();
    guest.boot("ipv4=10.0.0.2", never_runs);
    let (_, text) = guest.end(5 * SECOND);
    assert!(
        text.starts_with("error: boot argument ipv4=10.0.0.2: expected ADDRESS/PREFIX"),
        "{text}"
    );
    assert!(text.ends_with("fata: exit status 2\n"), "{text}");
}

#[test]
fn help_lists_the_arguments() {
    let sim = Sim::new(1);
    let guest = Guest::new(&sim);
    guest.boot("--help", never_runs);
    let (_, text) = guest.end(5 * SECOND);
    assert!(
        text.starts_with("boot arguments:\n  ipv4=") && text.ends_with("fata: exit status 0\n"),
        "{text}"
    );
}

#[test]
fn without_an_interface_the_error_says_what_to_do() {
    let sim = Sim::new(1);
    let guest = Guest::new(&sim);
    guest.boot("", |env| async move { env.net().await.map(drop) });
    let (_, text) = guest.end(15 * SECOND);
    assert_eq!(
        text,
        "error: no network interface net0: the domain's configuration has no vif=[...]; add for example \
         vif=['bridge=xenbr0']\nfata: exit status 1\n"
    );
}

#[test]
fn interfaces_are_named_exactly() {
    let sim = Sim::new(1);
    let guest = Guest::new(&sim).with_vif();
    guest.boot("ipv4=10.0.0.2/24 ipv6=none", |env| async move {
        let stack = env.net().await.unwrap();
        let mac = stack.status().mac.map(|byte| format!("{byte:02x}")).join(":");
        env.interface(&mac).await.unwrap();
        assert_eq!(env.interfaces(), ["net0"]);
        assert!(env.stats().interfaces[0].link_up);
        env.interface("net1").await.map(drop)
    });
    let (_, text) = guest.end(30 * SECOND);
    assert_eq!(
        text,
        "error: no network interface net1; there is net0\nfata: exit status 1\n"
    );
}

#[test]
fn without_a_dhcp_server_the_error_says_so() {
    let sim = Sim::new(1);
    let guest = Guest::new(&sim).with_vif();
    guest.boot("", |env| async move { env.net().await.map(drop) });
    let (_, text) = guest.end(60 * SECOND);
    assert!(
        text.starts_with("error: net0: no DHCP server has answered in 20 s; start one"),
        "{text}"
    );
}

#[test]
fn a_backend_that_does_not_connect_is_named() {
    let sim = Sim::new(1);
    let guest = Guest::new(&sim).with_vif();
    guest.vif.as_ref().unwrap().stop();
    guest.boot("", |env| async move { env.net().await.map(drop) });
    let (_, text) = guest.end(60 * SECOND);
    assert!(
        text.starts_with("error: net0: no answer from the network backend"),
        "{text}"
    );
    assert!(text.ends_with("fata: exit status 1\n"), "{text}");
}

#[test]
fn a_program_that_does_not_ask_is_ended_at_once() {
    fata_sim::check(0..20, |sim| {
        let guest = Guest::new(sim);
        guest.boot("", |_| core::future::pending::<()>());
        sim.run_for(SECOND);
        sim.request_shutdown(&guest.domain, fata_sim::ShutdownRequest::Reboot);
        assert_eq!(guest.end(5 * SECOND).0, ShutdownReason::Reboot);
    });
}

#[test]
fn what_was_written_before_the_end_arrives() {
    fata_sim::check(0..10, |sim| {
        let guest = Guest::new(sim).with_vif();
        guest.boot("ipv4=10.0.0.2/24 ipv6=none", |env| async move {
            let stream = env.net().await?.listen(7)?.accept().await?;
            stream.write_all(b"goodbye").await?;
            Ok::<_, fata::NetworkError>(())
        });
        let client = guest.client();
        sim.run_until(|| client.is_closed_by_peer(), 10 * SECOND);
        assert!(!client.is_over(), "a FIN comes, no RST");
        assert_eq!(client.take(), b"goodbye");
        client.close();
        guest.end(10 * SECOND);
        assert!(client.is_over());
    });
}

#[test]
fn who_is_connected_gets_to_know_of_a_shutdown() {
    fata_sim::check(0..10, |sim| {
        let guest = Guest::new(sim).with_vif();
        guest.boot("ipv4=10.0.0.2/24 ipv6=none", |env| async move {
            let listener = env.net().await?.listen(7)?;
            let held = listener.accept().await?;
            env.spawn(async move {
                core::future::pending::<()>().await;
                drop(held);
            })
            .detach();
            core::future::pending::<Result<(), fata::NetworkError>>().await
        });
        let client = guest.client();
        sim.run_until(|| client.is_connected(), 10 * SECOND);
        sim.run_for(SECOND);
        sim.request_shutdown(&guest.domain, fata_sim::ShutdownRequest::PowerOff);
        sim.run_until(|| client.is_closed_by_peer(), SECOND);
        assert!(!client.is_over() && guest.domain.shutdown_reason().is_none());
        // It does not close its side.
        guest.end(3 * SECOND);
        assert!(client.is_over(), "a RST comes");
    });
}

#[test]
fn a_program_that_asks_is_given_time_and_not_more() {
    let sim = Sim::new(1);
    for stubborn in [false, true] {
        let guest = Guest::new(&sim);
        let heard = Rc::new(RefCell::new(None));
        let hears = Rc::clone(&heard);
        guest.boot("", move |env| async move {
            let request = env.shutdown_requested().await;
            *hears.borrow_mut() = Some(request);
            let rest = if stubborn { 3600 } else { 3 };
            env.sleep(rest * SECOND).await;
            ExitCode(4)
        });
        sim.run_for(SECOND);
        sim.request_shutdown(&guest.domain, fata_sim::ShutdownRequest::PowerOff);
        let (reason, text) = guest.end(15 * SECOND);
        assert_eq!(*heard.borrow(), Some(ShutdownRequest::PowerOff));
        assert_eq!(reason, ShutdownReason::PowerOff);
        let code = if stubborn { 0 } else { 4 };
        assert!(text.ends_with(&format!("fata: exit status {code}\n")), "{text}");
    }
}

#[test]
fn a_typed_line_arrives() {
    let sim = Sim::new(1);
    let guest = Guest::new(&sim);
    guest.boot("", |env| async move {
        let line = env.console().read_line().await.unwrap();
        env.console().print(&format!("<{line}>\n"));
    });
    sim.run_for(SECOND);
    guest.console.type_in(b"good morning\r");
    assert!(guest.end(5 * SECOND).1.contains("<good morning>\n"));
}
