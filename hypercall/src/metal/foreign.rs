//! Pages of other domains, in the last part of the window.
//!
//! Under PVH Xen puts them at a guest frame that holds nothing else, under PV into the lowest page table's entry for an
//! address; since the window is mapped one to one, the number is the same. Xen flushes what processors remember of a page
//! that is unmapped.

use core::ptr::{NonNull, from_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use super::FOREIGN_PAGES_MAX;
use super::call::call;
use crate::abi::grant_table::{MAP_GRANT_REF, MAP_HOST, MapGrantRef, UNMAP_GRANT_REF, UnmapGrantRef};
use crate::abi::nr;
use crate::{DomId, ForeignPage, GrantError, GrantRef, PAGE_SIZE, SharedPage};

/// A bit per place that is taken.
static TAKEN: [AtomicU64; FOREIGN_PAGES_MAX.div_ceil(64)] = [const { AtomicU64::new(0) }; _];

/// The word and the bit of a place.
fn bit(place: usize) -> Option<(&'static AtomicU64, u64)> {
    Some((TAKEN.get(place / 64)?, 1 << (place % 64)))
}

fn take() -> Option<usize> {
    (0..FOREIGN_PAGES_MAX)
        .find(|&place| bit(place).is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::Relaxed) & bit == 0))
}

fn give_back(place: usize) {
    if let Some((word, bit)) = bit(place) {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Whether any page is mapped.
pub(super) fn any() -> bool {
    TAKEN.iter().any(|word| word.load(Ordering::Relaxed) != 0)
}

/// Maps a page at a free place from `base` on.
pub(super) fn map(base: u64, granter: DomId, reference: GrantRef) -> Result<ForeignPage, GrantError> {
    let place = take().ok_or(GrantError::NoSpace)?;
    let mut arg = MapGrantRef {
        host_addr: base + (place * PAGE_SIZE) as u64,
        flags: MAP_HOST,
        reference: reference.0,
        dom: granter.0,
        ..Default::default()
    };
    // SAFETY: the argument is what this operation wants, and lives through the call. Nothing else is mapped at the place.
    let called = unsafe { call(nr::GRANT_TABLE_OP, MAP_GRANT_REF, from_mut(&mut arg) as u64, 1) };
    let mapped = called
        .map_err(|_| GrantError::General)
        .and_then(|_| GrantError::from_status(arg.status))
        .and_then(|()| NonNull::new(arg.host_addr as *mut SharedPage).ok_or(GrantError::BadVirtualAddress));
    match mapped {
        Ok(page) => Ok(ForeignPage {
            page,
            handle: arg.handle,
        }),
        Err(error) => {
            give_back(place);
            Err(error)
        }
    }
}

/// Unmaps it.
///
/// # Safety
/// Nobody refers to the page any more.
pub(super) unsafe fn unmap(base: u64, page: &ForeignPage) -> Result<(), GrantError> {
    let address = page.page.as_ptr() as u64;
    let mut arg = UnmapGrantRef {
        host_addr: address,
        handle: page.handle,
        ..Default::default()
    };
    // SAFETY: the argument is what this operation wants, and lives through the call. Nobody relies on the page.
    unsafe { call(nr::GRANT_TABLE_OP, UNMAP_GRANT_REF, from_mut(&mut arg) as u64, 1) }
        .map_err(|_| GrantError::General)?;
    GrantError::from_status(arg.status)?;
    give_back((address.wrapping_sub(base) / PAGE_SIZE as u64) as usize);
    Ok(())
}
