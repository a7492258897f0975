//! A frontend's nodes, driven by the table, against a small server and a backend played by hand.

mod common;

use core::time::Duration;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use common::Rig;
use fata_events::JoinHandle;
use fata_hypercall::{DomId, Errno};
use fata_xenstore::Error;
use fata_xenstore::xenbus::{Frontend, Limits, State, Step};

const FRONT: &str = "device/vif/0";
const BACK: &str = "/local/domain/0/backend/vif/5/0";
const OTHER: &str = "/local/domain/3/backend/vif/5/0";

/// What a toolstack writes for a new device.
fn attach(rig: &mut Rig, backend: &str, own: &str, state: &str) {
    let server = &mut rig.server;
    server.set(&format!("{backend}/state"), state);
    server.set(&format!("{FRONT}/backend-id"), if backend == BACK { "0" } else { "3" });
    server.set(&format!("{FRONT}/state"), own);
    server.set(&format!("{FRONT}/backend"), backend);
}

fn backend(rig: &mut Rig, state: &str) {
    rig.server.set(&format!("{BACK}/state"), state);
    rig.settle();
}

fn own(rig: &Rig) -> &str {
    rig.server.get("device/vif/0/state").unwrap_or("removed")
}

type Steps = Rc<RefCell<Vec<Step>>>;

/// A driver with one step, as a network interface is. It writes down what it was told.
fn drive(rig: &Rig) -> (JoinHandle<Result<(), Error>>, Steps) {
    let steps = Steps::default();
    let (store, log) = (rig.client(), Rc::clone(&steps));
    let driver = async move {
        let mut frontend = Frontend::appear(&store, "vif", 0).await?;
        serve(&mut frontend, &log).await
    };
    (rig.handle().spawn(driver), steps)
}

async fn serve(frontend: &mut Frontend, log: &Steps) -> Result<(), Error> {
    loop {
        let step = frontend.next().await?;
        log.borrow_mut().push(step);
        match step {
            Step::Connect => {
                let keys = [
                    ("tx-ring-ref", Some("8".to_string())),
                    ("peer", Some(frontend.backend_id().0.to_string())),
                    ("other-ring-ref", None),
                ];
                frontend.switch(State::Connected, &keys).await?;
            }
            Step::Disconnect => frontend.set_state(State::Closed).await?,
            Step::Ready | Step::GiveUp => {}
            Step::Finish => return Ok(()),
        }
    }
}

fn taken(steps: &Steps) -> Vec<Step> {
    steps.borrow_mut().drain(..).collect()
}

#[test]
fn a_device_connects_and_ends_when_its_backend_does() {
    let mut rig = Rig::new();
    let (driver, steps) = drive(&rig);
    rig.settle();
    assert_eq!(taken(&steps), [], "there is no device yet (rule 68)");
    attach(&mut rig, BACK, "1", "1");
    rig.server.set("device/vif/0/other-ring-ref", "9");
    rig.settle();
    assert_eq!(taken(&steps), [], "the backend is not ready (rule 40)");
    backend(&mut rig, "2");
    assert_eq!(taken(&steps), [Step::Connect]);
    assert_eq!(
        (own(&rig), rig.server.get("device/vif/0/tx-ring-ref")),
        ("4", Some("8"))
    );
    assert_eq!(rig.server.get("device/vif/0/other-ring-ref"), None, "of a former life");
    backend(&mut rig, "4");
    assert_eq!(taken(&steps), [Step::Ready]);
    backend(&mut rig, "4");
    assert_eq!(taken(&steps), [Step::Ready], "its parameters have changed");
    backend(&mut rig, "5");
    assert_eq!(taken(&steps), [Step::Disconnect]);
    assert_eq!(own(&rig), "6");
    backend(&mut rig, "6");
    assert_eq!(taken(&steps), []);
    backend(&mut rig, "2");
    assert_eq!(taken(&steps), [Step::Connect], "plugged in again");
    backend(&mut rig, "4");
    assert_eq!(taken(&steps), [Step::Ready]);
    rig.server.remove(FRONT);
    assert_eq!(rig.finish(driver), Ok(()));
    assert_eq!(taken(&steps), [Step::Finish]);
    assert_eq!(own(&rig), "removed", "a removed device does not rise from the dead");
    rig.settle();
    assert_eq!(rig.server.watches.len(), 0);
    assert_eq!(rig.server.open_transactions(), 0);
}

