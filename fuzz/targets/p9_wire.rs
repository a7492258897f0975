//! Answers of a 9pfs server, as the frontend reads them. The first byte is what was asked for, the second how much of it, the
//! rest the answer without its header.
#![no_main]

use fata_9pfront::wire::{AROUND_DATA, Entries, Header, LONGEST_NAME, kind, reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [asked, most, fields @ ..] = input else { return };
    let most = *most;
    if let Some(bytes) = fields.first_chunk() {
        let header = Header::parse(bytes);
        assert_eq!(header.size.to_le_bytes(), bytes[..4]);
    }
    match *asked {
        kind::ERROR => {
            assert_eq!(reply::error(fields).is_some(), fields.len() == 4);
        }
        kind::VERSION => {
            // The version is the rest, and is ours or none.
            if let Some(Some(msize)) = reply::version(fields) {
                assert_eq!(fields, [&msize.to_le_bytes()[..], b"\x08\09P2000.L"].concat());
            }
        }
        kind::ATTACH | kind::MKDIR => {
            assert_eq!(reply::qid(fields).is_some(), fields.len() == 13);
        }
        kind::OPEN | kind::CREATE => {
            assert_eq!(reply::opened(fields).is_some(), fields.len() == 17);
        }
        kind::WALK => {
            if let Some((count, last)) = reply::walk(fields, most.into()) {
                assert!(count <= most.into() && fields.len() == 2 + 13 * count);
                assert_eq!(last.is_some(), count > 0);
            }
        }
        kind::READ => {
            if let Some(data) = reply::data(fields, most.into()) {
                assert!(data.len() <= most.into() && fields.len() == 4 + data.len());
                assert!(fields.len() < usize::from(most) + AROUND_DATA as usize);
            }
        }
        kind::WRITE => {
            assert!(reply::written(fields, most.into()).is_none_or(|count| count <= most.into()));
        }
        kind::READDIR => {
            let entries: Vec<_> = Entries::new(fields).collect();
            // What is wrong ends it; what is right is a name in this directory and in no other.
            let good = entries.iter().take_while(|entry| entry.is_some()).count();
            assert!(entries.len() <= good + 1);
            for entry in entries.into_iter().flatten() {
                assert!((1..=LONGEST_NAME).contains(&entry.name.len()));
                assert!(!entry.name.contains(&b'/') && !entry.name.contains(&0));
            }
        }
        kind::GETATTR => {
            let attributes = reply::attributes(fields);
            assert!(attributes.is_none_or(|it| fields.len() == 153 && it.modified.subsec_nanos() < 1_000_000_000));
        }
        kind::STATFS => {
            assert_eq!(reply::space(fields).is_some(), fields.len() == 60);
        }
        _ => assert_eq!(reply::nothing(fields).is_some(), fields.is_empty()),
    }
});
