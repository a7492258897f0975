extern crate std;

use alloc::vec;
use core::task::{Context, Poll, Waker};

use fata_hypercall::Errno;
use proptest::prelude::*;

use super::*;
use crate::wire::HEADER;

const RING: u32 = 32_768;

fn header(message: &[u8]) -> Header {
    Header::parse(message.first_chunk().unwrap())
}

/// The next message, with room for any.
fn next(session: &mut Session) -> Header {
    header(&session.next(usize::MAX).expect("a message"))
}

fn answer(session: &mut Session, kind: u8, tag: u16, fields: &[u8]) -> Result<(), Fault> {
    let size = (HEADER + fields.len()) as u32;
    session.receive(Header { size, kind, tag }, fields)
}

fn version(msize: u32) -> Vec<u8> {
    [&msize.to_le_bytes()[..], b"\x08\09P2000.L"].concat()
}

/// A session that has its root directory.
fn open() -> Session {
    let mut session = Session::new(1, RING, Rc::default());
    let asked = next(&mut session);
    assert_eq!((asked.kind, asked.tag), (kind::VERSION, NO_TAG));
    answer(&mut session, kind::VERSION + 1, NO_TAG, &version(8192)).unwrap();
    assert!(session.root().is_none());
    let asked = next(&mut session);
    assert_eq!((asked.kind, asked.tag), (kind::ATTACH, 0));
    answer(&mut session, kind::ATTACH + 1, 0, &[0; 13]).unwrap();
    assert!(session.root().is_some());
    session
}

fn submit(session: &mut Session, request: &Request<'_>) -> u64 {
    session.submit(request, [None, None])
}

fn poll(session: &mut Session, id: u64) -> Poll<Option<Answer>> {
    session.poll(id, &mut Context::from_waker(Waker::noop()))
}

const SYNC: Request<'_> = Request::Sync { fid: 9 };

#[test]
fn a_greeting_that_makes_no_sense_is_a_fault() {
    let greeted = |fields: &[u8]| {
        let mut session = Session::new(1, RING, Rc::default());
        next(&mut session);
        answer(&mut session, kind::VERSION + 1, NO_TAG, fields).map(|()| session)
    };
    assert_eq!(greeted(&version(RING)).unwrap().msize(), RING);
    for msize in [0, 4095, RING + 1, u32::MAX] {
        assert_eq!(greeted(&version(msize)).err(), Some(Fault::MessageSize(msize)));
    }
    assert_eq!(greeted(b"\0\x20\0\0\x07\0unknown").err(), Some(Fault::Version));
    assert_eq!(greeted(b"").err(), Some(Fault::Malformed(kind::VERSION)));
    let mut session = greeted(&version(RING)).unwrap();
    next(&mut session);
    let refused = answer(&mut session, kind::ERROR, 0, &13_u32.to_le_bytes());
    assert_eq!(refused, Err(Fault::Attach(Errno::EACCES)));
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let mut session = open();
    let ids = [0; 3].map(|_| submit(&mut session, &SYNC));
    let tags = [0; 3].map(|_| next(&mut session).tag);
    assert!(session.next(usize::MAX).is_none());
    for at in [2, 0, 1] {
        assert!(poll(&mut session, ids[at]).is_pending());
        answer(&mut session, kind::ERROR, tags[at], &(at as u32 + 1).to_le_bytes()).unwrap();
        let refused = Some(Err(Errno(at as u16 + 1)));
        assert_eq!(poll(&mut session, ids[at]), Poll::Ready(refused));
        assert_eq!(poll(&mut session, ids[at]), Poll::Ready(None), "it is gone");
    }
}

#[test]
fn rule_16_an_answer_is_to_what_was_asked() {
    let mut session = open();
    assert_eq!(answer(&mut session, kind::FSYNC + 1, 0, b""), Err(Fault::Tag(0)));
    submit(&mut session, &SYNC);
    assert_eq!(
        answer(&mut session, kind::FSYNC + 1, 0, b""),
        Err(Fault::Tag(0)),
        "it was not sent yet"
    );
    let tag = next(&mut session).tag;
    let wrong = Fault::Kind {
        asked: kind::FSYNC,
        answered: kind::CLUNK + 1,
    };
    assert_eq!(answer(&mut session, kind::CLUNK + 1, tag, b""), Err(wrong));
    assert_eq!(
        answer(&mut session, kind::ERROR, tag, b""),
        Err(Fault::Malformed(kind::FSYNC))
    );
}

/// A backend may say as often as it likes that it is connected: it costs one question at a time.
#[test]
fn a_server_is_asked_once_whether_it_knows_us() {
    let mut session = open();
    session.probe();
    session.probe();
    let asked = next(&mut session);
    assert_eq!(asked.kind, kind::GETATTR);
    session.probe();
    assert!(session.next(usize::MAX).is_none());
    let forgotten = answer(&mut session, kind::ERROR, asked.tag, &2_u32.to_le_bytes());
    assert_eq!(forgotten, Err(Fault::Forgotten));
}