#[test]
fn keys_and_state_are_one_change() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    rig.server.refuse_commits = 1000;
    let (driver, steps) = drive(&rig);
    assert_eq!(rig.finish(driver), Err(Error::Contended));
    assert_eq!(taken(&steps), [Step::Connect]);
    assert_eq!((own(&rig), rig.server.get("device/vif/0/tx-ring-ref")), ("1", None));
}

#[test]
fn a_backend_may_skip_states_rule_71() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let (driver, steps) = drive(&rig);
    rig.settle();
    backend(&mut rig, "4");
    assert_eq!(taken(&steps), [Step::Connect, Step::Ready]);
    backend(&mut rig, "6"); // Closed without Closing
    assert_eq!((taken(&steps), own(&rig)), (vec![Step::Disconnect], "6"));
    backend(&mut rig, "2");
    backend(&mut rig, "4");
    assert_eq!(taken(&steps), [Step::Connect, Step::Ready]);
    rig.server.remove(BACK); // gone without a word
    rig.settle();
    assert_eq!((taken(&steps), own(&rig)), (vec![Step::Disconnect], "6"));
    drop(driver);
    rig.settle();
    assert_eq!(rig.server.watches.len(), 0);
}

#[test]
fn a_backend_that_writes_nonsense_counts_as_gone_rule_69() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let (_driver, steps) = drive(&rig);
    rig.settle();
    backend(&mut rig, "4");
    backend(&mut rig, "four");
    assert_eq!(taken(&steps), [Step::Connect, Step::Ready, Step::Disconnect]);
}

#[test]
fn what_a_life_before_left_is_closed_first() {
    for left in ["4", "3", "5", "6", "2", "7", "8"] {
        let mut rig = Rig::new();
        attach(&mut rig, BACK, left, "4");
        let (_driver, steps) = drive(&rig);
        rig.settle();
        if left != "6" {
            assert_eq!((own(&rig), taken(&steps)), ("5", vec![]), "found in {left}");
            backend(&mut rig, "5");
            assert_eq!((own(&rig), taken(&steps)), ("6", vec![Step::Disconnect]));
        }
        backend(&mut rig, "6");
        assert_eq!((own(&rig), taken(&steps)), ("1", vec![]));
        backend(&mut rig, "2");
        assert_eq!((own(&rig), taken(&steps)), ("4", vec![Step::Connect]));
    }
}

#[test]
fn a_backend_that_does_not_let_go_is_waited_for_boundedly_rule_77() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "4", "4");
    let start = rig.handle().now();
    let store = rig.client();
    let step = rig.run(async move {
        let mut frontend = Frontend::open(&store, "vif", 0).await?;
        frontend.next().await
    });
    assert_eq!(step, Ok(Step::Disconnect));
    assert_eq!(rig.handle().now() - start, Limits::default().close);
}

#[test]
fn a_backend_that_never_connects_is_given_up_rules_76_and_77() {
    for (state, first) in [("1", None), ("2", Some(Step::Connect))] {
        let mut rig = Rig::new();
        attach(&mut rig, BACK, "1", state);
        let start = rig.handle().now();
        let store = rig.client();
        let steps = rig.run(async move {
            let mut frontend = Frontend::open(&store, "vif", 0).await?;
            frontend.set_limits(Limits {
                connect: Duration::from_secs(3),
                ..Limits::default()
            });
            let mut steps = Vec::new();
            loop {
                let step = frontend.next().await?;
                steps.push(step);
                match step {
                    Step::Connect => frontend.set_state(State::Connected).await?,
                    Step::GiveUp => frontend.fatal("nobody there").await?,
                    Step::Disconnect => frontend.set_state(State::Closed).await?,
                    Step::Finish => return Ok::<_, Error>(steps),
                    Step::Ready => {}
                }
            }
        });
        let last = [Step::GiveUp, Step::Disconnect, Step::Finish];
        assert_eq!(steps, Ok(first.into_iter().chain(last).collect()));
        assert_eq!(rig.handle().now() - start, Duration::from_secs(3));
        assert_eq!(rig.server.get("error/device/vif/0/error"), Some("nobody there"));
        assert_eq!(own(&rig), "6");
    }
}

