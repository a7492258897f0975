//! Much data over one connection.

mod echo;
mod world;

use std::net::SocketAddr;

use echo::serve_echo;
use embedded_io_async::{Read, Write};
use fata_net::pair::Faults;
use fata_net::{ChecksumOffload, Limits, SegmentationOffload, Stack};
use world::{OURS, OURS6, THEIRS, World, at, pattern};

/// Sends `len` bytes and gets them back.
async fn exchange(stack: Stack, to: SocketAddr, len: usize) {
    let mut stream = stack.connect(to).await.unwrap();
    let sent = pattern(len);
    let mut got = vec![0; len];
    {
        let (mut reader, mut writer) = stream.split();
        let write = async {
            writer.write_all(&sent).await.unwrap();
        };
        let read = async {
            reader.read_exact(&mut got).await.unwrap();
        };
        fata_events::join::join(write, read).await;
    }
    assert!(got == sent, "the echo differs");
    stream.close().await.unwrap();
}

#[test]
fn megabytes_come_back() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    serve_echo(&world, &ours);
    world.run(exchange(theirs.clone(), at(OURS, 7), 4 << 20));
    world.run(exchange(theirs, at(OURS6, 7), 1 << 20));
    assert_eq!(ours.stats().rx_bad_checksum, 0);
}

#[test]
fn megabytes_come_back_over_a_bad_wire() {
    for seed in 1..=4 {
        let mut world = World::new();
        let (ours, theirs, left, right) = world.stacks(Limits::default());
        let faults = Faults {
            loss: 10,
            duplicates: 10,
            reordered: 20,
            corrupted: 5,
            seed,
        };
        left.set_faults(faults);
        right.set_faults(Faults {
            seed: seed + 100,
            ..faults
        });
        serve_echo(&world, &ours);
        world.run(exchange(theirs.clone(), at(OURS, 7), 1 << 20));
        let bad = ours.stats().rx_bad_checksum + theirs.stats().rx_bad_checksum;
        assert!(bad > 0, "the checksums have caught something");
    }
}

#[test]
fn megabytes_come_back_with_every_offload() {
    let all = [
        ChecksumOffload::NONE,
        ChecksumOffload::ALL,
        ChecksumOffload {
            ipv4: true,
            ipv6: false,
        },
    ];
    for offload in all {
        let mut world = World::new();
        let (one, two) = fata_net::pair::pair();
        for device in [&one, &two] {
            device
                .control()
                .set_capabilities(|capabilities| capabilities.tx_checksum = offload);
        }
        let ours = world.stack(one, world::fixed(OURS, OURS6), Limits::default(), 1);
        let theirs = world.stack(two, world::fixed(THEIRS, world::THEIRS6), Limits::default(), 2);
        serve_echo(&world, &ours);
        world.run(exchange(theirs.clone(), at(OURS, 7), 1 << 18));
        world.run(exchange(theirs, at(OURS6, 7), 1 << 18));
        assert_eq!(ours.stats().rx_bad_checksum, 0);
    }
}

/// With segmentation offload segments are as long as the buffers and the device allow, also where some are lost.
#[test]
fn megabytes_come_back_in_long_segments() {
    let limits = Limits {
        tcp_rx_buffer: 256 << 10,
        tcp_tx_buffer: 256 << 10,
        ..Limits::default()
    };
    for (longest, loss) in [(4000, 0), (65_535, 0), (65_535, 10)] {
        let mut world = World::new();
        let (one, two) = fata_net::pair::pair();
        for device in [&one, &two] {
            let control = device.control();
            control.set_faults(Faults {
                loss,
                seed: 1,
                ..Faults::default()
            });
            control.set_capabilities(|capabilities| {
                capabilities.tx_checksum = ChecksumOffload::ALL;
                capabilities.tx_segmentation = SegmentationOffload {
                    ipv4: true,
                    ipv6: true,
                    longest,
                };
            });
        }
        let ours = world.stack(one, world::fixed(OURS, OURS6), limits, 1);
        let theirs = world.stack(two, world::fixed(THEIRS, world::THEIRS6), limits, 2);
        serve_echo(&world, &ours);
        world.run(exchange(theirs.clone(), at(OURS, 7), 4 << 20));
        let stats = theirs.stats();
        // Acknowledgements and the slow start are among them.
        let mean = stats.tx_bytes / stats.tx_frames;
        assert!(
            mean > u64::from(longest) / 8 && mean <= u64::from(longest),
            "{mean} bytes a frame of {longest} at most, loss {loss}"
        );
        // Not long, see `device_capabilities`.
        world.run(exchange(theirs.clone(), at(OURS6, 7), 1 << 20));
        assert_eq!(ours.stats().rx_bad_checksum, 0);
    }
}

#[test]
fn a_small_ring_slows_but_does_not_stop() {
    let mut world = World::new();
    let (ours, theirs, left, right) = world.stacks(Limits::default());
    left.set_capacity(3);
    right.set_capacity(2);
    serve_echo(&world, &ours);
    world.run(exchange(theirs, at(OURS, 7), 1 << 19));
}

#[test]
fn a_burst_is_flushed_once() {
    let mut world = World::new();
    let limits = Limits {
        tcp_rx_buffer: 60_000,
        tcp_tx_buffer: 60_000,
        ..Limits::default()
    };
    let (ours, theirs, _, right) = world.stacks(limits);
    serve_echo(&world, &ours);
    world.run(exchange(theirs.clone(), at(OURS, 7), 4 << 20));
    let (frames, flushes) = (theirs.stats().tx_frames, right.flushes());
    assert!(flushes * 2 < frames, "{flushes} flushes for {frames} frames");
}
