//! From a command line to words.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Error, Problem};

/// Splits `line` at white space, with a shell's quoting.
///
/// White space is ASCII's. Every character of the line is looked at once, and the words together are never longer than
/// the line.
pub(super) fn split(line: &str) -> Result<Vec<String>, Error> {
    let mut words = Vec::new();
    // None between words: so a word of nothing but '' exists, and white space makes none.
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut unfinished = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let kept = match (quote, c) {
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
                continue;
            }
            (Some(open), c) if c == open => {
                quote = None;
                continue;
            }
            // A NUL ends what the loader passes; should one come through, it separates.
            (None, c) if c.is_ascii_whitespace() || c == '\0' => {
                words.extend(word.take());
                continue;
            }
            (None | Some('"'), '\\') => match chars.next() {
                Some(c @ ('"' | '\\')) => c,
                Some(c) if quote.is_none() => c,
                Some(c) => {
                    word.get_or_insert_default().push('\\');
                    c
                }
                None => {
                    unfinished = Some("a backslash");
                    break;
                }
            },
            (_, c) => c,
        };
        word.get_or_insert_default().push(kept);
    }
    unfinished = match quote {
        Some('"') => Some("an opening \""),
        Some(_) => Some("an opening '"),
        None => unfinished,
    };
    match unfinished {
        Some(what) => Err(Error::of(&word.unwrap_or_default(), Problem::Unfinished(what))),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}