/// A backend that is busy all the time, and never does its part.
#[test]
fn rule_76_a_backend_that_writes_without_end_is_given_up_all_the_same() {
    for (own, backend, expected) in [("1", "1", Step::GiveUp), ("4", "4", Step::Disconnect)] {
        let mut rig = Rig::new();
        attach(&mut rig, BACK, own, backend);
        let (start, store) = (rig.handle().now(), rig.client());
        let task = rig.handle().spawn(async move {
            let mut frontend = Frontend::open(&store, "vif", 0).await?;
            frontend.next().await
        });
        rig.settle();
        while !task.is_finished() {
            rig.clock.advance(Duration::from_millis(900));
            // Faster than anybody can look.
            for _ in 0..50 {
                rig.server.set(&format!("{BACK}/state"), backend);
                rig.turn();
            }
            assert!(rig.handle().now() - start < Duration::from_secs(60), "{expected:?}");
        }
        assert_eq!(rig.finish(task), Ok(expected));
        let Limits { connect, close } = Limits::default();
        let limit = if expected == Step::GiveUp { connect } else { close };
        let took = rig.handle().now() - start;
        assert!((limit..limit + Duration::from_secs(1)).contains(&took), "{took:?}");
    }
}

/// Each round trip is a switch to the store's domain and back.
#[test]
fn what_does_not_depend_on_each_other_is_asked_for_together() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    rig.server.automatic = false;
    let (_driver, steps) = drive(&rig);
    let mut round_trips = 0;
    loop {
        rig.settle();
        let letters = core::mem::take(&mut rig.server.inbox);
        if letters.is_empty() {
            break;
        }
        round_trips += 1;
        for letter in &letters {
            rig.server.answer(letter);
        }
    }
    assert_eq!((own(&rig), taken(&steps)), ("4", vec![Step::Connect]));
    // The directory's watch fires; our nodes; theirs; begin, write, commit; and one more look.
    assert_eq!(round_trips, 7);
}

#[test]
fn giving_up_may_be_ignored() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "1");
    let store = rig.client();
    let steps = rig.run(async move {
        let mut frontend = Frontend::open(&store, "vif", 0).await?;
        Ok::<_, Error>([frontend.next().await?, frontend.next().await?])
    });
    assert_eq!(
        steps,
        Ok([Step::GiveUp, Step::GiveUp]),
        "once per limit, not in a circle"
    );
}

#[test]
fn our_own_wish_to_end_goes_by_closing_and_closed() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let store = rig.client();
    let (stop, stopped) = (fata_events::Signal::new(), Steps::default());
    let (wish, log) = (stop.clone(), Rc::clone(&stopped));
    let driver = rig.handle().spawn(async move {
        let mut frontend = Frontend::open(&store, "vif", 0).await?;
        let _ = fata_events::select::select(serve(&mut frontend, &Steps::default()), wish.after(0)).await;
        frontend.stop();
        serve(&mut frontend, &log).await
    });
    rig.settle();
    backend(&mut rig, "4");
    stop.raise();
    rig.settle();
    assert_eq!(
        (own(&rig), taken(&stopped)),
        ("5", vec![]),
        "what the backend uses is not taken away under it"
    );
    backend(&mut rig, "5");
    assert_eq!(
        (own(&rig), taken(&stopped)),
        ("6", vec![Step::Disconnect, Step::Finish])
    );
    assert_eq!(rig.finish(driver), Ok(()));
}

/// A backend that was started anew may have taken the end of its former life's connection for its own: while the toolstack
/// wants the device, it is offered again.
#[test]
fn a_closed_device_is_offered_again_while_it_is_wanted() {
    for (online, pauses, state) in [(None, 10, "6"), (Some("0"), 10, "6"), (Some("1"), 1, "1")] {
        let mut rig = Rig::new();
        if let Some(online) = online {
            rig.server.set(&format!("{BACK}/online"), online);
        }
        attach(&mut rig, BACK, "1", "2");
        let (_driver, steps) = drive(&rig);
        rig.settle();
        for state in ["4", "5", "6"] {
            backend(&mut rig, state);
        }
        assert_eq!(taken(&steps), [Step::Connect, Step::Ready, Step::Disconnect]);
        for _ in 0..pauses {
            rig.clock.advance(Limits::default().close);
            rig.settle();
        }
        assert_eq!((own(&rig), taken(&steps)), (state, vec![]), "{online:?}");
        backend(&mut rig, "2");
        assert_eq!((own(&rig), taken(&steps)), ("4", vec![Step::Connect]));
    }
}