/// A server may answer a request that is being taken back, before it says that it is through with it, or not at all.
#[test]
fn rule_59_a_tag_is_not_used_again_before_the_server_is_through_with_it() {
    for answered in [false, true] {
        let mut session = open();
        let id = submit(&mut session, &SYNC);
        let tag = next(&mut session).tag;
        session.forget(id);
        let flush = session.next(usize::MAX).unwrap();
        assert_eq!(header(&flush).kind, kind::FLUSH);
        assert_eq!(flush[HEADER..], tag.to_le_bytes());
        submit(&mut session, &SYNC);
        let other = next(&mut session).tag;
        assert!(other != tag && other != header(&flush).tag);
        if answered {
            answer(&mut session, kind::FSYNC + 1, tag, b"").unwrap();
            assert_eq!(answer(&mut session, kind::FSYNC + 1, tag, b""), Err(Fault::Tag(tag)));
            submit(&mut session, &SYNC);
            assert_ne!(next(&mut session).tag, tag, "the flush is not answered");
        }
        answer(&mut session, kind::FLUSH + 1, header(&flush).tag, b"").unwrap();
        assert_eq!(answer(&mut session, kind::FSYNC + 1, tag, b""), Err(Fault::Tag(tag)));
        submit(&mut session, &SYNC);
        assert_eq!(next(&mut session).tag, tag.min(header(&flush).tag));
    }
}

#[test]
fn what_was_not_sent_is_simply_forgotten() {
    let mut session = open();
    let id = submit(&mut session, &SYNC);
    session.forget(id);
    assert!(session.next(usize::MAX).is_none());
    session.forget(id);
}

/// A file lives as long as a request about it, and is given back once, whatever becomes of the walk that makes it.
#[test]
fn files_are_given_back_once() {
    let walk = |session: &mut Session| {
        let (root, made) = (Rc::clone(session.root().unwrap()), session.new_fid());
        let request = Request::Walk {
            fid: root.number,
            new_fid: made.number,
            names: &["name"],
        };
        let id = session.submit(&request, [Some(root), Some(Rc::clone(&made))]);
        (id, made, next(session).tag)
    };
    let found = [&[1, 0][..], &[0; 13]].concat();
    let clunked = |session: &mut Session| {
        let message = session.next(usize::MAX)?;
        assert_eq!(header(&message).kind, kind::CLUNK);
        answer(session, kind::CLUNK + 1, header(&message).tag, b"").unwrap();
        assert!(session.next(usize::MAX).is_none(), "given back twice");
        Some(message[HEADER])
    };

    let mut session = open();
    // Found, and dropped.
    let (id, made, tag) = walk(&mut session);
    answer(&mut session, kind::WALK + 1, tag, &found).unwrap();
    assert!(matches!(poll(&mut session, id), Poll::Ready(Some(Ok(_)))));
    assert_eq!(clunked(&mut session), None, "it is held");
    drop(made);
    assert_eq!(clunked(&mut session), Some(1));
    // Not found: there is nothing to give back, and the number is free.
    for _ in 0..3 {
        let (id, made, tag) = walk(&mut session);
        assert_eq!(made.number, 1);
        answer(&mut session, kind::ERROR, tag, &2_u32.to_le_bytes()).unwrap();
        assert!(matches!(poll(&mut session, id), Poll::Ready(Some(Err(_)))));
        drop(made);
        assert_eq!(clunked(&mut session), None);
    }
    // Taken back: answered all the same, or never.
    for answered in [true, false] {
        let (id, made, tag) = walk(&mut session);
        drop(made);
        session.forget(id);
        let flush = next(&mut session);
        if answered {
            answer(&mut session, kind::WALK + 1, tag, &found).unwrap();
        }
        answer(&mut session, kind::FLUSH + 1, flush.tag, b"").unwrap();
        assert_eq!(clunked(&mut session), Some(1));
    }
}

proptest! {
    /// A server never has to wait for room, however many requests there are.
    #[test]
    fn answers_fit_into_the_ring(counts in proptest::collection::vec(0..8000_u32, 1..200)) {
        let mut session = open();
        let mut owed = vec![];
        for count in counts {
            let request = Request::Read { fid: 1, offset: 0, count };
            let id = submit(&mut session, &request);
            while let Some(message) = session.next(usize::MAX) {
                let count = u32::from_le_bytes(*message.last_chunk().unwrap());
                owed.push((header(&message).tag, count));
            }
            let bytes: u32 = owed.iter().map(|(_, count)| count + 11).sum();
            prop_assert!(bytes <= RING && owed.len() <= MAX_SENT);
            if id.is_multiple_of(3) && !owed.is_empty() {
                let (tag, count) = owed.swap_remove(id as usize % owed.len());
                let fields = [&count.to_le_bytes()[..], &vec![0; count as usize]].concat();
                answer(&mut session, kind::READ + 1, tag, &fields).unwrap();
            }
        }
    }

    /// Whatever comes, nothing panics, and nobody gets an answer of a type that was not asked for.
    #[test]
    fn any_answer_is_survived(answers in proptest::collection::vec((any::<u8>(), 0..40_u16, any::<Vec<u8>>()), 1..60)) {
        let mut session = open();
        for (turn, (kind, tag, fields)) in answers.into_iter().enumerate() {
            let id = submit(&mut session, &SYNC);
            let _ = session.next(usize::MAX);
            if turn % 2 == 0 {
                session.forget(id);
            }
            let kind = if kind < 128 { kind::FSYNC + 1 } else { kind };
            let _ = answer(&mut session, kind, tag % 40, &fields);
        }
    }
}
