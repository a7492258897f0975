//! Two guests talk, under many seeds.

mod common;

use common::{Env, SECOND, boot, finish, read, write};
use fata_events::join::join;
use fata_hypercall::DomId;
use fata_sim::{EventFaults, Rng, Sim, check};
use fata_vchan::{Error, Sizes, Vchan};

const PATH: &str = "data/vchan/test";

fn path_of(domain: DomId) -> String {
    format!("/local/domain/{}/{PATH}", domain.0)
}

/// A size of any order, small ones as often as large ones.
fn size(sim: &Sim) -> usize {
    sim.random(1 << sim.random(18)) as usize
}

/// Both directions at once.
async fn talk(vchan: &Vchan, ours: (u8, usize), theirs: (u8, usize), seed: u64) {
    let (written, seen) = join(
        write(vchan, ours.0, ours.1, Rng::new(seed)),
        read(vchan, theirs.0, theirs.1, Rng::new(!seed)),
    )
    .await;
    assert_eq!((written, seen), (Ok(()), Ok(())));
}

#[test]
fn two_guests_talk() {
    check(0..200, |sim| {
        let (server, client) = (sim.domain("server"), sim.domain("client"));
        if sim.random(3) == 0 {
            let faults = EventFaults {
                late_one_in: 4,
                late_by: SECOND / 1000,
                again_one_in: 8,
            };
            server.set_event_faults(faults);
            client.set_event_faults(faults);
        }
        let sizes = Sizes {
            read: size(sim),
            write: size(sim),
        };
        let (to_server, to_client) = (sim.random(100_000) as usize, sim.random(100_000) as usize);
        let (client_id, server_id, seed) = (client.id(), server.id(), sim.seed());

        let serve = boot(sim, &server, |env: Env| async move {
            let vchan = env.vchans.listen(client_id, PATH, sizes).await.unwrap();
            talk(&vchan, (1, to_client), (2, to_server), seed).await;
            // The client goes first, so that the pages can be freed.
            assert_eq!(vchan.read(&mut [0; 10]).await, Ok(0));
            assert_eq!(vchan.write(&[0; 10]).await, Err(Error::Closed));
            assert!(!vchan.is_open());
        });
        let ask = boot(sim, &client, |env: Env| async move {
            let vchan = env.vchans.connect(server_id, &path_of(server_id)).await.unwrap();
            talk(&vchan, (2, to_server), (1, to_client), !seed).await;
        });
        finish(sim, &[(&server, &serve), (&client, &ask)]);
        assert_eq!(sim.store().read(&path_of(server_id)), None, "the nodes are still there");
    });
}

/// What was written before a close is read after it.
#[test]
fn a_close_loses_nothing() {
    check(0..100, |sim| {
        let (server, client) = (sim.domain("server"), sim.domain("client"));
        let (client_id, server_id) = (client.id(), server.id());
        let count = 1 + sim.random(1024) as usize;
        let serve = boot(sim, &server, |env: Env| async move {
            let vchan = env.vchans.listen(client_id, PATH, Sizes::default()).await.unwrap();
            env.handle.sleep(SECOND).await; // the client has come and gone
            read(&vchan, 7, count, Rng::new(1)).await.unwrap();
            assert_eq!(vchan.read(&mut [0; 10]).await, Ok(0));
        });
        let ask = boot(sim, &client, |env: Env| async move {
            let vchan = env.vchans.connect(server_id, &path_of(server_id)).await.unwrap();
            let bytes: Vec<u8> = (0..count).map(|at| common::byte(7, at)).collect();
            vchan.write_all(&bytes).await.unwrap();
        });
        finish(sim, &[(&server, &serve), (&client, &ask)]);
    });
}

/// The other way: the server goes, and what it granted stays out of use until the client has let go.
#[test]
fn a_server_that_closes_is_read_to_the_end() {
    check(0..100, |sim| {
        let (server, client) = (sim.domain("server"), sim.domain("client"));
        let (client_id, server_id) = (client.id(), server.id());
        let count = 1 + sim.random(2048) as usize;
        let serve = boot(sim, &server, |env: Env| async move {
            let vchan = env.vchans.listen(client_id, PATH, Sizes::default()).await.unwrap();
            vchan.connected().await.unwrap();
            let bytes: Vec<u8> = (0..count).map(|at| common::byte(7, at)).collect();
            vchan.write_all(&bytes).await.unwrap();
            drop(vchan);
            assert_eq!(env.table.stats().quarantined, 1);
            env.handle.sleep(2 * SECOND).await;
            assert_eq!(env.table.retry_quarantine(), 0);
        });
        let ask = boot(sim, &client, |env: Env| async move {
            let vchan = env.vchans.connect(server_id, &path_of(server_id)).await.unwrap();
            env.handle.sleep(SECOND).await;
            read(&vchan, 7, count, Rng::new(1)).await.unwrap();
            assert_eq!(vchan.read(&mut [0; 10]).await, Ok(0));
            assert_eq!(vchan.flush().await, Ok(()), "nothing was written");
        });
        finish(sim, &[(&server, &serve), (&client, &ask)]);
    });
}

