//! The frontend's table, exhaustively: every state of ours, every state of the backend's, every event (rule 71).

use fata_xenstore::xenbus::{Action, Event, State, action};

fn every() -> impl Iterator<Item = (State, State, Event)> {
    let pairs = State::ALL
        .into_iter()
        .flat_map(|own| State::ALL.into_iter().map(move |backend| (own, backend)));
    pairs.flat_map(|(own, backend)| Event::ALL.into_iter().map(move |event| (own, backend, event)))
}

/// Our state after an action, for a device with one step and for one with two.
fn after(own: State, action: Action, two_steps: bool) -> State {
    match action {
        Action::Wait | Action::GiveUp | Action::Finish => own,
        Action::Connect if two_steps => State::Initialised,
        Action::Connect | Action::Ready => State::Connected,
        Action::Close => State::Closing,
        Action::Disconnect => State::Closed,
        Action::Restart => State::Initialising,
    }
}

#[test]
fn nothing_is_shared_before_the_backend_waits_for_it() {
    for (own, backend, event) in every() {
        match action(own, backend, event) {
            Action::Connect => {
                assert!(
                    matches!(backend, State::InitWait | State::Initialised),
                    "{own:?} {backend:?} {event:?}"
                );
                assert_eq!(own, State::Initialising, "{backend:?} {event:?}");
            }
            Action::Ready => {
                assert_eq!(backend, State::Connected);
                assert!(
                    matches!(own, State::Initialised | State::Connected),
                    "{own:?} {event:?}"
                );
            }
            _ => {}
        }
    }
}

#[test]
fn a_backend_that_ends_or_vanishes_ends_the_connection() {
    for own in [State::Initialised, State::Connected] {
        for backend in [State::Unknown, State::Closing, State::Closed] {
            assert_eq!(
                action(own, backend, Event::Changed),
                Action::Disconnect,
                "{own:?} {backend:?}"
            );
            assert_eq!(
                action(own, backend, Event::Expired),
                Action::Disconnect,
                "{own:?} {backend:?}"
            );
        }
        assert_eq!(
            action(own, State::Initialising, Event::Changed),
            Action::Disconnect,
            "it was started anew"
        );
    }
}

#[test]
fn xsa_465_a_device_that_was_removed_ends_in_every_state_rule_72() {
    for (_, backend, event) in every() {
        assert_eq!(action(State::Unknown, backend, event), Action::Finish);
    }
}

#[test]
fn a_backend_that_comes_back_is_connected_to_again() {
    assert_eq!(action(State::Closed, State::InitWait, Event::Changed), Action::Restart);
    assert_eq!(
        action(State::Initialising, State::InitWait, Event::Changed),
        Action::Connect
    );
}

#[test]
fn stopping_never_connects_and_never_restarts() {
    for (own, backend, event) in every().filter(|(_, _, event)| *event == Event::Stop) {
        let action = action(own, backend, event);
        assert!(
            matches!(
                action,
                Action::Wait | Action::Close | Action::Disconnect | Action::Finish
            ),
            "{own:?} {backend:?} {action:?}"
        );
        if action == Action::Wait {
            assert_eq!(own, State::Closing, "it waits only for the backend to let go");
        }
    }
}

#[test]
fn a_time_limit_never_just_waits_on() {
    for (own, backend, _) in every() {
        assert_ne!(
            action(own, backend, Event::Expired),
            Action::Wait,
            "{own:?} {backend:?}"
        );
    }
}

#[test]
fn nothing_is_found_connected_without_being_reset() {
    let leftovers = [
        State::InitWait,
        State::Initialised,
        State::Connected,
        State::Reconfiguring,
        State::Reconfigured,
    ];
    for (own, backend, _) in every().filter(|(own, _, _)| leftovers.contains(own)) {
        assert_eq!(action(own, backend, Event::Found), Action::Close, "{own:?} {backend:?}");
    }
}

/// With both states at rest, following the table comes to rest: no pair of actions chases each other.
#[test]
fn every_walk_with_a_silent_backend_is_short_rule_71() {
    assert_eq!(every().count(), 9 * 9 * 4);
    for (mut own, backend, event) in every() {
        for two_steps in [false, true] {
            let mut steps = 0;
            loop {
                let action = action(own, backend, event);
                let next = after(own, action, two_steps);
                if next == own || matches!(action, Action::Connect) {
                    break;
                }
                own = next;
                steps += 1;
                assert!(steps <= 6, "{backend:?} {event:?}");
            }
        }
    }
}

/// What Linux's netback does when it sees the frontend's state change.
fn netback(frontend: State, mut own: State) -> State {
    let target = match frontend {
        State::Initialising => State::InitWait,
        State::Connected => State::Connected,
        State::Closing => State::Closing,
        State::Closed => State::Closed,
        _ => return own,
    };
    while own != target {
        own = match (own, target) {
            (State::Closed, State::Closing) => State::Closing,
            (State::Closed, _) => State::InitWait,
            (State::InitWait | State::Initialised, State::Connected) => State::Connected,
            (State::InitWait | State::Initialised, _) => State::Closing,
            (State::Connected, _) => State::Closing,
            (State::Closing, _) => State::Closed,
            _ => return own,
        };
    }
    own
}

/// Follows the table against a backend that reacts; gives the states at the end, and whether it finished.
fn live(mut own: State, mut backend: State, mut event: Event) -> (State, State, bool) {
    for _ in 0..32 {
        let mut now = action(own, backend, event);
        if now == Action::Wait {
            if own == State::Connected || (own == State::Closed && event == Event::Changed) {
                return (own, backend, false); // waits without a limit, as it should
            }
            now = action(own, backend, Event::Expired);
        }
        match now {
            Action::Finish => return (own, backend, true),
            Action::Ready | Action::GiveUp => return (own, backend, false),
            Action::Connect if event == Event::Found => event = Event::Changed,
            _ => {}
        }
        own = after(own, now, false);
        backend = netback(own, backend);
    }
    panic!("it never comes to rest: {own:?} {backend:?} {event:?}");
}

#[test]
fn whatever_is_found_ends_connected_if_there_is_a_backend() {
    let alive = [State::InitWait, State::Connected, State::Closing, State::Closed];
    for own in State::ALL.into_iter().filter(|&own| own != State::Unknown) {
        for backend in alive {
            // A backend that is still Closing while we are Closed or Initialising has not seen that yet.
            let unseen = matches!(own, State::Initialising | State::Closed);
            let backend = if unseen { netback(own, backend) } else { backend };
            assert_eq!(
                live(own, backend, Event::Found),
                (State::Connected, State::Connected, false),
                "{own:?}"
            );
        }
    }
}

#[test]
fn whatever_is_stopped_ends_closed_even_if_nobody_answers_rule_76() {
    for (own, backend, _) in every().filter(|(own, _, _)| *own != State::Unknown) {
        let (end, _, finished) = live(own, backend, Event::Stop);
        assert_eq!((end, finished), (State::Closed, true), "{own:?} {backend:?}");
    }
}
