//! Properties of the wire format: what is encoded is read back, and nothing that a peer sends can do more than fail.

use fata_hypercall::{DomId, Errno};
use fata_xenstore::wire::{
    Access, Assembler, DirectoryParts, Header, MessageType, Names, PAYLOAD_MAX, Packet, Path, Permission, Reply,
    Request, WatchEvent,
};
use fata_xenstore::xenbus::State;
use fata_xenstore::{Error, control, decimal};
use proptest::collection::vec;
use proptest::prelude::*;

fn path() -> impl Strategy<Value = String> {
    "/?[a-zA-Z0-9_@-]{1,20}(/[a-zA-Z0-9_@-]{1,20}){0,8}"
}

fn permission() -> impl Strategy<Value = Permission> {
    let access = prop_oneof![
        Just(Access::None),
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::Both)
    ];
    (access, any::<u16>()).prop_map(|(access, domain)| Permission {
        access,
        domain: DomId(domain),
    })
}

/// One of every request a guest may send.
fn requests<'a>(
    path: Path<'a>,
    bytes: &'a [u8],
    token: &'a [u8],
    number: u32,
    permissions: &'a [Permission],
) -> Vec<Request<'a>> {
    let domain = DomId(number as u16);
    vec![
        Request::Directory(path),
        Request::DirectoryPart { path, offset: number },
        Request::Read(path),
        Request::Write { path, value: bytes },
        Request::Mkdir(path),
        Request::Rm(path),
        Request::GetPerms(path),
        Request::SetPerms {
            path,
            permissions: permissions.into(),
        },
        Request::Watch {
            path,
            token,
            depth: None,
        },
        Request::Watch {
            path,
            token,
            depth: Some(number),
        },
        Request::Unwatch { path, token },
        Request::TransactionStart,
        Request::TransactionEnd(true),
        Request::TransactionEnd(false),
        Request::GetDomainPath(domain),
        Request::IsDomainIntroduced(domain),
        Request::ResetWatches,
        Request::GetFeature,
        Request::GetQuota(None),
        Request::GetQuota(Some(token)),
    ]
}

/// All types, known ones and others.
fn kinds() -> impl Iterator<Item = MessageType> {
    (0..30).chain([0xffff, u32::MAX]).map(MessageType)
}

