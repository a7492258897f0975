//! The network.

use alloc::string::String;

/// `net0`
pub(crate) fn name(index: usize) -> String {
    alloc::format!("net{index}")
}
