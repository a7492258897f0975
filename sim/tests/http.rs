//! The example `http`, whole and unchanged, from the first task to the power-off.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fata::stats::Memory;
use fata::xen::{Facts, Guest};
use fata_hypercall::ShutdownReason;
use fata_sim::wire::{Connection, Host, HostConfig};
use fata_sim::{Consoled, Domain, Netback, ShutdownRequest, Sim, VifConfig};

const SECOND: Duration = Duration::from_secs(1);

struct Server {
    domain: Domain,
    netback: Netback,
    console: Consoled,
    ended: Rc<Cell<bool>>,
}

/// What `xl create` does with the image.
fn boot(sim: &Sim, command_line: &str) -> Server {
    let domain = sim.domain("http");
    let netback = sim.add_vif(&domain, VifConfig::default());
    let console = Consoled::start(sim, &domain).unwrap();
    let facts = Facts {
        command_line: command_line.to_owned(),
        entropy: sim.random(u64::MAX).to_le_bytes().to_vec(),
        ram: Rc::new(|| Memory {
            total: 16 << 20,
            used: 1 << 20,
            ..Memory::default()
        }),
    };
    let mut guest: Guest<Domain> = fata::xen::start(domain.clone(), facts, http::serve);
    let ended = Rc::new(Cell::new(false));
    let end = Rc::clone(&ended);
    sim.add_guest(&domain, move || {
        guest.turn();
        end.set(guest.end().is_some());
    });
    Server {
        domain,
        netback,
        console,
        ended,
    }
}

fn get(host: &Host, path: &str) -> Connection {
    host.http_get(SocketAddr::from(([10, 0, 0, 2], 80)), path)
}

#[test]
fn serves_the_site_and_powers_off_without_a_leak() {
    fata_sim::check(0..20, |sim| {
        let server = boot(sim, "ipv4=10.0.0.2/24");
        let host = Host::start(sim, &sim.bridge("xenbr0"), HostConfig::default());
        sim.run_until(|| server.netback.is_connected(), 10 * SECOND);

        let clients: Vec<_> = (0..20)
            .map(|i| get(&host, if i % 2 == 0 { "/" } else { "/stats" }))
            .collect();
        sim.run_until(|| clients.iter().all(Connection::is_closed_by_peer), 60 * SECOND);
        for (index, client) in clients.iter().enumerate() {
            client.close();
            let answer = String::from_utf8(client.take()).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let length = format!("Content-Length: {}", body.len()).to_lowercase();
            assert!(head.to_lowercase().contains(&length), "{head}");
            assert!(body.contains(if index % 2 == 0 { "<html" } else { "uptime" }), "{body}");
        }
        sim.run_until(|| clients.iter().all(Connection::is_over), 60 * SECOND);

        sim.request_shutdown(&server.domain, ShutdownRequest::PowerOff);
        sim.run_until(|| server.ended.get(), 30 * SECOND);
        sim.run_for(SECOND);
        assert_eq!(server.domain.shutdown_reason(), Some(ShutdownReason::PowerOff));
        assert!(server.netback.is_closed(), "{}", sim.describe());
        assert!(
            server.console.text().contains("exit status 0"),
            "{}",
            server.console.text()
        );
        // The program's memory goes with it, and with the memory everything that it held.
        sim.remove_guest(&server.domain);
        sim.assert_no_leaks(&server.domain);
    });
}
