//! An end in dom0 that the test plays by hand, and that does not keep the rules.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use common::{Ended, Env, SECOND, boot, finish};
use fata_events::select::{Either, select};
use fata_grant::{Pages, ReadWrite, Shared, Table};
use fata_hypercall::{DomId, GrantError, GrantRef, Hypervisor, PAGE_SIZE, Port, SharedPage};
use fata_sim::{Access, Call, Domain, Mapping, Perm, Sim, check};
use fata_vchan::{Error, Sizes, Vchan};

const LEFT: (usize, usize) = (0, 4);
const RIGHT: (usize, usize) = (8, 12);
const ORDERS: [usize; 2] = [16, 18];
const CLIENT_LIVE: usize = 20;
const SERVER_LIVE: usize = 21;
const GRANTS: usize = 24;

/// What a program saw.
type Seen<T> = Rc<RefCell<Option<T>>>;

/// A client of the server in `domain`, which has mapped the first page and is connected.
struct Client {
    dom0: Domain,
    first: Mapping,
    port: Port,
}

impl Client {
    fn connect(sim: &Sim, server: &Domain) -> Self {
        Self::connect_to(sim, server, "data/vchan")
    }

    fn connect_to(sim: &Sim, server: &Domain, path: &str) -> Self {
        let number = |key: &str| {
            let path = format!("/local/domain/{}/{path}/{key}", server.id().0);
            let text = String::from_utf8(sim.store().read(&path)?).ok()?;
            text.parse::<u32>().ok()
        };
        sim.run_until(|| number("event-channel").is_some(), SECOND);
        let reference = GrantRef(number("ring-ref").unwrap());
        let dom0 = sim.dom0().clone();
        let first = dom0.map_grant(server.id(), reference, Access::Write).unwrap();
        let port = dom0
            .bind_interdomain(server.id(), Port(number("event-channel").unwrap()))
            .unwrap();
        assert_eq!(first.page().load_u8(CLIENT_LIVE, SeqCst), Some(2));
        assert_eq!(first.page().load_u8(SERVER_LIVE, SeqCst), Some(1));
        let client = Self { dom0, first, port };
        client.set_live(1);
        client
    }

    fn page(&self) -> &SharedPage {
        self.first.page()
    }

    fn set_live(&self, live: u8) {
        self.page().store_u8(CLIENT_LIVE, live, SeqCst);
        self.notify();
    }

    fn notify(&self) {
        self.dom0.evtchn_send(self.port).unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.dom0.evtchn_close(self.port);
    }
}

/// A server in `domain` for dom0 with rings of 1 KiB and 2 KiB, on which `program` works.
fn server<T: 'static>(
    sim: &Sim,
    domain: &Domain,
    sizes: Sizes,
    program: impl AsyncFnOnce(&Vchan, &Env) -> T + 'static,
) -> (Ended, Seen<T>) {
    let seen = Seen::default();
    let slot = Rc::clone(&seen);
    let ended = boot(sim, domain, |env: Env| async move {
        let vchan = env.vchans.listen(DomId::DOM0, "data/vchan", sizes).await.unwrap();
        let result = program(&vchan, &env).await;
        slot.replace(Some(result));
        // Until the peer has let go.
        drop(vchan);
        while env.table.retry_quarantine() > 0 {
            env.handle.sleep(SECOND / 10).await;
        }
    });
    (ended, seen)
}

/// Rule 78: more bytes than the ring has close the vchan, and the peer is told so.
#[test]
fn rule_78_an_index_that_jumps_closes_the_vchan() {
    check(0..100, |sim| {
        let domain = sim.domain("server");
        let reading = sim.random(2) == 0;
        let (ended, seen) = server(sim, &domain, Sizes::default(), async move |vchan, _| {
            let first = match reading {
                true => vchan.read(&mut [0; 100]).await,
                false => loop {
                    // Its own index is at most 2048 by the time there is no room any more.
                    if let outcome @ Err(_) = vchan.write(&[1; 100]).await {
                        break outcome;
                    }
                },
            };
            (first, vchan.read(&mut [0; 100]).await, vchan.is_open())
        });
        let client = Client::connect(sim, &domain);
        let jump = match reading {
            true => (LEFT.1, 1025 + sim.random(1 << 31) as u32),
            false => (RIGHT.0, 2049 + sim.random(1 << 31) as u32),
        };
        client.page().store_u32(jump.0, jump.1, SeqCst);
        client.notify();
        sim.run_until(|| seen.borrow().is_some(), SECOND);
        let (first, second, open) = seen.take().unwrap();
        assert!(
            matches!(first, Err(Error::BadIndex(error)) if error.claimed == jump.1),
            "{first:?}"
        );
        assert_eq!((second, open), (first, false), "and so it stays");
        assert_eq!(
            client.page().load_u8(SERVER_LIVE, SeqCst),
            Some(0),
            "the peer is not told"
        );
        drop(client);
        finish(sim, &[(&domain, &ended)]);
    });
}

