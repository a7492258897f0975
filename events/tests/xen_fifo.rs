//! Event channels in the FIFO form, and the way to it.

mod common;
mod port_rules;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use common::Fake;
use fata_events::xen::{Channel, Error, Ports, XenLoop};
use fata_hypercall::abi::event_fifo;
use fata_hypercall::{DomId, Errno, Hypervisor, Port};
use proptest::prelude::*;

/// The first port that is not for the two-level form.
const FIRST: Port = Port(1024);

fn change_over(hv: &Fake, ports: &Ports<Fake>) {
    hv.offer_fifo();
    drop(ports.adopt(FIRST).expect("there is a FIFO form"));
    assert!(hv.evtchn_control().is_some());
}

pub(crate) fn ports(hv: &Fake) -> Ports<Fake> {
    let ports = Ports::new(hv.clone());
    change_over(hv, &ports);
    ports
}

pub(crate) fn xen_loop(hv: &Fake) -> XenLoop<Fake> {
    let xen = XenLoop::new(hv.clone());
    change_over(hv, xen.ports());
    xen
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The change-over comes with the first port that needs it, and not before.
#[test]
fn the_1024th_port_changes_the_form() {
    let hv = Fake::new();
    hv.offer_fifo();
    let ports = Ports::new(hv.clone());
    let mut channels: Vec<_> = (1..1024).map(|_| ports.alloc(DomId::DOM0).unwrap()).collect();
    assert!(hv.evtchn_control().is_none());
    channels.push(ports.alloc(DomId::DOM0).unwrap());
    assert!(hv.evtchn_control().is_some() && hv.evtchn_words(1).is_some() && hv.evtchn_words(2).is_none());
    hv.0.max_ports.set(6000);
    channels.extend((1025..6000).map(|_| ports.alloc(DomId::DOM0).unwrap()));
    assert_eq!(channels.last().unwrap().port(), Port(5999));

    for channel in &channels {
        assert!(poll_once(channel.after(0)).is_pending());
        hv.signal(channel.port());
    }
    assert!(ports.dispatch() && !ports.dispatch());
    assert!(channels.iter().all(|channel| channel.count() == 1));

    // What there is no room for goes back, and says why.
    hv.0.max_ports.set(10_000);
    channels.extend((6000..8192).map(|_| ports.alloc(DomId::DOM0).unwrap()));
    let full = Error::NoFifo(Port(8192), Errno::ENOMEM);
    assert_eq!(ports.alloc(DomId::DOM0).err(), Some(full));
    assert!(!hv.0.open.borrow().contains(&8192));
    assert!(full.to_string().contains("memory="), "{full}");
    let beyond = Port(event_fifo::PORTS);
    assert_eq!(ports.adopt(beyond).err(), Some(Error::BadPort(beyond)));
}

/// Whatever had happened in the two-level form is not lost by the change-over.
#[test]
fn events_survive_the_change_over() {
    let hv = Fake::new();
    let ports = Ports::new(hv.clone());
    let [awaited, fired, idle, late] = [0; 4].map(|_| ports.alloc(DomId::DOM0).unwrap());
    for channel in [&awaited, &fired, &late] {
        assert!(poll_once(channel.after(0)).is_pending());
    }
    hv.signal(fired.port());
    hv.signal(idle.port());
    let port = late.port();
    hv.set_hook(move |hv| hv.signal(port));
    change_over(&hv, &ports);
    hv.set_hook(|_| ());
    assert!(poll_once(fired.after(0)).is_ready() && poll_once(late.after(0)).is_ready());
    assert_eq!(
        [&awaited, &fired, &idle, &late].map(Channel::count),
        [0, 1, 1, 1],
        "each once"
    );

    hv.signal(awaited.port());
    assert!(ports.dispatch());
    assert_eq!(awaited.count(), 1);
}

/// A domain without the form goes on without it as long as it can.
#[test]
fn without_the_form_there_are_4095_ports() {
    let hv = Fake::new();
    let ports = Ports::new(hv.clone());
    let channels: Vec<_> = (1..4096).map(|_| ports.alloc(DomId::DOM0).unwrap()).collect();
    let last = channels.last().unwrap();
    assert!(poll_once(last.after(0)).is_pending());
    hv.signal(last.port());
    assert!(ports.dispatch());
    assert_eq!(last.count(), 1);
    hv.0.max_ports.set(5000);
    let error = ports.alloc(DomId::DOM0).err().unwrap();
    assert_eq!(error, Error::NoFifo(Port(4096), Errno::ENOSYS));
    assert!(error.to_string().contains("4095"), "{error}");
}

/// A restored domain begins with the two-level form, and changes over anew.
#[test]
fn a_restored_domain_changes_over_again() {
    let hv = Fake::new();
    let ports = ports(&hv);
    let old = ports.alloc(DomId::DOM0).unwrap();
    assert!(poll_once(old.after(0)).is_pending());
    hv.0.open.borrow_mut().clear();
    hv.forget_fifo();
    ports.resume();
    assert!(poll_once(old.after(0)).is_ready() && ports.awaited() == 0);
    let new = ports.alloc(DomId::DOM0).unwrap();
    assert!(poll_once(new.after(0)).is_pending());
    hv.signal(new.port());
    assert!(ports.dispatch());
    drop(ports.adopt(FIRST));
    assert!(hv.evtchn_control().is_some());
    assert!(poll_once(new.after(1)).is_pending());
    hv.signal(new.port());
    assert!(ports.dispatch());
    assert_eq!(new.count(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Signal(usize),
    Await(usize),
    Look(usize),
    Reopen(usize),
    Dispatch,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0_usize..6;
    prop_oneof![
        4 => index.clone().prop_map(Step::Signal),
        3 => index.clone().prop_map(Step::Await),
        1 => index.clone().prop_map(Step::Look),
        1 => index.prop_map(Step::Reopen),
        3 => Just(Step::Dispatch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// In whatever order ports fire, are waited for, looked at, closed and opened again: who waits hears of an event that came
    /// since he last counted, and of no other.
    #[test]
    fn nothing_is_lost_and_nothing_invented(steps in proptest::collection::vec(step(), 1..80)) {
        struct Model { channel: Option<Channel<Fake>>, pending: bool, awaited: bool, count: u64 }
        let hv = Fake::new();
        let ports = ports(&hv);
        let mut all: Vec<Model> = (0..6).map(|_| Model {
            channel: Some(ports.alloc(DomId::DOM0).unwrap()), pending: false, awaited: false, count: 0,
        }).collect();
        for step in steps {
            match step {
                Step::Signal(index) => {
                    hv.signal(all[index].channel.as_ref().unwrap().port());
                    all[index].pending = true;
                }
                Step::Await(index) => {
                    let model = &mut all[index];
                    let channel = model.channel.as_ref().unwrap();
                    prop_assert!(poll_once(channel.after(model.count)).is_pending());
                    model.awaited = true;
                }
                Step::Look(index) => {
                    let model = &mut all[index];
                    if std::mem::take(&mut model.pending) {
                        model.count += 1;
                        model.awaited = false;
                    }
                    prop_assert_eq!(model.channel.as_ref().unwrap().count(), model.count);
                }
                Step::Reopen(index) => {
                    let model = &mut all[index];
                    let port = model.channel.as_ref().unwrap().port();
                    model.channel = None;
                    let channel = ports.alloc(DomId::DOM0).unwrap();
                    prop_assert_eq!(channel.port(), port);
                    *model = Model { channel: Some(channel), pending: false, awaited: false, count: 0 };
                }
                Step::Dispatch => {
                    let mut any = false;
                    for model in all.iter_mut().filter(|model| model.awaited && model.pending) {
                        (model.pending, model.awaited, any) = (false, false, true);
                        model.count += 1;
                    }
                    prop_assert_eq!(ports.dispatch(), any);
                }
            }
            prop_assert_eq!(ports.awaited(), all.iter().filter(|model| model.awaited).count());
            // What nobody waits for is masked, so that it is in no list: a storm on it costs nothing (rule 55).
            for model in all.iter().filter(|model| !model.awaited) {
                let port = model.channel.as_ref().unwrap().port();
                prop_assert!(hv.is_masked(port), "port {} is in a list for nobody", port);
            }
        }
        for model in &all {
            let expected = model.count + u64::from(model.pending);
            prop_assert_eq!(model.channel.as_ref().unwrap().count(), expected);
        }
    }
}
