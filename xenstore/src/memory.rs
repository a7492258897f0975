//! Memory whose size the server chooses: want of it is an error and not the end of the program.

use alloc::string::String;
use alloc::vec::Vec;

use crate::Error;

/// Appends bytes.
pub(crate) fn extend(to: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    to.try_reserve(bytes.len()).map_err(|_| Error::NoMemory)?;
    to.extend_from_slice(bytes);
    Ok(())
}

/// A copy of bytes.
pub(crate) fn copy(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut copy = Vec::new();
    extend(&mut copy, bytes)?;
    Ok(copy)
}

/// The same, if they are text.
pub(crate) fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(copy(bytes)?).map_err(|_| Error::BadValue)
}

/// Appends to a list.
pub(crate) fn push<T>(to: &mut Vec<T>, item: T) -> Result<(), Error> {
    to.try_reserve(1).map_err(|_| Error::NoMemory)?;
    to.push(item);
    Ok(())
}
