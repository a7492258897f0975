//! Boot arguments: whatever the toolstack passes is understood or refused with a message that can be shown.
#![no_main]

use fata::args::{Args, MAX_INTERFACES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: String| {
    match Args::parse(&line) {
        Ok(args) => {
            assert!(args.last_interface().is_none_or(|last| last < MAX_INTERFACES));
            assert!(args.application().iter().map(String::len).sum::<usize>() <= line.len());
            assert_eq!(args.line(), line);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.len() < 400 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{text:?}"
            );
        }
    }
});