/// The parts of what a stream gives, however it is cut.
fn reassemble(stream: &[u8], cuts: &[usize]) -> Result<Vec<(Header, Vec<u8>)>, Error> {
    let mut assembler = Assembler::new();
    let mut messages = Vec::new();
    let mut rest = stream;
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (mut piece, later) = rest.split_at(cut.min(rest.len()));
        rest = later;
        loop {
            let taken = assembler.feed(piece)?;
            piece = &piece[taken..];
            let Some(packet) = assembler.packet() else { break };
            let Packet {
                kind,
                req_id,
                tx_id,
                payload,
            } = packet;
            messages.push((
                Header {
                    kind,
                    req_id,
                    tx_id,
                    len: payload.len() as u32,
                },
                payload.to_vec(),
            ));
            assembler.clear();
        }
        assert!(piece.is_empty(), "it takes all that is not a message of its own");
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn requests_are_read_back(
        path in path(),
        bytes in vec(any::<u8>(), 0..2000),
        token in "[0-9a-z]{0,16}",
        number in any::<u32>(),
        permissions in vec(permission(), 1..6),
        req_id in any::<u32>(),
        tx_id in any::<u32>(),
    ) {
        let path = Path::new(&path).unwrap();
        for request in requests(path, &bytes, token.as_bytes(), number, &permissions) {
            let mut message = Vec::new();
            request.encode(req_id, tx_id, &mut message).unwrap();
            let (packet, rest) = Packet::parse(&message).unwrap().unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!((packet.kind, packet.req_id, packet.tx_id), (request.kind(), req_id, tx_id));
            prop_assert_eq!(Request::parse(packet).unwrap(), request);
        }
    }

    #[test]
    fn replies_are_read_back(
        path in path(),
        bytes in vec(any::<u8>(), 0..PAYLOAD_MAX),
        names in vec("[a-z0-9]{1,12}", 0..20),
        permissions in vec(permission(), 1..6),
        number in 1..=u32::MAX,
        flag in any::<bool>(),
    ) {
        let path = Path::new(&path).unwrap();
        let names: Vec<u8> = names.iter().flat_map(|name| name.bytes().chain([0])).collect();
        let names = Names::parse(&names).unwrap();
        let replies = [
            (MessageType::WRITE, Reply::Ok),
            (MessageType::READ, Reply::Value(&bytes)),
            (MessageType::DIRECTORY, Reply::Names(names)),
            (MessageType::DIRECTORY_PART, Reply::Part { generation: b"17", names }),
            (MessageType::GET_PERMS, Reply::Permissions(permissions)),
            (MessageType::TRANSACTION_START, Reply::Transaction(number)),
            (MessageType::GET_DOMAIN_PATH, Reply::Path(path)),
            (MessageType::IS_DOMAIN_INTRODUCED, Reply::Flag(flag)),
        ];
        for (kind, reply) in replies {
            let mut payload = Vec::new();
            reply.encode(&mut payload);
            let packet = Packet { kind, req_id: 1, tx_id: 0, payload: &payload };
            prop_assert_eq!(Reply::parse(kind, packet).unwrap(), reply);
            if payload != b"OK\0" {
                prop_assert!(kind == MessageType::READ || Reply::parse(MessageType::WRITE, packet).is_err());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_rule_61(payload in vec(any::<u8>(), 0..300), generation in any::<u8>()) {
        for kind in kinds() {
            let packet = Packet { kind, req_id: 1, tx_id: 2, payload: &payload };
            for asked in kinds() {
                let _ = Reply::parse(asked, packet);
            }
            if let Ok(request) = Request::parse(packet) {
                // What could be read can be sent, and means the same.
                let mut message = Vec::new();
                request.encode(1, 2, &mut message).unwrap();
                let (packet, _) = Packet::parse(&message).unwrap().unwrap();
                prop_assert_eq!(Request::parse(packet).unwrap(), request);
            }
        }
        let _ = WatchEvent::parse(&payload);
        let _ = Packet::parse(&payload);
        let _ = Path::from_bytes(&payload);
        let _ = State::parse(&payload);
        let _ = control::Request::parse(&payload);
        let _ = decimal::parse(&payload, 0..=u64::MAX);
        if let Ok(names) = Names::parse(&payload) {
            prop_assert!(names.valid().all(|name| Path::new(name).is_ok()));
            let mut parts = DirectoryParts::new();
            for _ in 0..20 {
                if parts.add(&[generation], names).is_err() {
                    break;
                }
            }
        }
    }

    /// The same with the alphabet that the protocol is made of, which gets further than noise does.
    #[test]
    fn nearly_valid_bytes_never_panic_rule_61(payload in "[\0a/0-9TFOKrwbn@-]{0,40}") {
        for kind in kinds() {
            let packet = Packet { kind, req_id: 1, tx_id: 2, payload: payload.as_bytes() };
            let _ = Reply::parse(kind, packet);
            let _ = Request::parse(packet);
        }
        let _ = WatchEvent::parse(payload.as_bytes());
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(
        messages in vec((any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..400)), 0..8),
        cuts in vec(0_usize..200, 0..60),
    ) {
        let mut stream = Vec::new();
        for (kind, req_id, payload) in &messages {
            Packet { kind: MessageType(*kind), req_id: *req_id, tx_id: 0, payload }.encode(&mut stream).unwrap();
        }
        let found = reassemble(&stream, &cuts).unwrap();
        prop_assert_eq!(found.len(), messages.len());
        for ((header, payload), (kind, req_id, sent)) in found.iter().zip(&messages) {
            prop_assert_eq!((header.kind.0, header.req_id), (*kind, *req_id));
            prop_assert_eq!(payload, sent);
        }
    }

    #[test]
    fn an_arbitrary_stream_never_panics_and_takes_bounded_memory(
        stream in vec(any::<u8>(), 0..3000),
        cuts in vec(0_usize..200, 0..60),
    ) {
        let _ = reassemble(&stream, &cuts);
    }

    #[test]
    fn decimal_numbers_are_read_back(number in any::<u64>(), zeroes in 0_usize..5) {
        let text = "0".repeat(zeroes) + &decimal::string(number);
        prop_assert_eq!(decimal::parse(text.as_bytes(), 0..=u64::MAX), Some(number));
    }
}

#[test]
fn headers_are_little_endian_words() {
    let header = Header {
        kind: MessageType(0x0102_0304),
        req_id: 5,
        tx_id: 6,
        len: 0x0708_090a,
    };
    assert_eq!(header.encode(), [4, 3, 2, 1, 5, 0, 0, 0, 6, 0, 0, 0, 0x0a, 9, 8, 7]);
}

/// Payloads as the table in `xen:docs/misc/xenstore.txt` gives them.
#[test]
fn requests_look_as_the_specification_says() {
    let path = Path::new("a/b").unwrap();
    let permissions = [
        Permission {
            access: Access::None,
            domain: DomId(0),
        },
        Permission {
            access: Access::Both,
            domain: DomId(12),
        },
    ];
    let expected: [(u32, &[u8]); 20] = [
        (1, b"a/b\0"),
        (22, b"a/b\x0077\0"),
        (2, b"a/b\0"),
        (11, b"a/b\0xy"),
        (12, b"a/b\0"),
        (13, b"a/b\0"),
        (3, b"a/b\0"),
        (14, b"a/b\0n0\0b12\0"),
        (4, b"a/b\0t\0"),
        (4, b"a/b\0t\x0077\0"),
        (5, b"a/b\0t\0"),
        (6, b"\0"),
        (7, b"T\0"),
        (7, b"F\0"),
        (10, b"77\0"),
        (17, b"77\0"),
        (21, b"\0"),
        (23, b""),
        (25, b""),
        (25, b"t\0"),
    ];
    for (request, (kind, payload)) in requests(path, b"xy", b"t", 77, &permissions).iter().zip(expected) {
        let mut message = Vec::new();
        request.encode(3, 4, &mut message).unwrap();
        assert_eq!(request.kind(), MessageType(kind));
        assert_eq!(&message[16..], payload, "{request:?}");
        assert_eq!(
            message[..16],
            Header {
                kind: MessageType(kind),
                req_id: 3,
                tx_id: 4,
                len: payload.len() as u32
            }
            .encode()
        );
    }
}

#[test]
fn replies_look_as_the_specification_says() {
    let kinds = |asked| {
        move |payload| Packet {
            kind: asked,
            req_id: 1,
            tx_id: 0,
            payload,
        }
    };
    let good = [
        (MessageType::GET_FEATURE, &b"123\0"[..], Reply::Value(b"123")),
        (MessageType::GET_QUOTA, b"nodes memory\0", Reply::Value(b"nodes memory")),
        (MessageType::READ, b"a\0b", Reply::Value(b"a\0b")),
        (MessageType::WRITE, b"OK\0", Reply::Ok),
        (MessageType::RESET_WATCHES, b"OK\0", Reply::Ok),
        (
            MessageType::TRANSACTION_START,
            b"4294967295\0",
            Reply::Transaction(u32::MAX),
        ),
        (MessageType::IS_DOMAIN_INTRODUCED, b"T\0", Reply::Flag(true)),
    ];
    for (asked, payload, reply) in good {
        assert_eq!(Reply::parse(asked, kinds(asked)(payload)), Ok(reply));
    }
    let bad = [
        (MessageType::GET_FEATURE, &b"123"[..]),
        (MessageType::GET_QUOTA, b"a\0b\0"),
        (MessageType::WRITE, b""),
        (MessageType::WRITE, b"OK"),
        (MessageType::WRITE, b"ok\0"),
        (MessageType::RM, b"OK\0\0"),
        (MessageType::TRANSACTION_START, b"0\0"),
        (MessageType::TRANSACTION_START, b"4294967296\0"),
        (MessageType::IS_DOMAIN_INTRODUCED, b"yes\0"),
    ];
    for (asked, payload) in bad {
        assert_eq!(
            Reply::parse(asked, kinds(asked)(payload)),
            Err(Error::BadMessage),
            "{asked:?} {payload:?}"
        );
    }
    let request = Request::parse(kinds(MessageType::GET_FEATURE)(b"x\0"));
    assert_eq!(request, Err(Error::BadMessage), "it is asked for without a word");
}

#[test]
fn requests_of_the_toolstack_are_none_of_ours() {
    for kind in [0, 8, 9, 15, 16, 18, 19, 20, 24, 26, 27, 0xffff] {
        let packet = Packet {
            kind: MessageType(kind),
            req_id: 1,
            tx_id: 0,
            payload: b"1\0",
        };
        assert_eq!(Request::parse(packet), Err(Error::BadMessage), "{kind}");
    }
}

#[test]
fn a_payload_has_a_limit_in_both_directions_rule_61() {
    let path = Path::new("a").unwrap();
    let mut message = vec![7];
    assert_eq!(
        Request::Write {
            path,
            value: &[0; 4095]
        }
        .encode(1, 0, &mut message),
        Err(Error::TooLong)
    );
    assert_eq!(message, [7], "nothing was appended");
    assert_eq!(
        Request::Write {
            path,
            value: &[0; 4094]
        }
        .encode(1, 0, &mut message),
        Ok(())
    );

    let reply = Packet {
        kind: MessageType::READ,
        req_id: 1,
        tx_id: 0,
        payload: &[0; 4097],
    };
    message.truncate(1);
    assert_eq!(reply.encode(&mut message), Err(Error::TooLong));
    assert_eq!(message, [7], "nothing was appended");

    let mut header = Header {
        kind: MessageType::READ,
        req_id: 1,
        tx_id: 0,
        len: 4097,
    };
    assert_eq!(Packet::parse(&header.encode()), Err(Error::TooLong));
    assert_eq!(Assembler::new().feed(&header.encode()), Err(Error::TooLong));
    header.len = u32::MAX;
    assert_eq!(Packet::parse(&header.encode()), Err(Error::TooLong));
    header.len = 4096;
    assert_eq!(Packet::parse(&header.encode()), Ok(None), "more is to come");
}

fn parse_error(payload: &[u8]) -> Result<Reply<'_>, Error> {
    Reply::parse(
        MessageType::READ,
        Packet {
            kind: MessageType::ERROR,
            req_id: 1,
            tx_id: 0,
            payload,
        },
    )
}

#[test]
fn every_errno_of_the_protocol_is_known() {
    let names = [
        "EINVAL",
        "EACCES",
        "EEXIST",
        "EISDIR",
        "ENOENT",
        "ENOMEM",
        "ENOSPC",
        "EIO",
        "ENOTEMPTY",
        "ENOSYS",
        "EROFS",
        "EBUSY",
        "EAGAIN",
        "EISCONN",
        "E2BIG",
        "EPERM",
    ];
    for name in names {
        let mut payload = name.as_bytes().to_vec();
        payload.push(0);
        let Ok(Reply::Error(errno)) = parse_error(&payload) else {
            panic!("an error")
        };
        assert_eq!(errno.name(), Some(name));
        let mut back = Vec::new();
        Reply::Error(errno).encode(&mut back);
        assert_eq!(back, payload);
    }
    for junk in [&b"EWHAT\0"[..], b"", b"\0", b"ENOENT", b"ENOENT\0\0", b"\xff\xfe\0"] {
        assert_eq!(parse_error(junk), Ok(Reply::Error(Errno::EIO)), "{junk:?}");
    }
}