#[test]
fn rule_81_who_is_blocked_notices_the_close() {
    check(0..100, |sim| {
        let (server, client) = (sim.domain("server"), sim.domain("client"));
        let (client_id, server_id) = (client.id(), server.id());
        let own = sim.random(2) == 0;
        let serve = boot(sim, &server, |env: Env| async move {
            let vchan = std::rc::Rc::new(env.vchans.listen(client_id, PATH, Sizes::default()).await.unwrap());
            let (reader, writer) = (vchan.clone(), vchan.clone());
            let reader = env.handle.spawn(async move { reader.read(&mut [0; 10]).await });
            let writer = env.handle.spawn(async move { writer.write_all(&[0; 5000]).await });
            if own {
                env.handle.sleep(SECOND).await;
                vchan.close();
                assert_eq!(vchan.connected().await, Err(Error::Closed));
            }
            let end = if own { Err(Error::Closed) } else { Ok(0) };
            assert_eq!(reader.await, Ok(end));
            assert_eq!(writer.await, Ok(Err(Error::Closed)));
            env.handle.sleep(2 * SECOND).await;
            drop(vchan);
            env.table.retry_quarantine();
        });
        let ask = boot(sim, &client, |env: Env| async move {
            let vchan = env.vchans.connect(server_id, &path_of(server_id)).await.unwrap();
            env.handle.sleep(2 * SECOND).await;
            drop(vchan);
        });
        finish(sim, &[(&server, &serve), (&client, &ask)]);
    });
}

/// Its pages and its live flag stay as they were.
#[test]
fn a_server_whose_domain_is_destroyed_is_gone() {
    check(0..100, |sim| {
        let (server, client) = (sim.domain("server"), sim.domain("client"));
        let (client_id, server_id) = (client.id(), server.id());
        let late = sim.random(2) == 0;
        boot(sim, &server, |env: Env| async move {
            let vchan = env.vchans.listen(client_id, PATH, Sizes::default()).await.unwrap();
            vchan.write_all(&[1; 100]).await.unwrap();
            // It has no time for a close.
            std::mem::forget(vchan);
            std::future::pending().await
        });
        let ask = boot(sim, &client, |env: Env| async move {
            let vchan = env.vchans.connect(server_id, &path_of(server_id)).await.unwrap();
            if late {
                env.handle.sleep(SECOND).await;
            }
            let mut buffer = [0; 1000];
            assert_eq!(vchan.read(&mut buffer).await, Ok(100), "what was written before");
            let (read, written) = join(vchan.read(&mut buffer), vchan.write_all(&[0; 5000])).await;
            assert_eq!((read, written), (Ok(0), Err(Error::Closed)));
        });
        sim.run_for(SECOND / 2);
        sim.destroy(&server);
        finish(sim, &[(&client, &ask)]);
    });
}

/// Nor has it nodes in the store that would go. Who waits is told all the same, even who never waits for long; and nothing looks
/// while nobody waits.
#[test]
fn rule_81_a_client_whose_domain_is_destroyed_is_gone() {
    check(0..100, |sim| {
        let (server, client) = (sim.domain("server"), sim.domain("client"));
        let (client_id, server_id) = (client.id(), server.id());
        let patient = sim.random(2) == 0;
        let serve = boot(sim, &server, |env: Env| async move {
            let vchan = env.vchans.listen(client_id, PATH, Sizes::default()).await.unwrap();
            let mut buffer = [0; 1000];
            assert_eq!(vchan.read(&mut buffer).await, Ok(100));
            env.handle.sleep(30 * SECOND).await;
            // By now the client is gone.
            let limit = if patient { 60 * SECOND } else { SECOND / 10 };
            let read = loop {
                if let Ok(read) = env.handle.timeout(limit, vchan.read(&mut buffer)).await {
                    break read;
                }
            };
            assert_eq!((read, vchan.write(&[0]).await), (Ok(0), Err(Error::Closed)));
            assert!(!vchan.is_open());
            drop(vchan);
            assert_eq!(env.table.stats().quarantined, 0);
            assert!(env.vchans.listen(client_id, PATH, Sizes::default()).await.is_ok());
        });
        boot(sim, &client, |env: Env| async move {
            let vchan = env.vchans.connect(server_id, &path_of(server_id)).await.unwrap();
            vchan.write_all(&[1; 100]).await.unwrap();
            std::mem::forget(vchan);
            std::future::pending().await
        });
        sim.run_for(SECOND);
        let before = server.activity().turns;
        sim.run_for(20 * SECOND);
        assert_eq!(server.activity().turns, before, "somebody looks");
        sim.destroy(&client);
        finish(sim, &[(&server, &serve)]);
    });
}

/// A client may take its time.
#[test]
fn a_client_that_has_not_come_yet_is_not_gone() {
    let sim = Sim::new(1);
    let (server, client) = (sim.domain("server"), sim.domain("client"));
    let (client_id, server_id) = (client.id(), server.id());
    let serve = boot(&sim, &server, |env: Env| async move {
        let vchan = env.vchans.listen(client_id, PATH, Sizes::default()).await.unwrap();
        vchan.connected().await.unwrap();
        assert_eq!(vchan.read(&mut [0; 10]).await, Ok(5));
        assert_eq!(vchan.read(&mut [0; 10]).await, Ok(0));
    });
    let ask = boot(&sim, &client, |env: Env| async move {
        env.handle.sleep(20 * SECOND).await;
        let vchan = env.vchans.connect(server_id, &path_of(server_id)).await.unwrap();
        env.handle.sleep(20 * SECOND).await;
        vchan.write_all(b"hello").await.unwrap();
        vchan.flush().await.unwrap();
    });
    finish(&sim, &[(&server, &serve), (&client, &ask)]);
}
