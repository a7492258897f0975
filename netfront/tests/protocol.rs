//! The pure half: slots to packets, packets to slots, keys.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use fata_grant::RingError;
use fata_hypercall::{GrantRef, Port};
use fata_netfront::abi::{ExtraInfo, Gso, GsoType, RxFlags, RxResponse, RxSlot, TxFlags, TxRequest, TxSlot};
use fata_netfront::assemble::{Assembled, Buffer, Dropped, MAX_FRAGMENTS, Packet, assemble};
use fata_netfront::features::{Key, Queue, agreement, identity, keys, parse_mac, parse_mtu};
use fata_netfront::split::{Layout, MAX_SLOTS, split};
use fata_netfront::{Agreement, Error, Fault, Identity, Offload, Options, RxChecksum, Segmentation};
use proptest::prelude::*;
use zerocopy::IntoBytes;

fn data(offset: u16, status: i16, flags: RxFlags) -> RxSlot {
    RxResponse {
        id: 0xffff,
        offset,
        flags,
        status,
    }
    .into()
}

fn extra(kind: u8, flags: u8) -> RxSlot {
    ExtraInfo {
        kind,
        flags,
        data: [0; 6],
    }
    .into()
}

fn gso(kind: GsoType, size: u16) -> Gso {
    let size = NonZeroU16::new(size).unwrap();
    Gso { kind, size }
}

const MORE: RxFlags = RxFlags::MORE_DATA;
const LAST: RxFlags = RxFlags::empty();

/// Runs `assemble` once; buffers are numbered from 100. Returns the result, the spare buffers, and the slots left.
fn run(slots: &[RxSlot]) -> (Result<Assembled, Fault>, Vec<Buffer>, usize) {
    let mut queue: VecDeque<_> = slots.iter().copied().zip(100..).collect();
    let mut spare = Vec::new();
    let result = assemble(
        || Ok(queue.pop_front().map(|(slot, buffer)| (buffer, slot))),
        |buffer| spare.push(buffer),
    );
    (result, spare, queue.len())
}

fn packet(slots: &[RxSlot]) -> (Packet, Vec<Buffer>) {
    match run(slots) {
        (Ok(Assembled::Packet(packet)), spare, 0) => (packet, spare),
        other => panic!("{other:?}"),
    }
}

