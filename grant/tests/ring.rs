//! Rings: both ends on one page, honest and otherwise.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;

use fata_grant::{BackRing, FrontRing, Full, RingError};
use fata_hypercall::SharedPage;
use proptest::prelude::*;

type Front<'a> = FrontRing<&'a SharedPage, u64, u32>;
type Back<'a> = BackRing<&'a SharedPage, u64, u32>;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;

fn index(page: &SharedPage, offset: usize) -> u32 {
    page.load_u32(offset, SeqCst).unwrap()
}

#[test]
fn slots_are_as_in_ring_h() {
    assert_eq!(
        FrontRing::<&SharedPage, [u8; 12], [u8; 4]>::SLOTS,
        256,
        "netif transmit"
    );
    assert_eq!(FrontRing::<&SharedPage, [u8; 8], [u8; 8]>::SLOTS, 256, "netif receive");
    assert_eq!(
        BackRing::<&SharedPage, [u8; 16], [u8; 12]>::SLOTS,
        128,
        "netif control: 252 rounded down"
    );
    assert_eq!(BackRing::<&SharedPage, [u8; 112], [u8; 16]>::SLOTS, 32, "blkif");
}

#[test]
fn smr_e949fd6_events_start_at_one() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    assert_eq!(
        [REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT].map(|o| index(&page, o)),
        [0, 1, 0, 1]
    );
    front.push(&1).unwrap();
    assert!(front.publish(), "the first request notifies");
}

#[test]
fn nx_d27f45a_a_backend_finds_requests_posted_before_it_came() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::starting_at(&page, u32::MAX - 1);
    for request in 0..5 {
        front.push(&request).unwrap();
    }
    assert!(front.publish());
    let mut first = Back::attach(&page).unwrap();
    assert_eq!(first.pop(), Ok(Some(0)));
    first.push(&10).unwrap();
    assert!(first.publish());

    // The driver domain restarts: its successor goes on after the last response.
    let mut second = Back::attach(&page).unwrap();
    assert_eq!(second.ready(), Ok(4));
    assert_eq!(second.pop(), Ok(Some(1)));
}

#[test]
fn a_slot_is_where_ring_h_has_it_and_is_copied() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    assert_eq!(front.request_slot(), 0);
    front.push(&0x1122).unwrap();
    front.push(&0x3344).unwrap();
    assert_eq!((front.request_slot(), front.response_slot()), (2, 0));
    assert_eq!(page.get::<u64>(64), Some(0x1122));
    assert_eq!(page.get::<u64>(72), Some(0x3344));
    assert_eq!(index(&page, REQ_PROD), 0, "not before publish");
    assert!(front.publish());
    assert_eq!(index(&page, REQ_PROD), 2, "both at once");

    let mut back = Back::attach(&page).unwrap();
    assert_eq!(back.request_slot(), 0);
    let taken = back.pop().unwrap();
    page.set(64, &0xffff_u64);
    assert_eq!(taken, Some(0x1122), "xsa_155: what was taken does not change");
}

#[test]
fn positions_go_around_the_ring() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    let mut back = Back::attach(&page).unwrap();
    for round in 0..3 * Front::SLOTS {
        let slot = (round % Front::SLOTS) as usize;
        assert_eq!((front.request_slot(), back.request_slot()), (slot, slot));
        front.push(&u64::from(round)).unwrap();
        let _ = front.publish();
        assert_eq!(back.pop(), Ok(Some(u64::from(round))));
        assert_eq!((front.response_slot(), back.response_slot()), (slot, slot));
        back.push(&round).unwrap();
        let _ = back.publish();
        assert_eq!(front.consumed(), round);
        assert_eq!(front.pop(), Ok(Some(round)));
    }
}