/// Neither forgets that it shall end, nor takes the new backend's past for its own.
#[test]
fn a_device_that_moves_while_it_is_stopped_or_to_a_closed_backend() {
    for stopped in [true, false] {
        let mut rig = Rig::new();
        attach(&mut rig, BACK, "1", "2");
        let store = rig.client();
        let (stop, steps) = (fata_events::Signal::new(), Steps::default());
        let (wish, log) = (stop.clone(), Rc::clone(&steps));
        let driver = rig.handle().spawn(async move {
            let mut frontend = Frontend::open(&store, "vif", 0).await?;
            let _ = fata_events::select::select(serve(&mut frontend, &log), wish.after(0)).await;
            frontend.stop();
            serve(&mut frontend, &log).await
        });
        rig.settle();
        backend(&mut rig, "4");
        assert_eq!(taken(&steps), [Step::Connect, Step::Ready]);
        if stopped {
            stop.raise();
            rig.settle();
        }
        attach(&mut rig, OTHER, "1", "6");
        rig.settle();
        backend(&mut rig, "6");
        assert_eq!(taken(&steps)[0], Step::Disconnect);
        if stopped {
            assert_eq!(rig.finish(driver), Ok(()));
        } else {
            assert_eq!(own(&rig), "1", "it waits for the new backend");
            rig.server.set(&format!("{OTHER}/state"), "2");
            rig.settle();
            assert_eq!((own(&rig), taken(&steps)), ("4", vec![Step::Connect]));
        }
    }
}

#[test]
fn a_fatal_error_of_a_closed_device_leaves_it_closed() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "6", "6");
    let store = rig.client();
    let step = rig.run(async move {
        let mut frontend = Frontend::open(&store, "vif", 0).await?;
        frontend.fatal("out of order").await?;
        frontend.next().await
    });
    assert_eq!(step, Ok(Step::Finish));
    assert_eq!(own(&rig), "6");
    assert_eq!(rig.server.get("error/device/vif/0/error"), Some("out of order"));
}

/// A state that is there already costs nothing; one of which that is not known is written.
#[test]
fn a_state_is_written_when_it_is_not_there_or_not_known_to_be() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let store = rig.client();
    let (done, before_last) = rig.run(async move {
        let mut frontend = Frontend::open(&store, "vif", 0).await.unwrap();
        frontend.set_state(State::Closing).await.unwrap();
        let written = store.stats().requests;
        frontend.set_state(State::Closing).await.unwrap();
        assert_eq!(store.stats().requests, written);
        {
            let mut half = std::pin::pin!(frontend.set_state(State::Closed));
            assert!(common::now(half.as_mut()).is_none(), "asked for, and dropped");
        }
        let before = store.stats().requests;
        frontend.set_state(State::Closing).await.unwrap();
        (store.stats().requests, before)
    });
    assert!(done > before_last);
    assert_eq!(own(&rig), "5");
}

#[test]
fn a_device_that_moves_to_another_backend_is_connected_there() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let (_driver, steps) = drive(&rig);
    rig.settle();
    backend(&mut rig, "4");
    assert_eq!(taken(&steps), [Step::Connect, Step::Ready]);
    // Another driver domain; the toolstack describes the device anew.
    attach(&mut rig, OTHER, "1", "2");
    rig.settle();
    assert_eq!(taken(&steps), [Step::Disconnect, Step::Connect]);
    assert_eq!((own(&rig), rig.server.get("device/vif/0/peer")), ("4", Some("3")));
    rig.server.set(&format!("{OTHER}/state"), "4");
    rig.settle();
    assert_eq!(taken(&steps), [Step::Ready]);
    backend(&mut rig, "6");
    assert_eq!(taken(&steps), [], "what the old backend does is its own business");
    let watched: Vec<_> = rig
        .server
        .watches
        .iter()
        .filter(|(path, _)| path.ends_with("/state"))
        .collect();
    assert_eq!(watched.len(), 1, "and nobody watches it: {watched:?}");
}

#[test]
fn a_device_that_is_removed_and_comes_back_at_once_starts_anew() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let (_driver, steps) = drive(&rig);
    rig.settle();
    backend(&mut rig, "4");
    assert_eq!(taken(&steps), [Step::Connect, Step::Ready]);
    rig.server.remove(FRONT);
    rig.server.remove(BACK);
    attach(&mut rig, BACK, "1", "2"); // before the driver looks
    rig.settle();
    assert_eq!(taken(&steps), [Step::Disconnect, Step::Connect]);
    assert_eq!(own(&rig), "4");
}

