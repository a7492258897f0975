//! Programs that talk to each other, and one of which is suspended.

use std::rc::Rc;
use std::time::Duration;

use fata::Env;
use fata::stats::Memory;
use fata::vchan::{DomId, Error, Sizes};
use fata::xen::{Facts, start};
use fata_hypercall::Suspended;
use fata_sim::{Domain, Sim};

const SECOND: Duration = Duration::from_secs(1);

fn boot<F: Future<Output = ()> + 'static>(sim: &Sim, domain: &Domain, main: impl FnOnce(Env) -> F + 'static) {
    let facts = Facts {
        command_line: String::new(),
        entropy: vec![1; 32],
        ram: Rc::new(Memory::default),
    };
    let mut guest = start(domain.clone(), facts, main);
    sim.add_guest(domain, move || {
        guest.turn();
    });
}

/// Answers one client after the other, each until it goes.
async fn answer(env: Env, clients: [DomId; 2]) {
    let vchans = env.vchans().unwrap();
    for client in clients {
        let vchan = vchans
            .listen(client, "data/vchan/echo", Sizes::default())
            .await
            .unwrap();
        let mut buffer = [0; 100];
        while let length @ 1.. = vchan.read(&mut buffer).await.unwrap() {
            vchan.write_all(&buffer[..length]).await.unwrap();
        }
    }
}

/// Asks, and is told when the domain is suspended; and asks again in the new one.
async fn ask(env: Env, server: DomId) {
    let path = format!("/local/domain/{}/data/vchan/echo", server.0);
    for last in [false, true] {
        let vchan = env.vchans().unwrap().connect(server, &path).await.unwrap();
        vchan.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 100];
        assert_eq!(vchan.read(&mut buffer).await, Ok(5));
        assert_eq!(&buffer[..5], b"hello");
        if !last {
            assert_eq!(vchan.read(&mut buffer).await, Err(Error::Closed));
            assert!(!vchan.is_open());
            env.sleep(SECOND).await; // until the server has noticed, and listens again
        }
    }
}

#[test]
fn a_suspend_closes_a_vchan_and_nothing_else() {
    fata_sim::check(0..50, |sim| {
        for outcome in [Suspended::Restored, Suspended::Cancelled] {
            let (server, client) = (sim.domain("server"), sim.domain("client"));
            // The next number is that of the client when it goes on.
            let next = match outcome {
                Suspended::Restored => DomId(client.id().0 + 1),
                Suspended::Cancelled => client.id(),
            };
            let (clients, server_id) = ([client.id(), next], server.id());
            boot(sim, &server, move |env| answer(env, clients));
            boot(sim, &client, move |env| ask(env, server_id));
            sim.run_for(5 * SECOND);
            sim.suspend(&client, outcome);
            let ended = || server.shutdown_reason().and(client.shutdown_reason()).is_some();
            sim.run_until(ended, 60 * SECOND);
            for domain in [&server, &client] {
                sim.remove_guest(domain);
            }
            for domain in [&server, &client] {
                sim.assert_no_leaks(domain);
            }
        }
    });
}