fn dropped(slots: &[RxSlot]) -> (Dropped, Vec<Buffer>) {
    match run(slots) {
        (Ok(Assembled::Dropped(why)), mut spare, 0) => {
            spare.sort_unstable();
            (why, spare)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_38_golden_vectors_of_netif_h() {
    // gref 0x0a0b0c0d, offset 2048, flags csum_blank | data_validated | more_data, id 5, size 1514
    let flags = TxFlags::CSUM_BLANK | TxFlags::DATA_VALIDATED | TxFlags::MORE_DATA;
    let request = TxRequest {
        gref: 0x0a0b_0c0d,
        offset: 2048,
        flags,
        id: 5,
        size: 1514,
    };
    assert_eq!(
        request.as_bytes(),
        [0x0d, 0x0c, 0x0b, 0x0a, 0x00, 0x08, 0x07, 0x00, 0x05, 0x00, 0xea, 0x05]
    );
    let slot = data(64, 60, RxFlags::CSUM_BLANK);
    assert_eq!(slot.as_bytes(), [0xff, 0xff, 64, 0, 2, 0, 60, 0]);
    assert_eq!(extra(1, 1).as_bytes(), [1, 1, 0, 0, 0, 0, 0, 0]);
    // 1448 = 0x05a8 bytes a segment, TCP over IPv6.
    let gso = gso(GsoType::TcpV6, 1448);
    assert_eq!(ExtraInfo::gso(gso).as_bytes(), [1, 0, 0xa8, 5, 2, 0, 0, 0]);
    assert_eq!(ExtraInfo::gso(gso).as_gso(), Some(gso));
    let slot = TxSlot::from(ExtraInfo::gso(gso));
    assert_eq!(slot.as_bytes(), [1, 0, 0xa8, 5, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(TxSlot::from(request).as_bytes(), request.as_bytes());
}

/// NX b51facf: the two directions have these bits the other way round.
#[test]
fn rule_37_flags_of_the_two_directions_are_swapped() {
    assert_eq!((TxFlags::CSUM_BLANK.bits(), TxFlags::DATA_VALIDATED.bits()), (1, 2));
    assert_eq!((RxFlags::DATA_VALIDATED.bits(), RxFlags::CSUM_BLANK.bits()), (1, 2));
    assert_eq!(
        RxChecksum::from(RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED),
        RxChecksum::Blank
    );
    assert_eq!(RxChecksum::from(RxFlags::DATA_VALIDATED), RxChecksum::Validated);
    assert_eq!(RxChecksum::from(RxFlags::MORE_DATA), RxChecksum::Unknown);
}

#[test]
fn one_slot_is_a_packet() {
    assert!(matches!(run(&[]).0, Ok(Assembled::Nothing)));
    let (packet, spare) = packet(&[data(2, 60, RxFlags::CSUM_BLANK)]);
    let [fragment] = packet.fragments() else { panic!() };
    assert_eq!((fragment.buffer, fragment.offset, fragment.len), (100, 2, 60));
    assert_eq!(
        (packet.len(), packet.flags(), spare.len()),
        (60, RxFlags::CSUM_BLANK, 0)
    );
}

/// NX b51facf, rule 36: the position names the buffer, and an extra's buffer comes back.
#[test]
fn extras_take_slots_and_give_their_buffers_back() {
    let first = data(0, 4096, MORE | RxFlags::EXTRA_INFO);
    let (packet, spare) = packet(&[first, extra(4, 1), extra(5, 0), data(0, 1000, MORE), data(8, 9, LAST)]);
    assert_eq!(
        packet.fragments().iter().map(|f| f.buffer).collect::<Vec<_>>(),
        [100, 103, 104]
    );
    assert_eq!(spare, [101, 102]);
    assert_eq!(packet.len(), 5105);
}

#[test]
fn rule_32_impossible_extras_are_faults() {
    let first = data(0, 60, RxFlags::EXTRA_INFO);
    let fault = |slots: &[RxSlot]| run(slots).0.unwrap_err();
    assert_eq!(fault(&[first]), Fault::RxTruncated);
    assert_eq!(fault(&[first, extra(4, 1)]), Fault::RxTruncated);
    assert_eq!(fault(&[first, extra(0, 0)]), Fault::RxExtra(0));
    assert_eq!(fault(&[first, extra(6, 0)]), Fault::RxExtra(6));
    assert_eq!(fault(&[first, extra(255, 0)]), Fault::RxExtra(255));
    assert_eq!(
        fault(&[first, extra(4, 1), extra(5, 1), extra(4, 1)]),
        Fault::RxExtraTwice(4)
    );
}

#[test]
fn rule_35_segments_have_a_size_and_a_type() {
    let first = data(0, 4096, MORE | RxFlags::EXTRA_INFO);
    for gso in [
        gso(GsoType::TcpV4, 1448),
        gso(GsoType::TcpV6, 1),
        gso(GsoType::TcpV4, 65535),
    ] {
        let (packet, spare) = packet(&[first, ExtraInfo::gso(gso).into(), data(0, 4096, LAST)]);
        assert_eq!((packet.len(), packet.gso()), (8192, Some(gso)));
        assert_eq!(spare, [101], "the buffer under the extra");
    }
    for (size, kind) in [(0, 1), (1448, 0), (1448, 3), (1448, 255)] {
        let mut slot = ExtraInfo::gso(gso(GsoType::TcpV4, 1));
        (slot.data[0], slot.data[1], slot.data[2]) = (size as u8, (size >> 8) as u8, kind);
        let (result, ..) = run(&[first, slot.into(), data(0, 4096, LAST)]);
        assert_eq!(result.unwrap_err(), Fault::RxGso, "size {size}, type {kind}");
    }
}

/// Rule 17: -1 is an error, not 65535 bytes.
#[test]
fn rule_17_a_negative_status_drops_the_packet_and_keeps_the_next() {
    assert_eq!(dropped(&[data(0, -1, LAST)]), (Dropped::Status(-1), vec![100]));
    let slots = [
        data(0, 100, MORE),
        data(0, -2, MORE),
        data(0, 100, LAST),
        data(0, 77, LAST),
    ];
    let (result, mut spare, left) = run(&slots);
    assert!(matches!(result, Ok(Assembled::Dropped(Dropped::Status(-2)))));
    spare.sort_unstable();
    assert_eq!((spare, left), (vec![100, 101, 102], 1));
}

/// Rule 34.
#[test]
fn rule_34_bytes_stay_in_their_page() {
    assert!(run(&[data(4082, 14, LAST)]).0.is_ok());
    for (offset, len) in [(4083, 14), (4097, 0), (0, 4097), (65535, 32767), (1, 4096)] {
        assert_eq!(
            run(&[data(offset, len, LAST)]).0.unwrap_err(),
            Fault::RxBounds {
                offset,
                len: len as u16
            }
        );
    }
}

/// Rule 33.
#[test]
fn rule_33_packets_have_a_length_and_a_number_of_slots() {
    let full = |n: usize| {
        let mut slots = vec![data(0, 4096, MORE); n];
        slots[n - 1] = data(0, 4095, LAST);
        slots
    };
    assert_eq!(packet(&full(16)).0.len(), 65535);
    assert_eq!(dropped(&full(17)).0, Dropped::TooLong);
    let short = |n: usize| {
        let mut slots = vec![data(0, 14, MORE); n];
        slots[n - 1] = data(0, 14, LAST);
        slots
    };
    assert_eq!(packet(&short(MAX_FRAGMENTS)).0.fragments().len(), 19);
    let (why, spare) = dropped(&short(100));
    assert_eq!((why, spare.len()), (Dropped::TooManySlots, 100));
    assert_eq!(dropped(&[data(0, 13, LAST)]).0, Dropped::TooShort);
    assert_eq!(
        packet(&[data(0, 0, MORE), data(0, 14, LAST)]).0.len(),
        14,
        "an empty head is odd, not wrong"
    );
    assert_eq!(run(&[data(0, 14, MORE)]).0.unwrap_err(), Fault::RxTruncated);
}

#[test]
fn a_broken_ring_ends_it() {
    let fault = Fault::RxRing(RingError {
        claimed: 9,
        own: 0,
        limit: 1,
    });
    assert_eq!(assemble(|| Err(fault), |_| ()).unwrap_err(), fault);
}

proptest! {
    /// Any bytes: an answer or a fault; and each buffer is in exactly one place.
    #[test]
    fn any_slots_are_survived(slots in prop::collection::vec(any::<[u8; 8]>(), 0..300), tame in any::<bool>()) {
        let slots: Vec<RxSlot> = slots.into_iter().map(|mut bytes| {
            if tame {
                // Mostly plausible, so that packets get long.
                (bytes[2], bytes[3], bytes[5], bytes[7]) = (0, 0, 0, bytes[7] & 0x0f);
                bytes[4] &= if bytes[0] < 40 { 0 } else { 7 };
            }
            zerocopy::transmute!(bytes)
        }).collect();
        let mut left = &slots[..];
        loop {
            let (result, mut seen, rest) = run(left);
            match result {
                Ok(Assembled::Nothing) => break,
                Ok(Assembled::Dropped(_)) => {}
                Ok(Assembled::Packet(packet)) => {
                    let len: usize = packet.fragments().iter().map(|f| usize::from(f.len)).sum();
                    prop_assert_eq!(len, packet.len());
                    prop_assert!((14..=65535).contains(&len));
                    prop_assert!(packet.fragments().iter().all(|f| f.offset + f.len <= 4096));
                    seen.extend(packet.fragments().iter().map(|f| f.buffer));
                }
                Err(_) => break,
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (100..100 + (left.len() - rest) as u16).collect::<Vec<_>>());
            left = &left[left.len() - rest..];
        }
    }

    #[test]
    fn rule_38_a_packet_is_cut_at_page_boundaries(start in 0..100_000_usize, len in 1..=65535_usize) {
        let pieces: Vec<_> = split(start, len).collect();
        prop_assert_eq!(usize::from(pieces[0].size), len, "the first slot has the size of all: NX 2.1.4");
        let mut at = start;
        let mut left = len;
        for (i, piece) in pieces.iter().enumerate() {
            prop_assert_eq!(piece.page * 4096 + usize::from(piece.offset), at);
            let own = if i == 0 { len - pieces[1..].iter().map(|p| usize::from(p.size)).sum::<usize>() } else { piece.size.into() };
            prop_assert!(own > 0 && usize::from(piece.offset) + own <= 4096);
            prop_assert_eq!(piece.more, own < left);
            at += own;
            left -= own;
        }
        prop_assert_eq!(left, 0);
    }

    /// Whatever the MTU: a frame has room, stays within what a backend takes, and the ring has slots for all.
    #[test]
    fn rule_31_buffers_fit_every_mtu(mtu in 68..=65521_usize, count in 1..=256_usize) {
        let longest = mtu + 14;
        let layout = Layout::new(longest, count, 256);
        prop_assert!(layout.stride >= longest && layout.count >= 1 && layout.count <= count);
        prop_assert!(layout.count * layout.slots <= 256);
        prop_assert!(layout.slots <= MAX_SLOTS);
        for buffer in 0..layout.count {
            let pieces: Vec<_> = split(buffer * layout.stride, longest).collect();
            prop_assert!(pieces.len() <= layout.slots);
            prop_assert!(pieces.iter().all(|piece| piece.page < layout.pages()));
            let rest: usize = pieces[1..].iter().map(|p| usize::from(p.size)).sum();
            prop_assert!(longest - rest >= 14, "the head is in the first slot");
        }
    }

    #[test]
    fn an_ordinary_frame_takes_one_slot(buffer in 0..64_usize, len in 14..=1514_usize) {
        let layout = Layout::new(1514, 64, 256);
        prop_assert_eq!((layout.stride, layout.pages()), (2048, 32));
        prop_assert_eq!(split(buffer * layout.stride, len).count(), 1);
    }
}

#[test]
fn half_a_page_is_enough_for_what_fits_it() {
    for (longest, stride, pages) in [
        (14, 2048, 2),
        (2048, 2048, 2),
        (2049, 4096, 3),
        (4096, 4096, 3),
        (4097, 8192, 6),
    ] {
        let layout = Layout::new(longest, 3, 256);
        assert_eq!(
            (layout.stride, layout.count, layout.pages()),
            (stride, 3, pages),
            "{longest} bytes"
        );
    }
}

/// The keys with values, and those that must not be there.
fn written(agreement: Agreement, queues: &[Queue]) -> (Vec<String>, Vec<String>) {
    let (there, gone): (Vec<Key>, Vec<Key>) = keys(&agreement, queues)
        .into_iter()
        .partition(|(_, value)| value.is_some());
    let text = |(key, value): Key| format!("{key} = {}", value.unwrap());
    (
        there.into_iter().map(text).collect(),
        gone.into_iter().map(|(key, _)| key).collect(),
    )
}

const QUEUE: Queue = Queue {
    tx_ring: GrantRef(8),
    rx_ring: GrantRef(9),
    tx_port: Port(7),
    rx_port: Port(7),
};

#[test]
fn keys_are_those_of_netif_h() {
    let (there, gone) = written(Agreement::default(), &[QUEUE]);
    assert_eq!(
        there,
        [
            "request-multicast-control = 0",
            "request-rx-copy = 1",
            "feature-rx-notify = 1",
            "feature-sg = 1",
            "feature-ipv6-csum-offload = 1",
            "feature-gso-tcpv4 = 1",
            "feature-gso-tcpv6 = 1",
            "tx-ring-ref = 8",
            "rx-ring-ref = 9",
            "event-channel = 7",
        ]
    );
    assert_eq!(gone, ["multi-queue-num-queues", "event-channel-tx", "event-channel-rx"]);

    let split = Queue {
        rx_port: Port(6),
        ..QUEUE
    };
    let all = Agreement {
        split_channels: true,
        filters_multicast: true,
        queues: Some(1),
    };
    let (there, gone) = written(all, &[split]);
    assert_eq!(
        there[..2],
        ["multi-queue-num-queues = 1", "request-multicast-control = 1"]
    );
    assert_eq!(
        there[8..],
        [
            "tx-ring-ref = 8",
            "rx-ring-ref = 9",
            "event-channel-tx = 7",
            "event-channel-rx = 6"
        ]
    );
    assert_eq!(gone, ["event-channel"]);
}

/// The example in netif.h, and single channels.
#[test]
fn several_queues_have_a_directory_each() {
    let two = Agreement {
        queues: Some(2),
        ..Agreement::default()
    };
    let split = Queue {
        rx_port: Port(6),
        ..QUEUE
    };
    let (there, gone) = written(two, &[split, QUEUE]);
    assert_eq!(there[0], "multi-queue-num-queues = 2");
    assert_eq!(
        there[8..],
        [
            "queue-0/tx-ring-ref = 8",
            "queue-0/rx-ring-ref = 9",
            "queue-0/event-channel-tx = 7",
            "queue-0/event-channel-rx = 6",
            "queue-1/tx-ring-ref = 8",
            "queue-1/rx-ring-ref = 9",
            "queue-1/event-channel = 7",
        ]
    );
    assert_eq!(
        gone,
        [
            "queue-0/event-channel",
            "queue-1/event-channel-tx",
            "queue-1/event-channel-rx"
        ]
    );
}

#[test]
fn rule_69_what_is_done_is_what_is_offered_and_wanted() {
    let agree = |values: [&str; 3], wanted: bool| {
        let values = values.map(|value| (value != "-").then(|| value.as_bytes().to_vec()));
        let options = Options {
            split_channels: wanted,
            filter_multicast: wanted,
            ..Options::default()
        };
        agreement(&values, &options)
    };
    let all = Agreement {
        split_channels: true,
        filters_multicast: true,
        queues: Some(1),
    };
    assert_eq!(agree(["1", "1", "2"], true), Ok(all));
    assert_eq!(agree(["1", "1", "4294967295"], true), Ok(all));
    assert_eq!(agree(["0", "0", "-"], true), Ok(Agreement::default()));
    assert_eq!(agree(["1", "1", "-"], false), Ok(Agreement::default()));
    let one = |split_channels| Agreement {
        split_channels,
        filters_multicast: !split_channels,
        queues: None,
    };
    assert_eq!(agree(["1", "0", "-"], true), Ok(one(true)));
    assert_eq!(agree(["0", "1", "-"], true), Ok(one(false)));
    for queues in ["0", "4294967296", "-1", "1 ", "two", ""] {
        assert_eq!(
            agree(["1", "1", queues], true),
            Err(Error::BadKey("multi-queue-max-queues")),
            "{queues:?}"
        );
    }
    assert_eq!(
        agree(["x", "1", "1"], false),
        Err(Error::BadKey("feature-split-event-channels"))
    );
    assert_eq!(
        agree(["1", "x", "1"], false),
        Err(Error::BadKey("feature-multicast-control"))
    );
}

#[test]
fn an_extra_about_a_group_is_that_of_netif_h() {
    let slot: TxSlot = ExtraInfo::multicast(ExtraInfo::TYPE_MULTICAST_ADD, [1, 0, 0x5e, 0, 0, 251]).into();
    assert_eq!(slot.as_bytes(), [2, 0, 1, 0, 0x5e, 0, 0, 251, 0, 0, 0, 0]);
    let slot: TxSlot = ExtraInfo::multicast(ExtraInfo::TYPE_MULTICAST_DEL, [0x33, 0x33, 0, 0, 0, 1]).into();
    assert_eq!(slot.as_bytes(), [3, 0, 0x33, 0x33, 0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn rule_69_an_interface_is_what_its_keys_say() {
    let read = |values: [&str; 7]| {
        let values = values.map(|value| (value != "-").then(|| value.as_bytes().to_vec()));
        identity(&values, 20_000)
    };
    let mac = "00:16:3e:00:00:01";
    let most = Identity {
        mac: [0, 0x16, 0x3e, 0, 0, 1],
        mtu: 9000,
        offload: Offload { ipv4: true, ipv6: true },
        segmentation: Segmentation {
            ipv4: true,
            ipv6: true,
            longest: 20_000,
        },
    };
    assert_eq!(read([mac, "9000", "1", "-", "1", "1", "1"]), Ok(most));
    let least = Identity {
        mtu: 1500,
        offload: Offload::default(),
        segmentation: Segmentation::default(),
        ..most
    };
    assert_eq!(read([mac, "9000", "0", "1", "0", "1", "1"]), Ok(least));
    let silent = Identity {
        offload: Offload {
            ipv4: true,
            ipv6: false,
        },
        ..least
    };
    assert_eq!(read([mac, "-", "-", "-", "-", "-", "-"]), Ok(silent));
    let keys = [
        "mac",
        "mtu",
        "feature-sg",
        "feature-no-csum-offload",
        "feature-ipv6-csum-offload",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
    ];
    for (place, key) in keys.into_iter().enumerate() {
        let mut values = [mac, "9000", "1", "0", "1", "1", "1"];
        values[place] = "junk";
        assert_eq!(read(values), Err(Error::BadKey(key)));
    }
    assert_eq!(read(["-"; 7]), Err(Error::BadKey("mac")));
}

/// Who cuts segments fills in their checksums and takes them in several slots: without these, no segmentation.
#[test]
fn segments_need_scatter_gather_and_blank_checksums() {
    let read = |values: [&str; 5], longest| {
        let ours = ["00:16:3e:00:00:01", "1500"];
        let values = ours.iter().chain(&values).map(|value| Some(value.as_bytes().to_vec()));
        let segmentation = identity(&values.collect::<Vec<_>>(), longest).unwrap().segmentation;
        (segmentation.ipv4, segmentation.ipv6, segmentation.longest)
    };
    assert_eq!(read(["1", "0", "1", "1", "1"], 65535), (true, true, 65535));
    assert_eq!(read(["0", "0", "1", "1", "1"], 65535), (false, false, 0), "one slot");
    assert_eq!(read(["1", "1", "1", "1", "1"], 65535), (false, true, 65535));
    assert_eq!(read(["1", "0", "0", "1", "1"], 65535), (true, false, 65535));
    assert_eq!(read(["1", "0", "1", "0", "1"], 65535), (false, true, 65535));
    assert_eq!(read(["1", "0", "1", "1", "1"], 0), (false, false, 0), "no buffers");
    assert_eq!(
        read(["1", "0", "1", "1", "1"], 1514),
        (false, false, 0),
        "no longer than others"
    );
}

#[test]
fn rule_69_addresses_and_sizes_are_parsed_with_length_and_range() {
    assert_eq!(parse_mac(b"00:16:3e:01:02:FF"), Some([0, 0x16, 0x3e, 1, 2, 255]));
    for junk in [
        "",
        "00:16:3e:01:02",
        "00:16:3e:01:02:03:04",
        "0:16:3e:01:02:03",
        "00:16:3e:01:02:0g",
        "00-16-3e-01-02-03",
        "00:16:3e:01:02:03\0",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "+0:16:3e:01:02:03",
    ] {
        assert_eq!(parse_mac(junk.as_bytes()), None, "{junk:?}");
    }
    assert_eq!((parse_mtu(b"68"), parse_mtu(b"65521")), (Some(68), Some(65521)));
    for junk in ["", "67", "65522", "-1", "1500 ", "1e3", "99999999999999999999999"] {
        assert_eq!(parse_mtu(junk.as_bytes()), None, "{junk:?}");
    }
}