/// Rules 1 and 29: what was settled at the beginning is not read again.
#[test]
fn rule_29_orders_and_grants_are_read_once() {
    check(0..100, |sim| {
        let domain = sim.domain("server");
        let sizes = Sizes { read: 5000, write: 0 };
        let (ended, seen) = server(sim, &domain, sizes, async |vchan, _| {
            let mut bytes = [0; 300];
            let mut count = 0;
            while count < bytes.len() {
                count += vchan.read(&mut bytes[count..]).await?;
            }
            vchan.write_all(&bytes).await?;
            vchan.flush().await?;
            Ok::<_, Error>(bytes)
        });
        let client = Client::connect(sim, &domain);
        let page = client.page();
        assert_eq!(ORDERS.map(|offset| page.load_u16(offset, SeqCst)), [Some(13), Some(10)]);
        let grants = [0, 4].map(|offset| GrantRef(page.load_u32(GRANTS + offset, SeqCst).unwrap()));
        let left = grants.map(|grant| client.dom0.map_grant(domain.id(), grant, Access::Write).unwrap());
        for round in 0..3_u32 {
            // Everything that is the server's own, or was settled.
            for offset in ORDERS {
                page.store_u16(offset, sim.random(1 << 16) as u16, SeqCst);
            }
            for offset in [LEFT.0, RIGHT.1, GRANTS, GRANTS + 4] {
                page.store_u32(offset, sim.random(1 << 32) as u32, SeqCst);
            }
            left[0].page().write(round as usize * 100, &[round as u8 + 1; 100]);
            page.store_u32(LEFT.1, (round + 1) * 100, SeqCst);
            client.notify();
            sim.run_for(SECOND / 100);
        }
        assert_eq!(page.load_u32(LEFT.0, SeqCst), Some(300));
        assert_eq!(page.load_u32(RIGHT.1, SeqCst), Some(300));
        let mut back = [0; 300];
        page.read(1024, &mut back);
        assert!((0..300).all(|at| back[at] == (at / 100 + 1) as u8));
        page.store_u32(RIGHT.0, 300, SeqCst);
        client.notify();
        sim.run_until(|| seen.borrow().is_some(), SECOND);
        assert_eq!(seen.take().unwrap(), Ok(back));
        drop((left, client));
        finish(sim, &[(&domain, &ended)]);
    });
}

/// A peer that comes and goes is gone the first time.
#[test]
fn a_live_flag_that_flaps_is_an_end_or_a_peer() {
    check(0..100, |sim| {
        let domain = sim.domain("server");
        let (ended, seen) = server(sim, &domain, Sizes::default(), async |vchan, env| {
            let read = vchan.read(&mut [0; 8]).await;
            (read, env.handle.timeout(SECOND, vchan.write_all(&[0; 10_000])).await)
        });
        let client = Client::connect(sim, &domain);
        for _ in 0..200 {
            client.set_live(sim.random(4) as u8);
            sim.run_for(SECOND / 1000);
        }
        client.set_live(2); // "not there yet": too late for that
        sim.run_until(|| seen.borrow().is_some(), 5 * SECOND);
        let (read, written) = seen.take().unwrap();
        assert_eq!(read, Ok(0));
        assert_eq!(written, Ok(Err(Error::Closed)));
        drop(client);
        finish(sim, &[(&domain, &ended)]);
    });
}

/// Only before it has come is a client not there yet.
#[test]
fn a_client_that_says_it_never_came_is_gone() {
    check(0..20, |sim| {
        let domain = sim.domain("server");
        let (ended, seen) = server(sim, &domain, Sizes::default(), async |vchan, _| {
            vchan.read(&mut [0; 8]).await
        });
        let client = Client::connect(sim, &domain);
        sim.run_for(SECOND / 10);
        assert!(seen.borrow().is_none());
        client.set_live(2);
        sim.run_until(|| seen.borrow().is_some(), SECOND);
        assert_eq!(seen.take().unwrap(), Ok(0));
        drop(client);
        finish(sim, &[(&domain, &ended)]);
    });
}