#[test]
fn nothing_more_than_slots_is_outstanding() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    for request in 0..u64::from(Front::SLOTS) {
        front.push(&request).unwrap();
    }
    assert_eq!(front.push(&0), Err(Full));
    assert!(front.publish());
    let mut back = Back::attach(&page).unwrap();
    assert_eq!(back.push(&0), Err(Full), "no response without a request");
    back.pop().unwrap().unwrap();
    back.push(&0).unwrap();
    assert_eq!(back.push(&0), Err(Full));
    assert!(back.publish());
    assert_eq!(
        (front.free(), front.outstanding()),
        (0, 256),
        "not free before the response is taken"
    );
    front.pop().unwrap().unwrap();
    assert_eq!(front.push(&0), Ok(()));
}

#[test]
fn rule_01_own_indices_are_never_read_back() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    let mut back = Back::attach(&page).unwrap();
    front.push(&1).unwrap();
    let _ = front.publish();
    back.pop().unwrap().unwrap();
    page.store_u32(REQ_PROD, 77, SeqCst);
    page.store_u32(RSP_EVENT, 99, SeqCst);
    front.push(&2).unwrap();
    let _ = front.publish();
    assert_eq!(index(&page, REQ_PROD), 2);
    assert_eq!(back.pop(), Ok(Some(2)));

    // Nor to find out whether the backend has to be told.
    assert_eq!(back.enable_events(1), Ok(false));
    front.push(&3).unwrap();
    page.store_u32(REQ_PROD, 3, SeqCst);
    assert!(front.publish());
}

/// Rule 2: consumer + outstanding + 1, consumer - 1, and far away.
#[test]
fn rule_02_an_impossible_producer_breaks_the_ring() {
    for start in [0, 1 << 31, u32::MAX - 3] {
        for jump in [4, 257, 1 << 31, u32::MAX] {
            let page = SharedPage::new_zeroed();
            let mut front = Front::starting_at(&page, start);
            for request in 0..3 {
                front.push(&request).unwrap();
            }
            let _ = front.publish();
            let claimed = start.wrapping_add(jump);
            page.store_u32(RSP_PROD, claimed, SeqCst);
            let error = RingError {
                claimed,
                own: start,
                limit: 3,
            };
            assert_eq!(front.pop(), Err(error));
            // It does not heal.
            page.store_u32(RSP_PROD, start.wrapping_add(1), SeqCst);
            assert_eq!(front.pop(), Err(error));
            assert_eq!(front.enable_events(1), Err(error));
            front.push(&4).unwrap();
            assert!(!front.publish());
            assert_eq!(
                index(&page, REQ_PROD),
                start.wrapping_add(3),
                "nothing more is published"
            );
        }
    }
}

#[test]
fn xsa_39_an_impossible_producer_breaks_the_backend_too() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    let mut back = Back::attach(&page).unwrap();
    front.push(&1).unwrap();
    let _ = front.publish();
    back.pop().unwrap().unwrap();
    page.store_u32(REQ_PROD, 1 + 256, SeqCst);
    assert_eq!(
        back.pop(),
        Err(RingError {
            claimed: 257,
            own: 1,
            limit: 255
        }),
        "one slot still waits for its response"
    );
    page.store_u32(REQ_PROD, 300, SeqCst);
    assert!(Back::attach(&page).is_err());
}

#[test]
fn rule_02_a_producer_that_goes_back_breaks_the_ring() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    for request in 0..8 {
        front.push(&request).unwrap();
    }
    let _ = front.publish();
    page.store_u32(RSP_PROD, 5, SeqCst);
    assert_eq!(front.ready(), Ok(5));
    page.store_u32(RSP_PROD, 4, SeqCst);
    assert!(front.ready().is_err());
}

#[test]
fn a_burst_notifies_once_and_only_a_sleeper() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    let mut back = Back::attach(&page).unwrap();
    front.push(&0).unwrap();
    assert!(front.publish());
    front.push(&1).unwrap();
    assert!(!front.publish(), "the backend is awake: it has not asked again");
    while back.pop().unwrap().is_some() {}
    assert_eq!(back.enable_events(1), Ok(false));
    for request in 0..9 {
        front.push(&request).unwrap();
    }
    assert!(front.publish());
    assert!(!front.publish(), "nothing new");
}

