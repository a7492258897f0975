//! Cores that are whole, cut off, and damaged.

use object::read::ReadCache;
use proptest::prelude::*;
use std::io::Cursor;

use crate::dump::Dump;
use crate::error::Error;

const CONTEXT: usize = 5168;
const PAGES: [u64; 3] = [0x100, 0x101, 0x250];

/// A core as Xen's toolstack writes it, of a guest with three pages, each full of its own number.
fn core(pv: bool) -> Vec<u8> {
    let mut context = vec![0; CONTEXT];
    for (nth, word) in context[520..].chunks_exact_mut(8).take(20).enumerate() {
        word.copy_from_slice(&(0x1000 + nth as u64).to_le_bytes());
    }
    let list = |page: &u64| match pv {
        true => [page.to_le_bytes(), (page + 0x7_0000).to_le_bytes()].concat(),
        false => page.to_le_bytes().to_vec(),
    };
    let sections: [(&str, Vec<u8>); 5] = [
        (".note.Xen", vec![0; 16]),
        (".xen_prstatus", context),
        (
            if pv { ".xen_p2m" } else { ".xen_pfn" },
            PAGES.iter().flat_map(list).collect(),
        ),
        (
            ".xen_pages",
            PAGES.iter().flat_map(|page| page.to_le_bytes().repeat(512)).collect(),
        ),
        (".shstrtab", Vec::new()),
    ];
    let mut names = vec![0];
    let mut body = Vec::new();
    let mut headers = vec![0; 64];
    for (name, mut content) in sections {
        let name_at = names.len() as u32;
        names.extend(name.bytes().chain([0]));
        if name == ".shstrtab" {
            content = names.clone();
        }
        let kind: u32 = if name == ".shstrtab" { 3 } else { 1 };
        headers.extend([name_at, kind].map(u32::to_le_bytes).concat());
        let words = [0, 0, 64 + body.len() as u64, content.len() as u64, 0, 1, 0];
        headers.extend(words.map(u64::to_le_bytes).concat());
        body.extend(content);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([4_u16, 62].map(u16::to_le_bytes).concat()); // ET_CORE, EM_X86_64
    file.extend(1_u32.to_le_bytes());
    file.extend([0, 0, 64 + body.len() as u64].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 0, 64, 6, 5].map(u16::to_le_bytes).concat());
    file.extend(body);
    file.extend(headers);
    file
}

/// The instruction pointer of the first virtual CPU, and the words at these addresses.
fn look(file: &[u8], addresses: &[u64]) -> Result<(u64, Vec<Option<u64>>), Error> {
    let cache = ReadCache::new(Cursor::new(file));
    let dump = Dump::parse(&cache)?;
    let words = addresses.iter().map(|&address| dump.word(address)).collect();
    Ok((dump.vcpus()[0].rip, words))
}

#[test]
fn registers_and_pages_are_found() {
    for pv in [false, true] {
        let addresses = [
            0x10_0000,
            0x10_0ff8,
            0x10_1000,
            0x25_0008,
            0x10_0004,
            0x10_2000,
            0,
            u64::MAX - 7,
        ];
        let (rip, words) = look(&core(pv), &addresses).unwrap();
        assert_eq!(rip, 0x1010, "the seventeenth register");
        let there = [Some(0x100), Some(0x100), Some(0x101), Some(0x250)];
        assert_eq!(words, [&there[..], &[None; 4]].concat());
    }
}

#[test]
fn a_core_that_is_cut_off_is_an_error_or_has_fewer_pages() {
    let whole = core(false);
    for end in 0..whole.len() {
        let _ = look(&whole[..end], &[0x10_0000, 0x25_0000]);
    }
    // The sections' table is last. Without it nothing is known.
    assert!(matches!(
        look(&whole[..whole.len() - 1], &[]),
        Err(Error::NotACore { .. })
    ));
    assert!(matches!(look(b"\x7fELF", &[]), Err(Error::NotACore { .. })));
}

proptest! {
    #[test]
    fn a_damaged_core_never_panics(
        pv in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        tables in any::<bool>(),
    ) {
        let mut file = core(pv);
        let len = file.len();
        for (at, byte) in changes {
            // What says where things are is the smaller part, and the one that matters.
            let at = if tables { len - 1 - at.index(384) } else { at.index(len) };
            file[at] = byte;
        }
        let _ = look(&file, &[0, 0x10_0000, 0x25_0ff8, !7]);
    }

    #[test]
    fn any_text_is_parsed(text in "(fata: (panic|fault: |backtrace:)|RIP: |:\\[<|>\\]|0x|[0-9a-f]|\n|\r| |.){0,60}") {
        let _ = crate::report::parse(&text);
    }
}
