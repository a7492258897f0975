//! Xenstore messages, as a guest and as a server read them. The first byte is what was asked for, the second how the
//! stream is cut, the rest the stream.
#![no_main]

use fata_xenstore::Error;
use fata_xenstore::wire::{
    Assembler, DirectoryParts, MessageType, PAYLOAD_MAX, Packet, PartProgress, Reply, Request, WatchEvent,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [asked, cut, stream @ ..] = input else { return };
    let asked = MessageType(u32::from(*asked));
    let mut assembler = Assembler::new();
    let mut parts = DirectoryParts::new();
    let mut rest = stream;
    for piece in stream.chunks(usize::from(*cut) + 1) {
        let mut piece = piece;
        while !piece.is_empty() {
            let Ok(taken) = assembler.feed(piece) else {
                assert_eq!(Packet::parse(rest), Err(Error::TooLong), "both refuse the same");
                return;
            };
            piece = &piece[taken..];
            let Some(packet) = assembler.packet() else { continue };
            let (same, after) = Packet::parse(rest).unwrap().expect("both find the same");
            assert_eq!(packet, same);
            rest = after;
            read(asked, packet);
            if list(&mut parts, packet) {
                parts = DirectoryParts::new();
            }
            assembler.clear();
        }
    }
});

/// What can be read is written as it came, or at least is read again as the same.
fn read(asked: MessageType, packet: Packet<'_>) {
    assert!(packet.payload.len() <= PAYLOAD_MAX);
    let mut bytes = Vec::new();
    packet.encode(&mut bytes).unwrap();
    assert_eq!(Packet::parse(&bytes), Ok(Some((packet, &[][..]))));

    let mut bytes = Vec::new();
    if let Ok(request) = Request::parse(packet) {
        request.encode(packet.req_id, packet.tx_id, &mut bytes).unwrap();
        let (again, rest) = Packet::parse(&bytes).unwrap().unwrap();
        assert!(rest.is_empty());
        assert_eq!(Request::parse(again), Ok(request));
    }
    let mut payload = Vec::new();
    if let Ok(event) = WatchEvent::parse(packet.payload) {
        event.encode(&mut payload);
        assert_eq!(payload, packet.payload);
    }
    payload.clear();
    if let Ok(reply) = Reply::parse(asked, packet) {
        reply.encode(&mut payload);
        if let Reply::Names(names) | Reply::Part { names, .. } = &reply {
            assert!(names.valid().count() <= names.iter().count());
        }
        // Two that only newer servers send are written without the NUL that they are read with.
        if ![MessageType::GET_FEATURE, MessageType::GET_QUOTA].contains(&asked) {
            let again = Packet {
                payload: &payload,
                ..packet
            };
            assert_eq!(Reply::parse(asked, again), Ok(reply));
        }
    }
}

/// Takes the message as one more piece of a list. `true` when the list has ended, for better or worse.
fn list(parts: &mut DirectoryParts, packet: Packet<'_>) -> bool {
    let Ok(Reply::Part { generation, names }) = Reply::parse(MessageType::DIRECTORY_PART, packet) else {
        return false;
    };
    match parts.add(generation, names) {
        Ok(PartProgress::Continue(offset)) => {
            assert!(offset as usize <= DirectoryParts::MAX);
            false
        }
        Ok(PartProgress::Complete) => {
            let names = std::mem::take(parts).into_names();
            assert!(names.len() <= DirectoryParts::MAX && names.last().is_none_or(|&last| last == 0));
            true
        }
        Err(_) => true,
    }
}