#[test]
fn events_can_be_asked_for_further_ahead() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    let mut back = Back::attach(&page).unwrap();
    for request in 0..8 {
        front.push(&request).unwrap();
    }
    let _ = front.publish();
    assert_eq!(front.enable_events(4), Ok(false));
    for expected in [false, false, false, true, false] {
        back.pop().unwrap().unwrap();
        back.push(&0).unwrap();
        assert_eq!(back.publish(), expected);
    }
    assert_eq!(
        front.enable_events(5),
        Ok(true),
        "five are there already: nobody will notify"
    );
    assert_eq!(front.enable_events(6), Ok(false), "a sixth will notify");
}

/// nx#15: a response that comes between the last look and the request for an event is not slept through.
#[test]
fn nx_15_the_final_check_sees_what_came_in_between() {
    let page = SharedPage::new_zeroed();
    let mut front = Front::new(&page);
    let mut back = Back::attach(&page).unwrap();
    for request in 0..2 {
        front.push(&request).unwrap();
    }
    let _ = front.publish();
    back.pop().unwrap().unwrap();
    back.push(&0).unwrap();
    assert!(back.publish());
    assert!(front.pop().unwrap().is_some());
    assert!(front.pop().unwrap().is_none());
    back.pop().unwrap().unwrap();
    back.push(&0).unwrap();
    assert!(!back.publish(), "no notification");
    assert_eq!(front.enable_events(1), Ok(true));
}

/// Two threads, real barriers: everybody sleeps only until notified, and the run ends.
#[test]
fn rule_08_two_threads_lose_nothing() {
    use std::sync::mpsc::channel;
    const COUNT: u64 = 100_000;
    let page = SharedPage::new_zeroed();
    let mut front = Front::starting_at(&page, u32::MAX - 5000);
    let (to_back, back_bell) = channel::<()>();
    let (to_front, front_bell) = channel::<()>();
    std::thread::scope(|scope| {
        let page = &page;
        scope.spawn(move || {
            let mut back = Back::attach(page).unwrap();
            loop {
                while let Some(request) = back.pop().unwrap() {
                    back.push(&(request as u32)).unwrap();
                }
                if back.publish() {
                    let _ = to_front.send(());
                }
                if !back.enable_events(1).unwrap() && back_bell.recv().is_err() {
                    break;
                }
            }
        });
        let (mut sent, mut received) = (0, 0);
        while received < COUNT {
            while sent < COUNT && front.push(&sent).is_ok() {
                sent += 1;
            }
            if front.publish() {
                to_back.send(()).unwrap();
            }
            while let Some(response) = front.pop().unwrap() {
                assert_eq!(response, received as u32);
                received += 1;
            }
            let batch = front.outstanding().div_ceil(2);
            if batch > 0 && !front.enable_events(batch).unwrap() {
                front_bell.recv().unwrap();
            }
        }
        drop(to_back);
    });
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    PublishRequests,
    Take,
    Answer,
    PublishResponses,
    Pop,
    FrontSleeps(u32),
    BackSleeps(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Push),
        2 => Just(Step::PublishRequests),
        4 => Just(Step::Take),
        4 => Just(Step::Answer),
        2 => Just(Step::PublishResponses),
        4 => Just(Step::Pop),
        1 => (1..9_u32).prop_map(Step::FrontSleeps),
        1 => (1..9_u32).prop_map(Step::BackSleeps),
    ]
}

fn around_wrap() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (0..600_u32).prop_map(|d| 0x8000_0000 - 300 + d),
        (0..600_u32).prop_map(|d| 300_u32.wrapping_neg().wrapping_add(d)),
    ]
}

