//! The operations, ours and C's. Each function does its operation so many times.

use std::hint::black_box;
use std::rc::Rc;
use std::task::{Context, Waker};

use fata_events::xen::{Ports, PvClock};
use fata_events::{Executor, JoinHandle, ManualClock};
use fata_grant::{BackRing, FrontRing, ReadWrite, Table};
use fata_hypercall::{DomId, SharedPage};
use fata_netfront::abi::{TxFlags, TxRequest, TxResponse};
use fata_netfront::split::split;
use fata_xenstore::wire::{MessageType, Packet, Path, Reply, Request};

use crate::bare::Bare;

/// An operation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) rust: fn(u64),
    pub(crate) c: fn(u64),
}

mod c {
    unsafe extern "C" {
        pub(super) safe fn c_ring(n: u64);
        pub(super) safe fn c_grant(n: u64);
        pub(super) safe fn c_scan(n: u64, ports: u32);
        pub(super) safe fn c_fifo(n: u64, ports: u32);
        pub(super) safe fn c_task(n: u64);
        pub(super) safe fn c_store(n: u64);
        pub(super) safe fn c_clock(n: u64);
        pub(super) safe fn c_tx(n: u64, start: u64, len: u64);
    }
}

/// A packet of one slot, and one of eighteen: where it begins in the buffers, and its length.
const ONE: (u64, u64) = (0, 1514);
const EIGHTEEN: (u64, u64) = (4095, 17 * 4096 + 1);

pub(crate) const CASES: [Case; 11] = [
    Case {
        name: "ring: request, response, two looks",
        rust: ring,
        c: |n| c::c_ring(n),
    },
    Case {
        name: "grant: end access, permit it again",
        rust: grant,
        c: |n| c::c_grant(n),
    },
    Case {
        name: "event: one of 1 port counted",
        rust: |n| scan(n, 1),
        c: |n| c::c_scan(n, 1),
    },
    Case {
        name: "event: one of 64 ports counted",
        rust: |n| scan(n, 64),
        c: |n| c::c_scan(n, 64),
    },
    Case {
        name: "event: one of 4,095 ports counted",
        rust: |n| scan(n, 4095),
        c: |n| c::c_scan(n, 4095),
    },
    Case {
        name: "event: one of 8,191 ports counted (FIFO form)",
        rust: |n| scan(n, 8191),
        c: |n| c::c_fifo(n, 8191),
    },
    Case {
        name: "event: one of 1 port, its task woken and run",
        rust: task,
        c: |n| c::c_task(n),
    },
    Case {
        name: "xenstore: build a WRITE, read an answer",
        rust: store,
        c: |n| c::c_store(n),
    },
    Case {
        name: "clock",
        rust: clock,
        c: |n| c::c_clock(n),
    },
    Case {
        name: "transmit: 1 slot, acknowledged",
        rust: |n| transmit(n, ONE),
        c: |n| c::c_tx(n, ONE.0, ONE.1),
    },
    Case {
        name: "transmit: 18 slots, acknowledged",
        rust: |n| transmit(n, EIGHTEEN),
        c: |n| c::c_tx(n, EIGHTEEN.0, EIGHTEEN.1),
    },
];

fn ring(n: u64) {
    let page = SharedPage::new_zeroed();
    let mut front = FrontRing::<_, u64, u64>::new(&page);
    let mut back = BackRing::<_, u64, u64>::attach(&page).expect("a new ring");
    for i in 0..n {
        let _ = front.push(&i);
        black_box(front.publish());
        if let Ok(Some(request)) = back.pop() {
            let _ = back.push(&request);
        }
        black_box(back.publish());
        if let Ok(Some(response)) = front.pop() {
            black_box(response);
        }
    }
}

fn grant(n: u64) {
    let table = Table::new(Bare::new());
    let mut shared = table.share_zeroed(1, DomId(0), ReadWrite).expect("a page");
    for _ in 0..n {
        let index = black_box(0);
        if let Ok(bytes) = shared.reclaim(index) {
            black_box(bytes.as_ptr());
        }
        shared.regrant(index);
    }
}

fn scan(n: u64, count: u64) {
    let hv = Bare::new();
    let ports = Ports::new(hv.clone());
    let channels: Vec<_> = (0..count).map(|_| ports.alloc(DomId(0)).expect("a port")).collect();
    let mut seen = vec![0; channels.len()];
    let mut cx = Context::from_waker(Waker::noop());
    for (channel, seen) in channels.iter().zip(&seen) {
        let _ = channel.poll_after(*seen, &mut cx);
    }
    for i in 0..n {
        let index = (i % count) as usize;
        let (channel, seen) = (&channels[index], &mut seen[index]);
        hv.signal(channel.port());
        black_box(ports.dispatch());
        channel.served(true);
        *seen += 1;
        let _ = channel.poll_after(*seen, &mut cx);
    }
}

fn task(n: u64) {
    let hv = Bare::new();
    let ports = Ports::new(hv.clone());
    let channel = ports.alloc(DomId(0)).expect("a port");
    let port = channel.port();
    let mut executor = Executor::new(Rc::new(ManualClock::default()));
    let task = executor.handle().spawn(async move {
        let mut seen = 0;
        loop {
            seen = channel.after(seen).await;
            channel.served(true);
        }
    });
    executor.turn();
    for _ in 0..n {
        hv.signal(port);
        black_box(ports.dispatch());
        black_box(executor.turn());
    }
    drop::<JoinHandle<()>>(task);
}

fn store(n: u64) {
    let mut out = Vec::with_capacity(4112);
    let mut answer = Vec::new();
    Packet {
        kind: MessageType::READ,
        req_id: 9,
        tx_id: 0,
        payload: b"4",
    }
    .encode(&mut answer)
    .expect("a short message");
    for i in 0..n {
        out.clear();
        let path = Path::new(black_box("device/vif/0/state")).expect("a path");
        let _ = Request::Write { path, value: b"4" }.encode(i as u32, 0, &mut out);
        black_box(&out);
        if let Ok(Some((packet, _))) = Packet::parse(black_box(&answer)) {
            let _ = black_box(Reply::parse(MessageType::READ, packet));
        }
    }
}

fn clock(n: u64) {
    let clock = PvClock::new(Bare::new());
    for _ in 0..n {
        black_box(clock.system_time());
    }
}

fn transmit(n: u64, (start, len): (u64, u64)) {
    let page = SharedPage::new_zeroed();
    let mut front = FrontRing::<_, TxRequest, TxResponse>::new(&page);
    let mut back = BackRing::<_, TxRequest, TxResponse>::attach(&page).expect("a new ring");
    for _ in 0..n {
        for piece in split(black_box(start as usize), len as usize) {
            let _ = front.push(&TxRequest {
                gref: piece.page as u32,
                offset: piece.offset,
                flags: if piece.more {
                    TxFlags::MORE_DATA
                } else {
                    TxFlags::empty()
                },
                id: front.request_slot() as u16,
                size: piece.size,
            });
        }
        black_box(front.publish());
        while let Ok(Some(request)) = back.pop() {
            let _ = back.push(&TxResponse {
                id: request.id,
                status: 0,
            });
        }
        black_box(back.publish());
        while let Ok(Some(response)) = front.pop() {
            black_box(response.status);
        }
    }
}