/// Rule 55: events for nothing are listened to less and less often.
#[test]
fn xsa_391_a_vchan_peer_that_signals_for_nothing() {
    check(0..10, |sim| {
        let domain = sim.domain("server");
        let (ended, seen) = server(sim, &domain, Sizes::default(), async |vchan, _| {
            vchan.read(&mut [0; 8]).await
        });
        let client = Client::connect(sim, &domain);
        sim.run_for(SECOND / 10);
        let before = domain.activity();
        for _ in 0..10_000 {
            client.notify();
            sim.run_for(SECOND / 10_000);
        }
        let turns = domain.activity().turns - before.turns;
        assert!(turns < 1_000, "{turns} turns in a second");
        // And all the same it is there when there is something.
        client.page().write(1024, b"hello");
        client.page().store_u32(LEFT.1, 5, SeqCst);
        client.notify();
        sim.run_until(|| seen.borrow().is_some(), SECOND);
        assert_eq!(seen.take().unwrap(), Ok(5));
        drop(client);
        finish(sim, &[(&domain, &ended)]);
    });
}

/// Rule 21: who comes, goes, and keeps what it had mapped does not get everything in the end.
#[test]
fn rule_21_a_client_that_lets_nothing_go_is_not_served_for_ever() {
    let sim = Sim::new(1);
    let (domain, other) = (sim.domain("server"), sim.domain("other"));
    let (refused, again) = (Seen::default(), Seen::default());
    let (slot, late_slot, other_id) = (Rc::clone(&refused), Rc::clone(&again), other.id());
    let ended = boot(&sim, &domain, |env: Env| async move {
        // 65 pages each.
        let sizes = Sizes {
            read: 1 << 17,
            write: 1 << 17,
        };
        let listen = async |client, name: &str| env.vchans.listen(client, &format!("data/{name}"), sizes).await;
        for round in 0.. {
            match listen(DomId::DOM0, &round.to_string()).await {
                Ok(vchan) => assert_eq!(vchan.read(&mut [0; 8]).await, Ok(0)),
                Err(error) => {
                    slot.replace(Some((round, error)));
                    break;
                }
            }
        }
        assert!(listen(other_id, "other").await.is_ok(), "it is not the other's fault");
        env.handle.sleep(SECOND).await;
        late_slot.replace(Some(listen(DomId::DOM0, "late").await.is_ok()));
    });
    let mut clients = Vec::new();
    for round in 0..4 {
        let client = Client::connect_to(&sim, &domain, &format!("data/{round}"));
        client.set_live(0);
        clients.push(client);
    }
    sim.run_until(|| refused.borrow().is_some(), SECOND);
    let kept = fata_grant::Error::Quarantine {
        peer: DomId::DOM0,
        pages: 4 * 65,
    };
    assert_eq!(refused.take(), Some((4, Error::Grant(kept))));
    drop(clients);
    finish(&sim, &[(&domain, &ended)]);
    assert_eq!(again.take(), Some(true), "it has let go");
}

/// dom0 as a server, by hand.
struct Server {
    dom0: Domain,
    table: Table<Domain>,
    first: Shared<Domain, ReadWrite>,
    port: Port,
}

impl Server {
    /// Grants a page with these orders and grants to `client`.
    fn new(sim: &Sim, client: &Domain, orders: [u16; 2], grants: &[u32]) -> Self {
        let dom0 = sim.dom0().clone();
        let table = Table::new(dom0.clone());
        let pages = Pages::alloc(&dom0, 1).unwrap();
        let first = table.share(pages, client.id(), ReadWrite).unwrap();
        let port = dom0.evtchn_alloc_unbound(client.id()).unwrap();
        let page = first.page(0);
        for (offset, order) in ORDERS.into_iter().zip(orders) {
            page.store_u16(offset, order, SeqCst);
        }
        for (index, &grant) in grants.iter().enumerate() {
            page.store_u32(GRANTS + 4 * index, grant, SeqCst);
        }
        page.store_u8(SERVER_LIVE, 1, SeqCst);
        page.store_u8(CLIENT_LIVE, 2, SeqCst);
        Self {
            dom0,
            table,
            first,
            port,
        }
    }