proptest! {
    /// Against queues that cannot wrap: nothing lost, repeated or reordered, and each notification is due.
    #[test]
    fn smr_f8c62c2_a_ring_is_two_queues_across_every_wrap(start in around_wrap(), steps in prop::collection::vec(step(), 1..2000)) {
        let page = SharedPage::new_zeroed();
        let mut front = Front::starting_at(&page, start);
        let mut back = Back::attach(&page).unwrap();
        let (mut requests, mut responses) = (VecDeque::new(), VecDeque::new());
        let (mut requests_hidden, mut responses_hidden) = (VecDeque::new(), VecDeque::new());
        let (mut next, mut to_answer) = (0_u64, VecDeque::new());
        // Counted down by what is published; a notification is due when it gets to 0.
        let (mut front_wants, mut back_wants) = (Some(1_i64), Some(1_i64));
        let mut outstanding = 0_u32;
        for step in steps {
            match step {
                Step::Push => {
                    let pushed = front.push(&next);
                    prop_assert_eq!(pushed.is_ok(), outstanding < 256);
                    if pushed.is_ok() {
                        requests_hidden.push_back(next);
                        outstanding += 1;
                        next += 1;
                    }
                }
                Step::PublishRequests => {
                    let due = due(&mut back_wants, requests_hidden.len());
                    prop_assert_eq!(front.publish(), due);
                    requests.append(&mut requests_hidden);
                }
                Step::Take => {
                    let request = requests.pop_front();
                    prop_assert_eq!(back.pop().unwrap(), request);
                    to_answer.extend(request);
                }
                Step::Answer => {
                    let answer = to_answer.pop_front().map(|request| request as u32 ^ 1);
                    prop_assert_eq!(back.push(&answer.unwrap_or(0)).is_ok(), answer.is_some());
                    responses_hidden.extend(answer);
                }
                Step::PublishResponses => {
                    let due = due(&mut front_wants, responses_hidden.len());
                    prop_assert_eq!(back.publish(), due);
                    responses.append(&mut responses_hidden);
                }
                Step::Pop => {
                    let response = responses.pop_front();
                    prop_assert_eq!(front.pop().unwrap(), response);
                    outstanding -= u32::from(response.is_some());
                }
                Step::FrontSleeps(ahead) => {
                    prop_assert_eq!(front.enable_events(ahead).unwrap(), responses.len() >= ahead as usize);
                    front_wants = (responses.len() < ahead as usize).then(|| i64::from(ahead) - responses.len() as i64);
                }
                Step::BackSleeps(ahead) => {
                    prop_assert_eq!(back.enable_events(ahead).unwrap(), requests.len() >= ahead as usize);
                    back_wants = (requests.len() < ahead as usize).then(|| i64::from(ahead) - requests.len() as i64);
                }
            }
            prop_assert_eq!(front.outstanding(), outstanding);
            prop_assert_eq!(back.outstanding() as usize, to_answer.len());
        }
    }

    /// Whatever is in the page: an answer or an error, never more than there are slots.
    #[test]
    fn any_page_is_survived(words in prop::collection::vec(any::<u32>(), 1..40), start in around_wrap()) {
        let page = SharedPage::new_zeroed();
        let mut front = Front::starting_at(&page, start);
        for (i, word) in words.iter().enumerate() {
            let _ = front.push(&1);
            let _ = front.publish();
            page.store_u32(RSP_PROD, if i % 3 == 0 { start.wrapping_add(word % 300) } else { *word }, SeqCst);
            page.store_u32(REQ_EVENT, *word, SeqCst);
            let mut taken = 0;
            while let Ok(Some(_)) = front.pop() {
                taken += 1;
            }
            prop_assert!(taken <= 256);
            if let Ok(mut back) = Back::attach(&page) {
                while let Ok(Some(_)) = back.pop() {}
                prop_assert!(back.outstanding() <= 256);
            }
        }
    }
}

fn due(wants: &mut Option<i64>, published: usize) -> bool {
    let Some(left) = wants.as_mut() else { return false };
    let before = *left;
    *left -= published as i64;
    let due = before > 0 && *left <= 0;
    if due {
        *wants = None;
    }
    due
}
