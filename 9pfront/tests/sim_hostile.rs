//! Backends that break the rules, die, hang, and are started anew.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::{Env, SECOND, boot, bytes, finish};
use fata_9pfront::{Error, Fault, Share};
use fata_sim::{Domain, P9Back, P9Config, P9Trick, Sim, check};

/// Works until something goes wrong, and says what.
async fn until_it_fails(share: &Share) -> Error {
    share.connected().await;
    loop {
        let work = async {
            share.write("file", &bytes(1, 9000)).await?;
            share.read("file", 1 << 20).await?;
            let mut directory = share.read_dir("").await?;
            while directory.next().await?.is_some() {}
            share.metadata("file").await
        };
        match work.await {
            // A hostile backend may answer with any error, and be within its rights.
            Ok(_) | Err(Error::Refused(_)) => {}
            Err(error) => return error,
        }
    }
}

/// Has a backend do one thing that none may do, and gives the error that follows, after which all is well again.
fn after(sim: &Sim, trick: &'static [P9Trick]) -> Error {
    let domain = sim.domain("guest");
    let back = sim.add_share(&domain, P9Config::default());
    let seen = Rc::new(RefCell::new(None));
    let (slot, switch) = (Rc::clone(&seen), back.clone());
    let program = boot(sim, &domain, |env: Env| async move {
        env.share.connected().await;
        switch.set_malice(20, trick);
        slot.replace(Some(until_it_fails(&env.share).await));
        switch.set_malice(0, &[]);
        goes_on(&env.share).await;
    });
    finish(sim, &domain, &program);
    seen.take().unwrap()
}

async fn goes_on(share: &Share) {
    share.connected().await;
    share.write("again", b"well").await.unwrap();
    assert_eq!(share.read("again", 1 << 20).await.unwrap(), b"well");
}

#[test]
fn a_fault_has_a_name_and_costs_one_connection() {
    check(0..50, |sim| {
        let error = after(sim, &[P9Trick::Size]);
        assert!(
            matches!(error, Error::Fault(Fault::Size(size)) if !(7..=32_768).contains(&size)),
            "{error}"
        );
        let error = after(sim, &[P9Trick::Tag]);
        assert!(matches!(error, Error::Fault(Fault::Tag(100..))), "{error}");
        let error = after(sim, &[P9Trick::Twice]);
        assert!(matches!(error, Error::Fault(Fault::Tag(_))), "{error}");
        let error = after(sim, &[P9Trick::Kind]);
        // By chance it is the number of an error, whose fields then are none.
        assert!(
            matches!(error, Error::Fault(Fault::Kind { .. } | Fault::Malformed(_))),
            "{error}"
        );
        let error = after(sim, &[P9Trick::Index]);
        assert!(matches!(error, Error::Fault(Fault::Index(_))), "{error}");
        assert_eq!(after(sim, &[P9Trick::Close]), Error::Closed);
    });
}

#[test]
fn fields_that_make_no_sense_are_a_fault() {
    check(0..50, |sim| {
        let error = after(sim, &[P9Trick::Fields]);
        assert!(matches!(error, Error::Fault(Fault::Malformed(_))), "{error}");
    });
}

/// Order and references are the frontend's own, and what stands in the page of them is nobody's business any more.
#[test]
fn rule_29_order_and_references_are_not_read_back() {
    check(0..50, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, P9Config::default());
        back.set_malice(1, &[P9Trick::Scribble]);
        let program = boot(sim, &domain, |env: Env| async move {
            env.share.connected().await;
            env.share.write("file", &bytes(1, 50_000)).await.unwrap();
            assert_eq!(env.share.read("file", 1 << 20).await.unwrap(), bytes(1, 50_000));
        });
        finish(sim, &domain, &program);
        assert!(back.tricks() > 10);
    });
}

/// Any trick at any time: nothing panics, nothing is left, and all is well once the backend is honest.
#[test]
fn any_trick_is_survived() {
    check(0..300, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, P9Config::default());
        back.write("file", &bytes(1, 9000));
        let one_in = 1 + sim.random(60);
        back.set_malice(one_in, &P9Trick::ALL);
        let switch = back.clone();
        let program = boot(sim, &domain, |env: Env| async move {
            for _ in 0..6 {
                let (share, handle) = (env.share.clone(), env.handle.clone());
                let work = async move { until_it_fails(&share).await };
                let _ = handle.timeout(SECOND / 2, work).await;
            }
            switch.set_malice(0, &[]);
            // Whatever it has not answered it never will.
            switch.restart();
            env.handle.sleep(SECOND).await;
            goes_on_at_last(&env, &switch).await;
        });
        finish(sim, &domain, &program);
    });
}

/// The same, where the connection may be about to end for what was before.
async fn goes_on_at_last(env: &Env, back: &P9Back) {
    for _ in 0..300 {
        let work = async {
            env.share.connected().await;
            env.share.write("again", b"well").await?;
            env.share.read("again", 1 << 20).await
        };
        match env.handle.timeout(SECOND, work).await {
            Ok(Ok(read)) => return assert_eq!(read, b"well"),
            Ok(Err(_)) | Err(_) => env.handle.sleep(SECOND).await,
        }
    }
    panic!("it does not go on: {:?}, {back:?}", env.share);
}