#[test]
fn a_removed_device_does_not_rise_from_the_dead() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let store = rig.client();
    let mut frontend = rig.run(async move { Frontend::open(&store, "vif", 0).await }).unwrap();
    rig.server.remove(FRONT);
    let (state, step) = rig.run(async move {
        frontend
            .switch(State::Connected, &[("tx-ring-ref", Some("8"))])
            .await
            .unwrap();
        (frontend.state(), frontend.next().await)
    });
    assert_eq!((state, step), (State::Unknown, Ok(Step::Finish)));
    assert!(rig.server.nodes.keys().all(|path| !path.starts_with(FRONT)));
}

#[test]
fn no_state_is_written_twice() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let (_driver, _steps) = drive(&rig);
    rig.settle();
    for _ in 0..5 {
        backend(&mut rig, "4");
    }
    backend(&mut rig, "5");
    backend(&mut rig, "6");
    let states: Vec<_> = rig
        .server
        .log
        .iter()
        .filter(|(path, _)| path == "device/vif/0/state")
        .collect();
    assert_eq!(states.len(), 2, "Connected and Closed: {states:?}");
}

/// Cancels `next` after every possible number of turns, and asks again.
#[test]
fn a_dropped_wait_loses_nothing_rule_59() {
    for turns in 0..60 {
        let mut rig = Rig::new();
        attach(&mut rig, BACK, "4", "4"); // a reset lies ahead: writes, not only reads
        let store = rig.client();
        let mut frontend = rig.run(async move { Frontend::open(&store, "vif", 0).await }).unwrap();
        let cell = Rc::new(RefCell::new(None));
        let back = Rc::clone(&cell);
        let (stop, stopped) = (fata_events::Signal::new(), fata_events::Signal::new());
        let (wish, done) = (stop.clone(), stopped.clone());
        let task = rig.handle().spawn(async move {
            let early = match fata_events::select::select(frontend.next(), wish.after(0)).await {
                fata_events::select::Either::First(step) => Some(step),
                fata_events::select::Either::Second(_) => None,
            };
            *back.borrow_mut() = Some(frontend);
            done.raise();
            early
        });
        for _ in 0..turns {
            rig.server.turn();
            rig.ports.dispatch();
            rig.executor.turn();
        }
        stop.raise();
        assert_eq!(rig.finish(task), None);
        assert_eq!(stopped.count(), 1);
        let mut frontend = cell.borrow_mut().take().unwrap();
        let task = rig.handle().spawn(async move { frontend.next().await });
        rig.settle();
        assert_eq!((own(&rig), task.is_finished()), ("5", false), "after {turns} turns");
        backend(&mut rig, "5");
        assert_eq!(rig.finish(task), Ok(Step::Disconnect), "after {turns} turns");
        rig.settle();
        assert_eq!(rig.server.open_transactions(), 0, "after {turns} turns");
    }
}

#[test]
fn a_missing_device_is_an_error_and_never_another_one_rule_74() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "2");
    let store = rig.client();
    let error = rig.run(async move { Frontend::open(&store, "vif", 1).await.map(|_| ()) });
    assert_eq!(error, Err(Error::Refused(Errno::ENOENT)));
    rig.settle();
    assert_eq!(rig.server.watches.len(), 0);
}

#[test]
fn nodes_that_make_no_sense_are_an_error_rule_69() {
    for (key, value) in [
        ("state", "10"),
        ("state", ""),
        ("backend-id", "-1"),
        ("backend-id", "32752"),
        ("backend", "a b"),
    ] {
        let mut rig = Rig::new();
        attach(&mut rig, BACK, "1", "2");
        rig.server.set(&format!("{FRONT}/{key}"), value);
        let store = rig.client();
        let errors = rig.run(async move {
            let opened = Frontend::open(&store, "vif", 0).await.map(|_| ());
            [opened, Frontend::appear(&store, "vif", 0).await.map(|_| ())]
        });
        assert!(
            matches!(errors, [Err(Error::BadValue | Error::BadPath), Err(_)]) && errors[0] == errors[1],
            "{key}={value}: {errors:?}"
        );
    }
}

