//! Raw messages over the ring page, written and read with nothing but the numbers of xs_wire.h.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use fata_hypercall::{DomId, Hypervisor};

use super::{Perm, Quota};
use crate::domain::Domain;
use crate::sim::Sim;

const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const GET_PERMS: u32 = 3;
const WATCH: u32 = 4;
const UNWATCH: u32 = 5;
const TRANSACTION_START: u32 = 6;
const TRANSACTION_END: u32 = 7;
const GET_DOMAIN_PATH: u32 = 10;
const WRITE: u32 = 11;
const MKDIR: u32 = 12;
const RM: u32 = 13;
const SET_PERMS: u32 = 14;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;
const RESET_WATCHES: u32 = 21;
const DIRECTORY_PART: u32 = 22;

/// A client that waits for each answer.
struct Client<'a> {
    sim: &'a Sim,
    domain: Domain,
    events: Vec<String>,
    last_request: u32,
}

impl<'a> Client<'a> {
    fn new(sim: &'a Sim) -> Self {
        Self {
            sim,
            domain: sim.domain("client"),
            events: Vec::new(),
            last_request: 0,
        }
    }

    fn index(&self, offset: usize) -> u32 {
        self.domain
            .store_ring()
            .unwrap()
            .page
            .load_u32(offset, Acquire)
            .unwrap()
    }

    fn send(&self, bytes: &[u8]) {
        let ring = self.domain.store_ring().unwrap();
        for &byte in bytes {
            while self.index(2052).wrapping_sub(self.index(2048)) == 1024 {
                self.sim.run_until_idle();
            }
            let prod = self.index(2052);
            ring.page.store_u8((prod % 1024) as usize, byte, Release);
            ring.page.store_u32(2052, prod.wrapping_add(1), Release);
        }
        self.domain.evtchn_send(ring.port).unwrap();
        self.sim.run_until_idle();
    }

    fn receive(&self, len: usize) -> Option<Vec<u8>> {
        let ring = self.domain.store_ring().unwrap();
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let cons = self.index(2056);
            if cons == self.index(2060) {
                self.domain.evtchn_send(ring.port).unwrap();
                self.sim.run_until_idle();
                if cons == self.index(2060) {
                    assert!(bytes.is_empty(), "half a message");
                    return None;
                }
            }
            bytes.push(ring.page.load_u8(1024 + (cons % 1024) as usize, Acquire).unwrap());
            ring.page.store_u32(2056, cons.wrapping_add(1), Release);
        }
        Some(bytes)
    }

    fn message(&self) -> Option<(u32, u32, u32, Vec<u8>)> {
        let header = self.receive(16)?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let payload = if word(12) == 0 {
            Vec::new()
        } else {
            self.receive(word(12) as usize).unwrap()
        };
        Some((word(0), word(4), word(8), payload))
    }

    /// Sends a request and waits for its answer; events that come on the way are kept.
    fn call_in(&mut self, tx: u32, kind: u32, payload: &[u8]) -> Result<Vec<u8>, String> {
        self.last_request += 1;
        let mut bytes = Vec::new();
        for word in [kind, self.last_request, tx, payload.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(payload);
        self.send(&bytes);
        loop {
            let (got, request, got_tx, payload) = self.message().expect("an answer");
            if got == WATCH_EVENT {
                assert_eq!((request, got_tx), (0, 0));
                self.events.push(String::from_utf8(payload).unwrap());
                continue;
            }
            assert_eq!((request, got_tx), (self.last_request, tx));
            if got == ERROR {
                return Err(String::from_utf8(payload).unwrap().trim_end_matches('\0').to_owned());
            }
            assert_eq!(got, kind);
            return Ok(payload);
        }
    }

    fn call(&mut self, kind: u32, payload: impl AsRef<[u8]>) -> Result<Vec<u8>, String> {
        self.call_in(0, kind, payload.as_ref())
    }

    fn events(&mut self) -> Vec<String> {
        self.sim.run_until_idle();
        while let Some((kind, _, _, payload)) = self.message() {
            assert_eq!(kind, WATCH_EVENT);
            self.events.push(String::from_utf8(payload).unwrap());
        }
        std::mem::take(&mut self.events)
    }

    fn begin(&mut self) -> u32 {
        let id = self.call(TRANSACTION_START, b"\0").unwrap();
        std::str::from_utf8(&id)
            .unwrap()
            .trim_end_matches('\0')
            .parse()
            .unwrap()
    }
}