    fn publish(&self, sim: &Sim, client: &Domain) {
        let numbers = [("ring-ref", self.first.reference(0).0), ("event-channel", self.port.0)];
        for (key, number) in numbers {
            let path = format!("/local/domain/0/data/vchan/{key}");
            sim.store().write(&path, number.to_string()).unwrap();
            let perms = [Perm::none(DomId::DOM0), Perm::read(client.id())];
            sim.store().set_perms(&path, &perms).unwrap();
        }
    }

    /// What a client in `domain` makes of it.
    fn tried_by<T: 'static>(
        &self,
        sim: &Sim,
        domain: &Domain,
        program: impl AsyncFnOnce(Result<Vchan, Error>) -> T + 'static,
    ) -> T {
        let seen = Seen::default();
        let slot = Rc::clone(&seen);
        let ended = boot(sim, domain, |env: Env| async move {
            let vchan = env.vchans.connect(DomId::DOM0, "/local/domain/0/data/vchan").await;
            slot.replace(Some(program(vchan).await));
        });
        self.publish(sim, domain);
        finish(sim, &[(domain, &ended)]);
        seen.take().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.dom0.evtchn_close(self.port);
    }
}

async fn refused(vchan: Result<Vchan, Error>) -> Option<Error> {
    vchan.err()
}

#[test]
fn rule_29_a_client_checks_orders_and_grants() {
    check(0..200, |sim| {
        let domain = sim.domain("client");
        let orders = [sim.random(24) as u16, sim.random(24) as u16];
        // What is in the list grants nothing.
        let server = Server::new(sim, &domain, orders, &[7, 8, 9]);
        let [left, right] = orders;
        let outcome = server.tried_by(sim, &domain, refused);
        let possible = orders.iter().all(|order| (10..=20).contains(order));
        let in_page = orders.iter().min() < Some(&12);
        match outcome {
            Some(error @ Error::BadOrder { .. }) => {
                assert!(!possible || in_page, "{orders:?}");
                assert_eq!(error, Error::BadOrder { left, right });
            }
            Some(Error::Map(GrantError::BadReference)) => assert!(possible && left.max(right) >= 12, "{orders:?}"),
            None => assert!(possible && left.max(right) < 12, "{orders:?}"),
            other => panic!("{other:?}"),
        }
    });
}

/// A client has room for so many pages; one server does not get it all, and what it gets is no room of another's.
#[test]
fn rule_26_a_client_has_room_for_more_than_one_server() {
    let sim = Sim::new(1);
    let orders_of = |sizes: usize| Sizes {
        read: sizes,
        write: sizes,
    };
    let client = sim.domain("client");
    let servers = [1 << 20, 1 << 18, 1 << 17, 1 << 18].map(|size| (sim.domain("server"), orders_of(size)));
    let client_id = client.id();
    let ids = servers.each_ref().map(|(server, _)| server.id());
    let serving = servers.each_ref().map(|(server, sizes)| {
        let sizes = *sizes;
        boot(&sim, server, move |env: Env| async move {
            let vchan = env.vchans.listen(client_id, "data/vchan", sizes).await.unwrap();
            let greeted = env.handle.timeout(2 * SECOND, vchan.write_all(b"hello")).await;
            assert_eq!(greeted, Ok(Ok(())));
            env.handle.sleep(2 * SECOND).await;
            drop(vchan);
            env.table.retry_quarantine();
        })
    });
    let asking = boot(&sim, &client, move |env: Env| async move {
        let mut vchans = Vec::new();
        for id in ids {
            let path = format!("/local/domain/{}/data/vchan", id.0);
            vchans.push(env.vchans.connect(id, &path).await);
        }
        assert_eq!(vchans[3].as_ref().err(), Some(&Error::Map(GrantError::NoSpace)));
        for vchan in &vchans[..3] {
            assert_eq!(vchan.as_ref().unwrap().read(&mut [0; 10]).await, Ok(5));
        }
    });
    let all: Vec<_> = servers
        .iter()
        .zip(&serving)
        .map(|((server, _), ended)| (server, ended))
        .chain([(&client, &asking)])
        .collect();
    finish(&sim, &all);
}