fn boot_with_open_file(
    sim: &Sim,
    domain: &Domain,
    back: &P9Back,
    then: impl AsyncFnOnce(Env) + 'static,
) -> common::Ended {
    back.write("file", b"text");
    boot(sim, domain, |env: Env| async move {
        env.share.connected().await;
        let file = env.share.open("file").await.unwrap();
        then(env.clone()).await;
        let stale = file.read_at(0, &mut [0; 4]).await;
        assert_eq!(stale, Err(Error::Stale));
        assert_eq!(env.share.read("file", 1 << 20).await.unwrap(), b"text");
    })
}

#[test]
fn rule_81_who_waits_notices_that_the_backend_is_dead() {
    check(0..50, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, P9Config::default());
        let killer = back.clone();
        let program = boot_with_open_file(sim, &domain, &back, async move |env: Env| {
            killer.crash();
            let began = env.handle.now();
            assert_eq!(env.share.read("file", 1 << 20).await, Err(Error::Gone));
            assert!(env.handle.now() - began < 3 * SECOND);
            assert_eq!(env.share.problem(), Some(Error::Gone));
            assert_eq!(
                env.share.read("file", 1 << 20).await,
                Err(Error::Gone),
                "at once from now on"
            );
            killer.restart();
            env.share.connected().await;
        });
        finish(sim, &domain, &program);
    });
}

/// Its own requests, which come more often than the backend is looked after, do not hide that it is dead.
#[test]
fn rule_81_who_keeps_asking_notices_it_too() {
    check(0..20, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, P9Config::default());
        let program = boot(sim, &domain, |env: Env| async move {
            env.share.connected().await;
            back.crash();
            let began = env.handle.now();
            while env.share.is_connected() {
                let _ = env.handle.timeout(SECOND / 3, env.share.metadata("file")).await;
            }
            assert!(env.handle.now() - began < 3 * SECOND);
        });
        finish(sim, &domain, &program);
    });
}

/// The same connection, as the store has it, and another server.
#[test]
fn rule_72_a_backend_that_was_started_anew_is_noticed() {
    check(0..100, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, P9Config::default());
        let other = back.clone();
        let program = boot_with_open_file(sim, &domain, &back, async move |env: Env| {
            other.restart();
            let changed = env.handle.timeout(30 * SECOND, async {
                while env.share.is_connected() {
                    env.handle.sleep(SECOND / 100).await;
                }
            });
            assert_eq!(changed.await, Ok(()), "it was not noticed");
            env.share.connected().await;
        });
        finish(sim, &domain, &program);
        assert!(back.connects() > 1);
    });
}

/// A backend that takes requests and says nothing is waited for. What was taken back is over for the program at once.
#[test]
fn rule_77_a_silent_backend_blocks_nobody_who_has_a_limit() {
    check(0..50, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, P9Config::default());
        let hung = back.clone();
        let program = boot(sim, &domain, |env: Env| async move {
            env.share.connected().await;
            hung.set_silent(true);
            for _ in 0..100 {
                let work = env.share.write("file", &[0; 5000]);
                assert!(env.handle.timeout(SECOND / 10, work).await.is_err());
            }
            assert!(env.share.is_connected(), "it lives, for all that is known");
            hung.set_silent(false);
            goes_on(&env.share).await;
            env.handle.sleep(SECOND).await;
        });
        let mut fids = 0;
        sim.run_until(
            || {
                fids = if back.is_connected() { back.fids() } else { fids };
                program.get()
            },
            60 * SECOND,
        );
        assert_eq!(fids, 1, "only the root directory is left");
        finish(sim, &domain, &program);
    });
}

#[test]
fn a_backend_that_offers_nonsense_is_a_problem_and_no_more() {
    check(0..20, |sim| {
        for (key, value, expected) in [
            ("versions", "2,3", Error::NoVersion),
            ("max-rings", "0", Error::BadKey("max-rings")),
            ("max-ring-page-order", "none", Error::BadKey("max-ring-page-order")),
            ("max-ring-page-order", "0", Error::BadKey("max-ring-page-order")),
        ] {
            let domain = sim.domain("guest");
            let back = sim.add_share(&domain, P9Config::default());
            back.set_key(key, value);
            let program = boot(sim, &domain, |env: Env| async move {
                while env.share.problem().is_none() {
                    env.handle.sleep(SECOND / 100).await;
                }
                assert_eq!(env.share.problem(), Some(expected));
                assert_eq!(env.share.read("file", 1 << 20).await, Err(expected));
            });
            finish(sim, &domain, &program);
        }
    });
}

#[test]
fn rule_26_want_of_memory_or_ports_is_an_error() {
    use fata_hypercall::Errno;
    use fata_sim::Call;
    check(0..20, |sim| {
        for call in [Call::AllocPages, Call::EvtchnAlloc] {
            let domain = sim.domain("guest");
            let _back = sim.add_share(&domain, P9Config::default());
            domain.faults().fail(call, 1, Errno::ENOSPC);
            let program = boot(sim, &domain, |env: Env| async move {
                while env.share.problem().is_none() {
                    env.handle.sleep(SECOND / 100).await;
                }
                let problem = env.share.problem();
                assert!(
                    matches!(problem, Some(Error::Grant(_) | Error::Event(_))),
                    "{problem:?}"
                );
                goes_on(&env.share).await; // a second later
            });
            finish(sim, &domain, &program);
        }
    });
}
