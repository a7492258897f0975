use proptest::prelude::*;

use super::*;

#[test]
fn names() {
    assert_eq!(encode_name("Ab.c"), Some(b"\x02ab\x01c\x00".to_vec()));
    assert_eq!(encode_name("ab.c."), encode_name("ab.c"));
    let label = "a".repeat(63);
    assert!(encode_name(&label).is_some() && encode_name(&alloc::format!("{label}a")).is_none());
    let longest = [&label[..]; 3].join(".") + "." + &"b".repeat(61);
    assert_eq!(encode_name(&longest).map(|name| name.len()), Some(LONGEST_NAME));
    assert_eq!(encode_name(&alloc::format!("{longest}b")), None);
}

#[test]
fn pointers_that_go_in_circles() {
    let mut message = question(1, b"\x01a\x00", TYPE_A);
    message[2] = 0x80;
    message[7] = 1;
    let at = message.len() as u8;
    message.extend_from_slice(&[0xc0, at]);
    message.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
    assert_eq!(
        decode(&message, 1, b"\x01a\x00", TYPE_A),
        Some(Answer::Addresses(Vec::new()))
    );
    // An alias of itself.
    let mut message = question(1, b"\x01a\x00", TYPE_A);
    message[2] = 0x80;
    message[7] = 1;
    message.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 0, 0, 2, 0xc0, 12]);
    assert_eq!(
        decode(&message, 1, b"\x01a\x00", TYPE_A),
        Some(Answer::Addresses(Vec::new()))
    );
}

proptest! {
    #[test]
    fn any_answer_is_survived(mut tail in proptest::collection::vec(any::<u8>(), 0..500), answers: u8, flags: u16) {
        let mut message = question(1, b"\x01a\x00", TYPE_A);
        message[2..4].copy_from_slice(&(0x8000 | flags & 0x7ff).to_be_bytes());
        message[7] = answers;
        message.append(&mut tail);
        let answer = decode(&message, 1, b"\x01a\x00", TYPE_A);
        prop_assert!(answer.is_some());
        // And with nothing right at all.
        decode(&message[3..], 1, b"\x01a\x00", TYPE_A);
    }
}