/// Whatever was mapped before the one that cannot be is given back.
#[test]
fn a_list_that_is_good_at_first_leaves_nothing_behind() {
    check(0..20, |sim| {
        let domain = sim.domain("client");
        let mut server = Server::new(sim, &domain, [14, 10], &[]);
        let rings = server.table.share_zeroed(3, domain.id(), ReadWrite).unwrap();
        for (index, grant) in rings.references().iter().enumerate() {
            server.first.page(0).store_u32(GRANTS + 4 * index, grant.0, SeqCst);
        }
        server.first.page(0).store_u32(GRANTS + 12, u32::MAX, SeqCst);
        let outcome = server.tried_by(sim, &domain, refused);
        assert_eq!(outcome, Some(Error::Map(GrantError::BadReference)));
        assert!(server.first.reclaim(0).is_ok(), "still mapped");
    });
}

#[test]
fn rule_26_want_of_places_or_ports_is_an_error() {
    check(0..20, |sim| {
        for call in [Call::MapGrant, Call::EvtchnBind] {
            let domain = sim.domain("client");
            domain.faults().fail(call, 1, fata_hypercall::Errno::ENOSPC);
            let outcome = Server::new(sim, &domain, [10, 11], &[]).tried_by(sim, &domain, refused);
            assert!(matches!(outcome, Some(Error::Map(_) | Error::Port(_))), "{outcome:?}");
        }
        for call in [Call::AllocPages, Call::EvtchnAlloc] {
            let domain = sim.domain("server");
            domain.faults().fail(call, 1, fata_hypercall::Errno::ENOSPC);
            let ended = boot(sim, &domain, |env: Env| async move {
                let outcome = env.vchans.listen(DomId::DOM0, "data/vchan", Sizes::default()).await;
                assert!(matches!(outcome, Err(Error::Grant(_) | Error::Port(_))), "{outcome:?}");
            });
            finish(sim, &[(&domain, &ended)]);
        }
    });
}

#[test]
fn a_server_that_is_gone_or_makes_no_sense_is_refused() {
    check(0..20, |sim| {
        let domain = sim.domain("client");
        let server = Server::new(sim, &domain, [10, 11], &[]);
        server.first.page(0).store_u8(SERVER_LIVE, 0, SeqCst);
        assert_eq!(server.tried_by(sim, &domain, refused), Some(Error::Closed));
        drop(server);

        let domain = sim.domain("client");
        let server = Server::new(sim, &domain, [10, 11], &[]);
        server.first.page(0).store_u32(RIGHT.1, 2049, SeqCst);
        let outcome = server.tried_by(sim, &domain, refused);
        assert!(matches!(outcome, Some(Error::BadIndex(_))), "{outcome:?}");
        assert_eq!(
            server.first.page(0).load_u8(CLIENT_LIVE, SeqCst),
            Some(2),
            "it never came"
        );
    });
}

/// Any bytes at any time: nothing panics, and nothing is left.
#[test]
fn any_bytes_are_survived() {
    check(0..300, |sim| {
        let domain = sim.domain("server");
        let sizes = Sizes {
            read: sim.random(9000) as usize,
            write: sim.random(9000) as usize,
        };
        let (ended, seen) = server(sim, &domain, sizes, async |vchan, env| {
            let mut buffer = [0; 700];
            loop {
                let work = select(vchan.read(&mut buffer), vchan.write(&[5; 900]));
                match env.handle.timeout(SECOND / 50, work).await {
                    Ok(Either::First(Ok(0))) => return Ok(()),
                    Ok(Either::First(Err(error)) | Either::Second(Err(error))) => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
        });
        let client = Client::connect(sim, &domain);
        for _ in 0..200 {
            // Mostly where it matters, and mostly small steps.
            let offset = sim.random(if sim.random(4) == 0 {
                PAGE_SIZE as u64
            } else {
                GRANTS as u64 + 16
            }) as usize;
            let byte = if sim.random(2) == 0 {
                sim.random(256)
            } else {
                sim.random(4)
            } as u8;
            if offset != CLIENT_LIVE || sim.random(8) == 0 {
                client.page().write(offset, &[byte]);
            }
            client.notify();
            sim.run_for(SECOND / 1000);
        }
        client.set_live(0);
        sim.run_until(|| seen.borrow().is_some(), 5 * SECOND);
        assert!(matches!(
            seen.take().unwrap(),
            Ok(()) | Err(Error::Closed | Error::BadIndex(_))
        ));
        drop(client);
        finish(sim, &[(&domain, &ended)]);
    });
}