#[test]
fn waiting_for_a_backend_ends_with_it_and_with_the_limit_rule_76() {
    let second = Duration::from_secs(1);
    for (state, expected) in [
        ("4", Ok(State::Connected)),
        ("5", Err(Error::Backend(State::Closing))),
        ("6", Err(Error::Backend(State::Closed))),
        ("", Err(Error::Backend(State::Unknown))),
        ("3", Err(Error::TimedOut)),
    ] {
        let mut rig = Rig::new();
        attach(&mut rig, BACK, "1", "2");
        let store = rig.client();
        let task = rig.handle().spawn(async move {
            let mut frontend = Frontend::open(&store, "vif", 0).await?;
            frontend.wait_for_backend(&[State::Connected], second).await
        });
        rig.settle();
        if state.is_empty() {
            rig.server.remove(BACK);
        } else {
            backend(&mut rig, state);
        }
        assert_eq!(rig.finish(task), expected);
    }
}

#[test]
fn domain_identity_comes_with_the_device() {
    let mut rig = Rig::new();
    attach(&mut rig, OTHER, "1", "2");
    let store = rig.client();
    let frontend = rig.run(async move { Frontend::open(&store, "vif", 0).await }).unwrap();
    assert_eq!(
        (frontend.backend_id(), frontend.backend_path(), frontend.path()),
        (DomId(3), OTHER, FRONT)
    );
    assert_eq!(frontend.backend_key("mac"), format!("{OTHER}/mac"));
    assert_eq!(frontend.key("mac"), "device/vif/0/mac");
}

/// A device with two steps, as a disk is.
#[test]
fn a_device_with_two_steps_is_ready_once() {
    let mut rig = Rig::new();
    attach(&mut rig, BACK, "1", "3"); // a backend that negotiates nothing goes straight to Initialised
    let store = rig.client();
    let steps = Steps::default();
    let log = Rc::clone(&steps);
    let _driver = rig.handle().spawn(async move {
        let mut frontend = Frontend::open(&store, "vif", 0).await?;
        loop {
            let step = frontend.next().await?;
            log.borrow_mut().push(step);
            match step {
                Step::Connect => frontend.switch(State::Initialised, &[("ring-ref", Some("8"))]).await?,
                Step::Ready => frontend.switch::<&str, &str>(State::Connected, &[]).await?,
                Step::Disconnect => frontend.set_state(State::Closed).await?,
                Step::GiveUp | Step::Finish => return Ok::<(), Error>(()),
            }
        }
    });
    rig.settle();
    assert_eq!((taken(&steps), own(&rig)), (vec![Step::Connect], "3"));
    backend(&mut rig, "4");
    assert_eq!((taken(&steps), own(&rig)), (vec![Step::Ready], "4"));
    rig.clock.advance(Duration::from_secs(60));
    rig.settle();
    assert_eq!(taken(&steps), [], "connected, it waits without a limit");
    backend(&mut rig, "5");
    assert_eq!((taken(&steps), own(&rig)), (vec![Step::Disconnect], "6"));
}

#[test]
fn a_device_outlives_its_connection_to_the_store() {
    let mut rig = Rig::new();
    rig.machine.page.store_u32(2064, 1 | 2, Ordering::SeqCst);
    attach(&mut rig, BACK, "1", "1");
    let (driver, steps) = drive(&rig);
    rig.settle();
    // The server stops while the driver is about to write Connected.
    rig.server.set(&format!("{BACK}/state"), "2");
    while steps.borrow().is_empty() {
        rig.turn();
    }
    rig.machine.page.store_u32(2072, 1, Ordering::SeqCst);
    rig.machine.signal();
    rig.ports.dispatch();
    rig.executor.turn();
    for offset in [2048, 2052, 2056, 2060, 2072] {
        rig.machine.page.store_u32(offset, 0, Ordering::SeqCst);
    }
    let nodes = core::mem::take(&mut rig.server.nodes);
    rig.server = common::Server::new(Rc::clone(&rig.machine));
    rig.server.nodes = nodes;
    rig.machine.page.store_u32(2068, 0, Ordering::SeqCst);
    rig.machine.signal();
    rig.settle();
    assert_eq!(rig.store.stats().reconnects, 1);
    assert_eq!((own(&rig), driver.is_finished()), ("4", false));
    backend(&mut rig, "4");
    assert_eq!(taken(&steps), [Step::Connect, Step::Ready]);
    assert_eq!(rig.server.open_transactions(), 0);
}
