//! The pages of the FIFO form of event channels. They are ordinary memory that Xen and we write to, and once Xen knows them
//! they stay where they are; so they are never given back, and a restored domain uses them again.

use core::ptr::{from_mut, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::Xen;
use super::call::call;
use crate::abi::event_fifo::{
    ControlBlock, EXPAND_ARRAY, EventWords, ExpandArray, INIT_CONTROL, InitControl, MASKED, PAGES,
};
use crate::abi::nr;
use crate::{Errno, Gfn, Hypervisor, SharedPage, ShutdownReason};

/// A page that is taken from memory when it is first needed.
struct Page(AtomicPtr<SharedPage>);

impl Page {
    const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    fn get(&self) -> Option<&'static SharedPage> {
        // SAFETY: it is null, or a page of `take`, which nobody frees.
        unsafe { self.0.load(Ordering::Relaxed).as_ref() }
    }

    fn take(&self, xen: Xen) -> Result<&'static SharedPage, Errno> {
        if self.get().is_none() {
            let page = xen.alloc_pages(1).ok_or(Errno::ENOMEM)?;
            self.0.store(page.as_ptr(), Ordering::Relaxed);
        }
        self.get().ok_or(Errno::ENOMEM)
    }
}

static CONTROL: Page = Page::new();
static WORDS: [Page; PAGES] = [const { Page::new() }; PAGES];
/// How many pages of words Xen knows; 0: the domain uses the two-level form.
static KNOWN: AtomicUsize = AtomicUsize::new(0);

/// See [`Hypervisor::evtchn_use_fifo`].
pub(super) fn use_fifo(xen: Xen, pages: usize) -> Result<(), Errno> {
    let words = WORDS.get(..pages).ok_or(Errno::ENOSPC)?;
    let known = KNOWN.load(Ordering::Relaxed);
    // All of the memory first, for there is no way back.
    for page in words {
        page.take(xen)?;
    }
    if known == 0 {
        init_control(xen, CONTROL.take(xen)?)?;
    }
    for (index, page) in words.iter().enumerate().skip(known) {
        let page = page.take(xen)?;
        // Xen goes by what it finds there.
        as_words(page)
            .iter()
            .for_each(|word| word.store(MASKED, Ordering::Relaxed));
        let expanded = expand_array(xen.gfn_of(page));
        if expanded.is_err() && known == 0 {
            // Xen has changed over and has nowhere to put some of the events. It cannot go back, and the domain is deaf.
            xen.console_io(b"fata: Xen has no room for event words\n");
            xen.shutdown(ShutdownReason::Crash);
        }
        expanded?;
        KNOWN.store(index + 1, Ordering::Relaxed);
    }
    Ok(())
}

/// The domain has begun anew, with the two-level form.
pub(super) fn forget() {
    KNOWN.store(0, Ordering::Relaxed);
}

/// See [`Hypervisor::evtchn_control`].
pub(super) fn control() -> Option<&'static ControlBlock> {
    let page = CONTROL.get().filter(|_| KNOWN.load(Ordering::Relaxed) > 0)?;
    // SAFETY: the block is smaller than a page and made of atomics; the page is there for good.
    Some(unsafe { &*page.as_ptr().cast() })
}

/// See [`Hypervisor::evtchn_words`].
pub(super) fn words(index: usize) -> Option<&'static EventWords> {
    let page = WORDS.get(index).filter(|_| index < KNOWN.load(Ordering::Relaxed))?;
    page.get().map(as_words)
}

fn as_words(page: &'static SharedPage) -> &'static EventWords {
    // SAFETY: the words are exactly one page and made of atomics; the page is there for good.
    unsafe { &*page.as_ptr().cast() }
}

fn init_control(xen: Xen, page: &'static SharedPage) -> Result<(), Errno> {
    // A former life may have left something.
    page.write(0, &[0; size_of::<ControlBlock>()]);
    let mut arg = InitControl {
        control_gfn: xen.gfn_of(page).0,
        ..Default::default()
    };
    // SAFETY: the argument is what this operation wants, and lives through the call. Xen writes to the page from now on, which
    // is given to nobody else.
    unsafe { call(nr::EVENT_CHANNEL_OP, INIT_CONTROL, from_mut(&mut arg) as u64, 0) }.map(|_| ())
}

fn expand_array(gfn: Gfn) -> Result<(), Errno> {
    let mut arg = ExpandArray { array_gfn: gfn.0 };
    // SAFETY: as for the control block.
    unsafe { call(nr::EVENT_CHANNEL_OP, EXPAND_ARRAY, from_mut(&mut arg) as u64, 0) }.map(|_| ())
}
