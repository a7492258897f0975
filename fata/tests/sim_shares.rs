//! Programs that use a directory of the host's, some of which are saved and restored.

use std::rc::Rc;
use std::time::Duration;

use fata::p9::Error;
use fata::stats::Memory;
use fata::xen::{Facts, start};
use fata::{Env, LifecycleEvent};
use fata_hypercall::Suspended;
use fata_sim::{Domain, P9Config, Sim, check};

const SECOND: Duration = Duration::from_secs(1);

/// Between two writes: in a simulated second there is room for more of them than anybody wants to wait for.
const PAUSE: Duration = Duration::from_micros(200);

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

fn finish(sim: &Sim, domain: &Domain) {
    sim.run_until(|| domain.shutdown_reason().is_some(), 30 * SECOND);
    sim.remove_guest(domain);
    sim.assert_no_leaks(domain);
}

fn config(tag: &str) -> P9Config {
    P9Config {
        tag: tag.to_owned(),
        ..P9Config::default()
    }
}

#[test]
fn shares_are_found_by_their_tags() {
    check(0..50, |sim| {
        let domain = sim.domain("guest");
        let (one, two) = (
            sim.add_share(&domain, config("one")),
            sim.add_share(&domain, config("two")),
        );
        boot(sim, &domain, async |env| {
            for tag in ["two", "one"] {
                env.share(tag)
                    .await
                    .unwrap()
                    .write("tag", tag.as_bytes())
                    .await
                    .unwrap();
            }
            assert_eq!(env.share("three").await.unwrap_err(), Error::NoDevice);
        });
        finish(sim, &domain);
        assert_eq!(one.read("tag").as_deref(), Some(&b"one"[..]));
        assert_eq!(two.read("tag").as_deref(), Some(&b"two"[..]));
    });
}

/// What was under way fails, what was open is stale, and the share goes on.
#[test]
fn rule_72_a_share_goes_on_in_a_new_domain() {
    check(0..100, |sim| {
        for outcome in [Suspended::Restored, Suspended::Cancelled] {
            let domain = sim.domain("guest");
            let back = sim.add_share(&domain, config("share"));
            let restored = outcome == Suspended::Restored;
            boot(sim, &domain, async move |env| {
                let mut lifecycle = env.lifecycle();
                let share = env.share("share").await.unwrap();
                let file = share.create("file").await.unwrap();
                file.write_all_at(0, &[1; 5000]).await.unwrap();
                let writer = env.spawn({
                    let (share, env) = (share.clone(), env.clone());
                    async move {
                        loop {
                            match share.write("many", &[2; 3000]).await {
                                // It may go on before anybody notices.
                                Ok(()) => {}
                                Err(error) => assert!(restored && matches!(error, Error::Closed | Error::Stale)),
                            }
                            env.sleep(PAUSE).await;
                        }
                    }
                });
                while !matches!(
                    lifecycle.next().await,
                    LifecycleEvent::Resumed | LifecycleEvent::Cancelled
                ) {}
                if restored {
                    assert!(matches!(
                        file.read_at(0, &mut [0; 10]).await,
                        Err(Error::Closed | Error::Stale)
                    ));
                    share.connected().await;
                    assert_eq!(file.read_at(0, &mut [0; 10]).await, Err(Error::Stale));
                } else {
                    assert_eq!(file.read_at(0, &mut [0; 10]).await, Ok(10));
                }
                drop(writer);
                assert_eq!(share.read("file", 1 << 20).await.unwrap(), [1; 5000]);
                share.write("after", b"the restore").await.unwrap();
            });
            sim.run_until(|| back.read("many").is_some(), 10 * SECOND);
            sim.run_for(Duration::from_micros(20_000 + sim.random(1000)));
            sim.suspend(&domain, outcome);
            finish(sim, &domain);
            assert_eq!(back.read("after").as_deref(), Some(&b"the restore"[..]));
        }
    });
}

/// Saved and restored at any moment: in the handshake, before it, in the middle of a request, while it takes leave.
#[test]
fn rule_72_a_restore_at_any_moment_loses_nothing() {
    check(0..300, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, config("share"));
        boot(sim, &domain, async |env| {
            let share = env.share("share").await.unwrap();
            for number in 0..20_u8 {
                while let Err(error) = share.write("number", &[number; 9000]).await {
                    assert!(matches!(error, Error::Closed | Error::Stale), "{error}");
                    share.connected().await;
                }
                env.sleep(PAUSE).await;
            }
        });
        for _ in 0..2 {
            sim.run_for(Duration::from_micros(sim.random(15_000)));
            sim.suspend(&domain, Suspended::Restored);
        }
        finish(sim, &domain);
        assert_eq!(back.read("number"), Some(vec![19; 9000]));
    });
}
