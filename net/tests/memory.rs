//! Want of memory for what a peer makes the stack set aside.
//!
//! The allocator of this program says no at random, but only while the stack's task runs, and only to large blocks: the
//! buffers of a connection, room for an interface of smoltcp's, packets put together from fragments. Everything as large that
//! is asked for there is asked for in a way that can fail; a plain `Vec` that grew so far would end the program. Smaller
//! blocks, and what a program asks for itself, are not covered.

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use fata_net::pair::{SeedRng, pair};
use fata_net::{Limits, Stack};
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpControl};
use world::{OURS, OURS6, THEIRS, Wire, World, at, fixed, pattern};

/// Blocks from this size on are sometimes refused. smoltcp's interface takes 13 KiB, in a box, after a look at whether there
/// is room for two.
const LARGE: usize = 16 << 10;

struct Scarce;

thread_local! {
    /// A random number, while memory is short.
    static SHORT: Cell<Option<u64>> = const { Cell::new(None) };
    static REFUSED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: it is the system's allocator, which sometimes says no.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= LARGE
            && let Some(mut random) = SHORT.get()
        {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            SHORT.set(Some(random));
            if random % 4 == 0 {
                REFUSED.set(REFUSED.get() + 1);
                return ptr::null_mut();
            }
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
static ALLOCATOR: Scarce = Scarce;

/// A future that runs while memory is short, as long as `random` holds a number.
struct InShortage<F> {
    future: Pin<Box<F>>,
    random: Rc<Cell<Option<u64>>>,
}

impl<F: Future> Future for InShortage<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        SHORT.set(self.random.get());
        let poll = self.future.as_mut().poll(cx);
        self.random.set(SHORT.take());
        poll
    }
}

/// A datagram to port 9, in fragments.
fn datagram(ident: u16, data: &[u8]) -> Vec<Vec<u8>> {
    let payload = world::udp(at(THEIRS, 5), at(OURS, 9), data);
    let last = payload.len().div_ceil(1480) - 1;
    let cut = payload.chunks(1480).enumerate().map(|(index, chunk)| {
        let mut frame = world::ip_frame(THEIRS.into(), OURS.into(), IpProtocol::Udp, chunk);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_ident(ident);
        packet.set_dont_frag(false);
        packet.set_more_frags(index != last);
        packet.set_frag_offset((index * 1480) as u16);
        packet.fill_checksum();
        frame
    });
    cut.collect()
}

/// Asks for a connection and sends a large datagram. Whether the former was answered.
fn try_both(world: &mut World, wire: &mut Wire, number: u16) -> bool {
    wire.send(&world::tcp_frame(
        at(THEIRS, 1000 + number),
        at(OURS, 7),
        TcpControl::Syn,
        1,
        None,
        &[],
    ));
    for frame in datagram(number, &pattern(20_000)) {
        wire.send(&frame);
    }
    let answers = wire.segments(world);
    answers.iter().any(|segment| segment.control == TcpControl::Syn)
}

#[test]
fn want_of_memory_costs_the_peer_its_request_and_nobody_else_anything() {
    let (mut answered, mut lost, mut refused) = (0, 0, 0);
    for seed in 1..=20 {
        let mut world = World::new();
        let (device, other) = pair();
        let mut wire = Wire(other);
        let limits = Limits {
            connections: 1000,
            half_open: 1000,
            tcp_rx_buffer: LARGE,
            tcp_tx_buffer: LARGE,
            ..Limits::default()
        };
        let (stack, runner) =
            Stack::new(&world.handle, device, SeedRng::new(seed), fixed(OURS, OURS6), limits).expect("a stack");
        let random = Rc::new(Cell::new(None));
        let runner = InShortage {
            future: Box::pin(runner.run()),
            random: Rc::clone(&random),
        };
        world.handle.spawn(runner).detach();
        let listener = stack.listen(7).unwrap();
        let socket = stack.udp(9).unwrap();
        let received = Rc::new(RefCell::new(Vec::new()));
        let reader = world.handle.spawn({
            let received = Rc::clone(&received);
            async move {
                let mut buffer = vec![0; 24_000];
                while let Ok((len, _)) = socket.recv_from(&mut buffer).await {
                    received.borrow_mut().push(buffer[..len].to_vec());
                }
            }
        });
        assert!(
            try_both(&mut world, &mut wire, 0),
            "it knows its neighbour from here on"
        );

        random.set(Some(seed));
        let connections = (1..100)
            .filter(|&number| try_both(&mut world, &mut wire, number))
            .count();
        let stats = stack.stats();
        assert_eq!(connections as u64 + stats.tcp_no_memory, 99);
        assert_eq!(connections as u64 + 1, stats.tcp_half_open);
        assert_eq!(received.borrow().len() as u64, stats.rx_reassembled);
        assert!(received.borrow().iter().all(|data| *data == pattern(20_000)));
        answered += connections;
        lost += 100 - received.borrow().len();

        // And when there is memory again, nothing is missing.
        random.set(None);
        received.borrow_mut().clear();
        assert!(try_both(&mut world, &mut wire, 100));
        assert_eq!(received.borrow().len(), 1);
        drop((reader, listener));
        world.pass(Duration::from_secs(600));
        assert_eq!((stack.stats().tcp_connections, stack.stats().udp_sockets), (0, 0));
        refused += REFUSED.take();
    }
    assert!(
        answered > 500 && lost > 100 && refused > 1000,
        "{answered} {lost} {refused}"
    );
}