fn for_some_seeds(test: impl Fn(&mut Client<'_>) + Sync) {
    crate::check(0..8, |sim| test(&mut Client::new(sim)));
}

const OK: &[u8] = b"OK\0";

#[test]
fn reads_and_writes_under_the_domains_own_path() {
    for_some_seeds(|client| {
        assert_eq!(client.call(GET_DOMAIN_PATH, "1\0").unwrap(), b"/local/domain/1\0");
        assert_eq!(client.call(WRITE, b"data/a/b\0value\0with\0nul").unwrap(), OK);
        assert_eq!(client.call(READ, "data/a/b\0").unwrap(), b"value\0with\0nul");
        assert_eq!(client.call(READ, "/local/domain/1/data/a\0").unwrap(), b"");
        assert_eq!(client.call(MKDIR, "data/c\0").unwrap(), OK);
        assert_eq!(client.call(MKDIR, "data/c\0").unwrap(), OK);
        assert_eq!(client.call(DIRECTORY, "data\0").unwrap(), b"a\0c\0");
        assert_eq!(client.call(RM, "data/a\0").unwrap(), OK);
        assert_eq!(
            client.call(RM, "data/a\0").unwrap(),
            OK,
            "what is not there is as good as removed"
        );
        assert_eq!(client.call(RM, "data/x/y\0"), Err("ENOENT".to_owned()));
        assert_eq!(client.call(READ, "data/a/b\0"), Err("ENOENT".to_owned()));
    });
}

#[test]
fn wrong_requests_get_the_daemons_errors() {
    for_some_seeds(|client| {
        for (kind, payload, error) in [
            (READ, &b"data"[..], "EINVAL"),
            (READ, b"\0", "EINVAL"),
            (READ, b"data//x\0", "EINVAL"),
            (READ, b"data/\0", "EINVAL"),
            (READ, b"da ta\0", "EINVAL"),
            (READ, b"data/x\0", "ENOENT"),
            (WRITE, b"/tool/x\0", "EACCES"),
            (WRITE, b"name\0other", "EACCES"),
            (MKDIR, b"/x\0", "EACCES"),
            (RM, b"/\0", "EINVAL"),
            (WATCH, b"@releaseDomain\0t\0", "EACCES"),
            (WATCH, b"data\0", "EINVAL"),
            (UNWATCH, b"data\0t\0", "ENOENT"),
            (TRANSACTION_END, b"T\0", "ENOENT"),
            (8, b"5\0", "EACCES"),
            (20, b"\0", "ENOSYS"),
            (99, b"\0", "ENOSYS"),
            (SET_PERMS, b"data\0q1\0", "EINVAL"),
            (SET_PERMS, b"data\0n2\0", "EPERM"),
            (SET_PERMS, b"name\0n1\0", "EACCES"),
        ] {
            assert_eq!(client.call(kind, payload), Err(error.to_owned()), "{kind} {payload:?}");
        }
        assert_eq!(
            client.call_in(77, READ, b"data\0"),
            Err("ENOENT".to_owned()),
            "no such transaction"
        );
    });
}

#[test]
fn domains_see_only_what_they_may() {
    for_some_seeds(|client| {
        let other = client.sim.domain("other");
        let secret = format!("/local/domain/{}/data/secret", other.id().0);
        client.sim.store().write(&secret, "x").unwrap();
        assert_eq!(client.call(READ, format!("{secret}\0")), Err("EACCES".to_owned()));
        assert_eq!(
            client.call(READ, format!("{secret}/below\0")),
            Err("EACCES".to_owned()),
            "not even that it is missing"
        );
        client
            .sim
            .store()
            .set_perms(&secret, &[Perm::none(other.id()), Perm::read(DomId(1))])
            .unwrap();
        assert_eq!(client.call(READ, format!("{secret}\0")).unwrap(), b"x");
        assert_eq!(client.call(WRITE, format!("{secret}\0y")), Err("EACCES".to_owned()));
        assert_eq!(client.call(GET_PERMS, format!("{secret}\0")).unwrap(), b"n2\0r1\0");
        assert_eq!(client.call(SET_PERMS, "data\0n1\0r2\0").unwrap(), OK);
        assert_eq!(
            client.sim.store().perms("/local/domain/1/data"),
            [Perm::none(DomId(1)), Perm::read(DomId(2))]
        );
    });
}

#[test]
fn a_watch_fires_at_once_and_then_for_everything_below() {
    for_some_seeds(|client| {
        client.call(WATCH, "data\0one\0").unwrap();
        assert_eq!(client.call(WATCH, "data\0one\0"), Err("EEXIST".to_owned()));
        client.call(WATCH, "/local/domain/1/data/x\0two\0").unwrap();
        assert_eq!(client.events(), ["data\0one\0", "/local/domain/1/data/x\0two\0"]);
        client.call(WRITE, "data/x/y\0v").unwrap();
        assert_eq!(client.events(), ["data/x/y\0one\0", "/local/domain/1/data/x/y\0two\0"]);
        client.call(WRITE, "data/xx\0v").unwrap();
        assert_eq!(client.events(), ["data/xx\0one\0"]);
        client.sim.store().remove("/local/domain/1/data").unwrap();
        assert_eq!(
            client.events(),
            ["data\0one\0", "/local/domain/1/data/x\0two\0"],
            "a removed parent tells the watched path"
        );
        client.call(UNWATCH, "data\0one\0").unwrap();
        assert_eq!(client.sim.store().watches_of(DomId(1)).len(), 1);
        client.call(RESET_WATCHES, "\0").unwrap();
        assert!(client.sim.store().watches_of(DomId(1)).is_empty());
    });
}

#[test]
fn transactions_are_snapshots_and_conflicts_are_eagain() {
    for_some_seeds(|client| {
        client.call(WRITE, b"data/a\x001").unwrap();
        let tx = client.begin();
        client.call(WRITE, b"data/a\x002").unwrap();
        assert_eq!(client.call_in(tx, READ, b"data/a\0").unwrap(), b"1", "the snapshot");
        client.call_in(tx, WRITE, b"data/b\0new").unwrap();
        assert_eq!(client.call(READ, "data/b\0"), Err("ENOENT".to_owned()), "not yet");
        assert_eq!(client.call_in(tx, TRANSACTION_END, b"T\0"), Err("EAGAIN".to_owned()));
        assert_eq!(
            client.call_in(tx, READ, b"data/a\0"),
            Err("ENOENT".to_owned()),
            "it is over all the same"
        );

        client.call(WATCH, "data/b\0t\0").unwrap();
        client.events();
        let tx = client.begin();
        client.call_in(tx, WRITE, b"data/b\0new").unwrap();
        assert!(client.events().is_empty(), "nobody knows before the commit");
        client.call_in(tx, TRANSACTION_END, b"T\0").unwrap();
        assert_eq!(client.call(READ, "data/b\0").unwrap(), b"new");
        assert_eq!(client.events(), ["data/b\0t\0"]);

        let tx = client.begin();
        client.call_in(tx, RM, b"data/b\0").unwrap();
        client.call_in(tx, TRANSACTION_END, b"F\0").unwrap();
        assert_eq!(client.call(READ, "data/b\0").unwrap(), b"new", "aborted");

        let tx = client.begin();
        client.sim.store().write("/local/domain/1/data/elsewhere", "x").unwrap();
        client.call_in(tx, DIRECTORY, b"data/b\0").unwrap();
        client
            .call_in(tx, TRANSACTION_END, b"T\0")
            .expect("a change elsewhere is no conflict");
        client.sim.store().refuse_commits(1);
        let tx = client.begin();
        assert_eq!(client.call_in(tx, TRANSACTION_END, b"T\0"), Err("EAGAIN".to_owned()));
    });
}

#[test]
fn quotas_say_enospc() {
    for_some_seeds(|client| {
        client.sim.store().set_quota(Quota {
            nodes: 20,
            watches: 1,
            transactions: 1,
            node_size: 10,
            perms: 2,
            transaction_nodes: 3,
            ..Quota::default()
        });
        assert_eq!(client.call(WRITE, b"data/a\x0012345678901"), Err("ENOSPC".to_owned()));
        client.call(WATCH, "data\0a\0").unwrap();
        assert_eq!(client.call(WATCH, "data\0b\0"), Err("ENOSPC".to_owned()));
        let tx = client.begin();
        assert_eq!(client.call(TRANSACTION_START, "\0"), Err("ENOSPC".to_owned()));
        let looks =
            ["name", "domid", "data", "control"].map(|path| client.call_in(tx, READ, format!("{path}\0").as_bytes()));
        assert!(looks[..3].iter().all(Result::is_ok));
        assert_eq!(looks[3], Err("ENOSPC".to_owned()));
        assert_eq!(client.call(SET_PERMS, "data\0n1\0r2\0r3\0"), Err("ENOSPC".to_owned()));
        let full = (0..20)
            .map(|i| client.call(MKDIR, format!("data/{i}\0")))
            .find_map(Result::err);
        assert_eq!(full, Some("ENOSPC".to_owned()));
    });
}

#[test]
fn a_long_directory_comes_in_parts() {
    for_some_seeds(|client| {
        let names: Vec<String> = (0..300).map(|i| format!("node-with-a-long-name-{i:03}")).collect();
        for name in &names {
            client
                .sim
                .store()
                .write(&format!("/local/domain/1/data/{name}"), "")
                .unwrap();
        }
        assert_eq!(client.call(DIRECTORY, "data\0"), Err("E2BIG".to_owned()));
        let (mut listing, mut generations) = (Vec::new(), Vec::new());
        loop {
            let part = client
                .call(DIRECTORY_PART, format!("data\0{}\0", listing.len()))
                .unwrap();
            assert!(part.len() <= 4096);
            let end = part.iter().position(|&byte| byte == 0).unwrap();
            generations.push(part[..end].to_vec());
            listing.extend_from_slice(&part[end + 1..]);
            if listing.ends_with(b"\0\0") {
                break;
            }
        }
        assert!(generations.len() > 1 && generations.iter().all(|g| *g == generations[0]));
        let listing = String::from_utf8(listing).unwrap();
        assert_eq!(listing.trim_end_matches('\0').split('\0').collect::<Vec<_>>(), names);
    });
}

#[test]
fn an_oversized_payload_ends_the_connection_and_a_reconnect_brings_it_back() {
    for_some_seeds(|client| {
        client.sim.expect_violations();
        client.call(WATCH, "data\0t\0").unwrap();
        let mut bytes = Vec::new();
        for word in [READ, 1, 0, 4097] {
            bytes.extend(u32::to_le_bytes(word));
        }
        client.send(&bytes);
        assert_eq!(client.index(2072), 3, "error: protocol");
        assert_eq!(client.sim.take_violations().len(), 1);
        let ring = client.domain.store_ring().unwrap();
        ring.page.store_u32(2068, 1, Release);
        client.domain.evtchn_send(ring.port).unwrap();
        client.sim.run_until_idle();
        assert_eq!((client.index(2068), client.index(2072)), (0, 0));
        assert!(
            client.sim.store().watches_of(DomId(1)).is_empty(),
            "all watches are gone"
        );
        client.events.clear();
        assert_eq!(client.call(READ, "name\0").unwrap(), b"client");
    });
}

#[test]
fn impossible_indices_end_the_connection() {
    for_some_seeds(|client| {
        client.sim.expect_violations();
        let ring = client.domain.store_ring().unwrap();
        ring.page
            .store_u32(2052, client.index(2048).wrapping_add(1025), Release);
        client.domain.evtchn_send(ring.port).unwrap();
        client.sim.run_for(Duration::from_millis(1));
        assert_eq!(client.index(2072), 2, "error: ring index");
        assert!(client.sim.take_violations()[0].contains("indices"));
    });
}

#[test]
fn a_stopped_daemon_leaves_requests_in_the_ring() {
    for_some_seeds(|client| {
        client.sim.store().set_stopped(true);
        let cons = client.index(2048);
        client.send(&[0; 10]);
        assert_eq!(client.index(2048), cons);
        client.sim.store().set_stopped(false);
        client.sim.run_until_idle();
        assert_eq!(client.index(2048), cons.wrapping_add(10));
    });
}

#[test]
fn who_takes_no_answers_is_asked_for_no_more_questions() {
    for_some_seeds(|client| {
        client.call(WRITE, [&b"data/a\0"[..], &[b'x'; 900]].concat()).unwrap();
        let mut request = Vec::new();
        for word in [READ, 1, 0, 7] {
            request.extend(word.to_le_bytes());
        }
        request.extend(b"data/a\0");
        let burst = request.repeat(40);
        for _ in 0..2 {
            client.send(&burst);
            client.sim.run_until_idle();
        }
        assert_ne!(client.index(super::ring::REQ_CONS), client.index(super::ring::REQ_PROD));
        for _ in 0..80 {
            assert_eq!(client.message().expect("an answer").3.len(), 900);
        }
        client.sim.run_until_idle();
        assert_eq!(client.index(super::ring::REQ_CONS), client.index(super::ring::REQ_PROD));
    });
}
