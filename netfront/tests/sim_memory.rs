//! What a frame costs in allocations and hypercalls, and what happens when there is no memory for one.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

use common::{Device, Guest, Mode, SECOND, frame};
use fata_netfront::abi::{RxFlags, RxResponse, TxResponse};
use fata_netfront::{Options, TxMeta};
use fata_sim::Sim;

struct Watched;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// From this size on there is no memory.
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

// SAFETY: it is the system's allocator, which sometimes says no.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        if layout.size() >= LIMIT.get() {
            return ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Rule 42: no memory to put a frame's pieces together: it is dropped and counted, its buffers go back, and the next one
/// comes through.
#[test]
fn nx_1_13_1_want_of_memory_drops_the_frame_and_counts_it() {
    let sim = Sim::new(42);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    let mut backend = device.connect(&sim, &guest);
    guest.mode.set(Mode::Ignore);
    let whole = frame(5 * 4000, 9);
    for round in 1..=50 {
        for (index, piece) in whole.chunks(4000).enumerate() {
            backend.fill_buffer(0, piece);
            backend.respond(RxResponse {
                status: 4000,
                flags: if index < 4 {
                    RxFlags::MORE_DATA
                } else {
                    RxFlags::empty()
                },
                ..RxResponse::default()
            });
        }
        backend.publish();
        // Not within the simulator, whose own memory is not the guest's.
        LIMIT.set(16_000);
        let seen = guest.vif.peek();
        LIMIT.set(usize::MAX);
        assert_eq!(seen, None);
        guest.vif.flush();
        assert_eq!(guest.vif.stats().rx_dropped, round);
        assert_eq!(backend.rx.ready(), Ok(64), "round {round}: every buffer is back");
    }
    for (index, piece) in whole.chunks(4000).enumerate() {
        backend.fill_buffer(0, piece);
        backend.respond(RxResponse {
            status: 4000,
            flags: if index < 4 {
                RxFlags::MORE_DATA
            } else {
                RxFlags::empty()
            },
            ..RxResponse::default()
        });
    }
    backend.publish();
    assert_eq!(guest.vif.receive().unwrap().consume(<[u8]>::to_vec), whole);
    assert!(guest.vif.link_up());
}

/// Rule 43: ten thousand frames each way: no allocation for any, no hypercall but one notification for each burst.
#[test]
fn rule_43_a_frame_costs_no_allocation_and_no_hypercall() {
    let sim = Sim::new(43);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    let mut backend = device.connect(&sim, &guest);
    guest.mode.set(Mode::Ignore);
    sim.run_for(SECOND);
    let (bursts, burst) = (400, 25);
    let (mut allocations, mut sends) = (0, 0);
    for _ in 0..bursts {
        for seed in 0..burst {
            backend.deliver(&frame(1514, seed));
        }
        backend.publish();
        let before = (ALLOCATIONS.get(), domain.activity().sends);
        let mut frames = 0;
        while let Some(received) = guest.vif.receive() {
            received.consume(|bytes| {
                let room = guest.vif.transmit().expect("room");
                room.consume(bytes.len(), |to| {
                    to.copy_from_slice(bytes);
                    ((), TxMeta::default())
                });
            });
            frames += 1;
        }
        guest.vif.flush();
        assert_eq!(frames, burst);
        allocations += ALLOCATIONS.get() - before.0;
        sends += domain.activity().sends - before.1;
        while let Some(request) = backend.tx.pop().unwrap() {
            let answer = TxResponse {
                id: request.id,
                status: 0,
            };
            backend.tx.push(&answer).unwrap();
        }
        backend.publish();
    }
    assert_eq!(allocations, 0);
    assert!(sends <= bursts, "{sends} hypercalls for {bursts} bursts");
    assert_eq!(guest.vif.stats().rx_frames, u64::from(burst) * bursts);
}
