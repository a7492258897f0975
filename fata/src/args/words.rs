//! From a command line to words.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Error, Problem};

/// Splits `line` at white space, with a shell's quoting.
///
/// Every character of the line is looked at once, and the words together are never longer than the line.
pub(super) fn split(line: &str) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
    // None between words: so a word of nothing but '' exists, and white space makes none.
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => single(&mut chars, word.get_or_insert_default())?,
            '"' => double(&mut chars, word.get_or_insert_default())?,
            '\\' => {
                let word = word.get_or_insert_default();
                let kept = chars
                    .next()
                    .ok_or_else(|| Error::of(word, Problem::Unfinished("a backslash")))?;
                word.push(kept);
            }
            // A NUL ends what the loader passes; should one come through, it separates.
            c if c.is_whitespace() || c == '\0' => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// After `'`: everything up to the next one.
fn single(chars: &mut core::str::Chars<'_>, word: &mut String) -> Result<(), Error> {
    loop {
        match chars.next() {
            Some('\'') => return Ok(()),
            Some(c) => word.push(c),
            None => return Err(Error::of(word, Problem::Unfinished("an opening '"))),
        }
    }
}

/// After `"`: the same, but a backslash keeps `"` and `\` from their meaning.
fn double(chars: &mut core::str::Chars<'_>, word: &mut String) -> Result<(), Error> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => return Err(Error::of(word, Problem::Unfinished("an opening \""))),
            },
            Some(c) => word.push(c),
            None => return Err(Error::of(word, Problem::Unfinished("an opening \""))),
        }
    }
}
