//! The queue between tasks.

use std::rc::Rc;

use fata_events::queue::{self, SendError};
use fata_events::{Executor, ManualClock};

fn setup() -> Executor {
    Executor::new(Rc::new(ManualClock::default()))
}

#[test]
fn a_full_queue_makes_its_senders_wait_and_loses_nothing() {
    let mut executor = setup();
    let handle = executor.handle();
    let (sender, mut receiver) = queue::bounded(3);
    for base in [0, 100, 200] {
        let sender = sender.clone();
        handle
            .spawn(async move {
                for i in 0..50 {
                    sender.send(base + i).await.unwrap();
                }
            })
            .detach();
    }
    drop(sender);
    executor.run_until_idle();
    assert_eq!(receiver.len(), 3, "the senders wait");
    assert!(!receiver.is_empty());
    let all = handle.spawn(async move {
        let mut all = Vec::new();
        while let Some(item) = receiver.receive().await {
            all.push(item);
        }
        for base in [0, 100, 200] {
            let of_one: Vec<_> = all
                .iter()
                .copied()
                .filter(|item| (base..base + 50).contains(item))
                .collect();
            assert!(
                of_one.iter().copied().eq(base..base + 50),
                "each sender's items come in order"
            );
        }
        assert_eq!(all.len(), 150);
    });
    executor.run_until_idle();
    assert!(all.is_finished());
}

#[test]
fn both_ends_notice_when_the_other_goes() {
    let mut executor = setup();
    let handle = executor.handle();
    let (sender, receiver) = queue::bounded(1);
    assert!(receiver.is_empty() && !sender.is_closed());
    assert_eq!(sender.try_send(Rc::new(1)), Ok(()));
    assert!(matches!(sender.try_send(Rc::new(2)), Err(SendError::Full(item)) if *item == 2));
    let item = Rc::new(3);
    let blocked = handle.spawn({
        let (sender, item) = (sender.clone(), item.clone());
        async move { assert!(matches!(sender.send(item).await, Err(SendError::Closed(_)))) }
    });
    executor.run_until_idle();
    drop(receiver);
    executor.run_until_idle();
    assert!(blocked.is_finished() && sender.is_closed());
    assert_eq!(Rc::strong_count(&item), 1, "what nobody takes is dropped");

    let (sender, mut receiver) = queue::unbounded::<u8>();
    let waiting = handle.spawn(async move { assert_eq!(receiver.receive().await, None) });
    executor.run_until_idle();
    assert!(!waiting.is_finished());
    drop(sender);
    executor.run_until_idle();
    assert!(waiting.is_finished());
}
