//! The server in a simulated domain: the real drivers below it, a simulated client on the bridge.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fata::stats::Memory;
use fata::xen::{Facts, start};
use fata_hypercall::ShutdownReason;
use fata_sim::wire::{Connection, Host, HostConfig};
use fata_sim::{Consoled, Domain, ShutdownRequest, Sim, VifConfig};

const SECOND: Duration = Duration::from_secs(1);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A host on the bridge, and a domain that serves.
struct Site {
    client: Host,
    domain: Domain,
    console: Consoled,
}

impl Site {
    fn start(sim: &Sim) -> Self {
        Self::with_memory(sim, || Memory {
            total: 8 << 20,
            used: 1 << 20,
            ..Memory::default()
        })
    }

    fn with_memory(sim: &Sim, memory: fn() -> Memory) -> Self {
        let client = Host::start(sim, &sim.bridge("xenbr0"), HostConfig::default());
        let domain = sim.domain("http");
        let console = Consoled::start(sim, &domain).unwrap();
        let _vif = sim.add_vif(&domain, VifConfig::default());
        let facts = Facts {
            command_line: "ipv4=10.0.0.2/24 ipv6=none".into(),
            entropy: vec![9; 32],
            ram: Rc::new(memory),
        };
        let mut guest = start(domain.clone(), facts, http::serve);
        sim.add_guest(&domain, move || {
            guest.turn();
        });
        let site = Self {
            client,
            domain,
            console,
        };
        // It serves when it answers.
        let first = site.connect();
        sim.run_until(|| first.is_connected(), 10 * SECOND);
        first.close();
        sim.run_until(|| first.is_over(), 30 * SECOND);
        site
    }

    fn connect(&self) -> Connection {
        self.client.connect(SocketAddr::from(([10, 0, 0, 2], http::PORT)))
    }

    /// Sends `request` on a new connection, and gives all that comes until the server closes.
    fn ask(&self, sim: &Sim, request: &[u8]) -> String {
        let connection = self.connect();
        connection.send(request);
        sim.run_until(|| connection.is_closed_by_peer(), 60 * SECOND);
        connection.close();
        String::from_utf8(connection.take()).unwrap()
    }

    /// `xl shutdown`, and nothing is left.
    fn end(self, sim: &Sim) {
        sim.request_shutdown(&self.domain, ShutdownRequest::PowerOff);
        sim.run_until(|| self.domain.shutdown_reason().is_some(), 10 * SECOND);
        sim.run_for(SECOND);
        sim.remove_guest(&self.domain);
        sim.run_for(SECOND);
        sim.assert_no_leaks(&self.domain);
        assert_eq!(self.domain.shutdown_reason(), Some(ShutdownReason::PowerOff));
        let text = self.console.text();
        assert!(text.ends_with("fata: exit status 0\r\n"), "{text}");
    }
}

/// The bytes of an answer after its head.
fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

#[test]
fn a_client_is_served_from_connect_to_disconnect() {
    fata_sim::check(0..8, |sim| {
        let site = Site::start(sim);
        let page = site.ask(sim, b"GET / HTTP/1.0\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert_eq!(body(&page), include_str!("../site/index.html"));
        let head = site.ask(sim, b"HEAD /style.css HTTP/1.0\r\n\r\n");
        assert!(
            head.contains("Content-Type: text/css") && body(&head).is_empty(),
            "{head}"
        );
        site.end(sim);
    });
}

#[test]
fn stats_count_what_was_done() {
    let sim = Sim::new(1);
    let site = Site::start(&sim);
    let json = site.ask(&sim, b"GET /stats HTTP/1.0\r\n\r\n");
    let stats: serde_json::Value = serde_json::from_str(body(&json)).unwrap();
    assert_eq!(stats["memory"]["free"], 7 << 20);
    assert_eq!(stats["ports"], 3, "console, xenstore, vif");
    assert!(stats["grants"]["active"].as_u64() > Some(2));
    assert_eq!(stats["interfaces"][0]["name"], "net0");
    assert_eq!(stats["interfaces"][0]["accepted"], 2);
    assert!(stats["interfaces"][0]["rx_packets"].as_u64() > Some(5));
    assert!(stats["uptime_ms"].as_u64() > Some(0));
    site.end(&sim);
}

#[test]
fn requests_may_come_before_the_answers_and_in_pieces() {
    fata_sim::check(0..4, |sim| {
        let site = Site::start(sim);
        let connection = site.connect();
        connection.send(&GET.repeat(9));
        for piece in GET.chunks(3) {
            connection.send(piece);
            sim.run_for(Duration::from_millis(50));
        }
        connection.send(b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        sim.run_until(|| connection.is_closed_by_peer(), 10 * SECOND);
        let answers = String::from_utf8(connection.take()).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 10);
        assert!(answers.ends_with("404 Not Found\n"));
        connection.close();
        site.end(sim);
    });
}

#[test]
fn a_hundred_connections_at_once() {
    fata_sim::check(0..2, |sim| {
        let site = Site::start(sim);
        let connections: Vec<_> = (0..100).map(|_| site.connect()).collect();
        connections
            .iter()
            .for_each(|connection| connection.send(b"GET / HTTP/1.0\r\n\r\n"));
        sim.run_until(|| connections.iter().all(Connection::is_closed_by_peer), 60 * SECOND);
        for connection in &connections {
            assert!(connection.take().starts_with(b"HTTP/1.1 200 OK\r\n"));
            connection.close();
        }
        sim.run_until(|| connections.iter().all(Connection::is_over), 60 * SECOND);
        site.end(sim);
    });
}

#[test]
fn bad_requests_are_refused() {
    let sim = Sim::new(1);
    let site = Site::start(&sim);
    let refused = |request: &[u8]| site.ask(&sim, request).lines().next().map(str::to_owned);
    assert_eq!(
        refused(b"nonsense\r\n\r\n").as_deref(),
        Some("HTTP/1.1 400 Bad Request")
    );
    let long = [&b"GET / HTTP/1.1\r\nCookie: "[..], &[b'x'; 9000]].concat();
    assert_eq!(
        refused(&long).as_deref(),
        Some("HTTP/1.1 431 Request Header Fields Too Large")
    );
    let post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(refused(post).as_deref(), Some("HTTP/1.1 405 Method Not Allowed"));
    site.end(&sim);
}

#[test]
fn a_slow_client_is_told_and_an_idle_one_is_not() {
    let sim = Sim::new(1);
    let site = Site::start(&sim);
    let (slow, idle) = (site.connect(), site.connect());
    slow.send(b"GET / HT");
    sim.run_until(|| slow.is_closed_by_peer() && idle.is_closed_by_peer(), 20 * SECOND);
    assert!(slow.take().starts_with(b"HTTP/1.1 408 Request Timeout\r\n"));
    assert!(idle.take().is_empty());
    slow.close();
    idle.close();
    site.end(&sim);
}

#[test]
fn short_of_memory_it_says_come_again() {
    let sim = Sim::new(1);
    let site = Site::with_memory(&sim, || Memory {
        total: 1 << 20,
        used: (1 << 20) - 1000,
        ..Memory::default()
    });
    let answer = site.ask(&sim, GET);
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
    site.end(&sim);
}
