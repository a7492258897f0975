//! A guest with a console, and the daemon at the other end of its ring.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use fata_console::Console;
use fata_events::xen::XenLoop;
use fata_grant::{ByteLayout, ByteRing};
use fata_hypercall::{Port, SharedPage};

use crate::common::Fake;

pub(crate) const PORT: Port = Port(2);
pub(crate) const RING: usize = 2048;
pub(crate) const OUT_CONS: usize = 3080;
pub(crate) const OUT_PROD: usize = 3084;
pub(crate) const IN_PROD: usize = 3076;

/// The other end of the ring.
#[derive(Clone)]
pub(crate) struct Daemon {
    pub(crate) hv: Fake,
    pub(crate) ring: Rc<RefCell<ByteRing>>,
}

impl Daemon {
    /// Takes what there is, up to `most` bytes, and says so.
    pub(crate) fn take(&self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let count = self.ring.borrow_mut().read(page(&self.hv), &mut bytes).unwrap();
        bytes.truncate(count);
        if count > 0 {
            self.hv.signal(PORT);
        }
        bytes
    }

    /// Takes everything, while the guest's loop runs.
    pub(crate) fn take_all(&self, xen: &mut XenLoop<Fake>) -> String {
        let mut all = Vec::new();
        loop {
            while xen.turn() {}
            let bytes = self.take(RING);
            if bytes.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend(bytes);
        }
    }

    /// Types as much as there is room for.
    pub(crate) fn type_in(&self, bytes: &[u8]) -> usize {
        let count = self.ring.borrow_mut().write(page(&self.hv), bytes).unwrap();
        self.hv.signal(PORT);
        count
    }
}

pub(crate) fn page(hv: &Fake) -> &SharedPage {
    &hv.0.console.as_ref().unwrap().0
}

pub(crate) struct Guest {
    pub(crate) hv: Fake,
    pub(crate) xen: XenLoop<Fake>,
    pub(crate) console: Console<Fake>,
    pub(crate) daemon: Daemon,
}

pub(crate) fn guest() -> Guest {
    guest_at(0)
}

/// A guest whose ring's indices begin at `index`.
pub(crate) fn guest_at(index: u32) -> Guest {
    let hv = Fake::with_console(PORT);
    for offset in [3072, 3076, 3080, 3084] {
        page(&hv).store_u32(offset, index, Ordering::Relaxed);
    }
    let ring = ByteRing::attach(ByteLayout::CONSOLE.other_end(), page(&hv)).unwrap();
    let daemon = Daemon {
        hv: hv.clone(),
        ring: Rc::new(RefCell::new(ring)),
    };
    let xen = XenLoop::new(hv.clone());
    let console = Console::new(hv.clone(), xen.ports());
    xen.handle().spawn(console.clone().run()).detach();
    Guest {
        hv,
        xen,
        console,
        daemon,
    }
}

impl Guest {
    pub(crate) fn settle(&mut self) {
        while self.xen.turn() {}
    }

    pub(crate) fn notifications(&self) -> usize {
        self.hv.0.sent.borrow().len()
    }

    /// Spawns a task and gives the place where its result will be.
    pub(crate) fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Rc<RefCell<Option<T>>> {
        let slot = Rc::new(RefCell::new(None));
        let out = slot.clone();
        self.xen
            .handle()
            .spawn(async move { *out.borrow_mut() = Some(future.await) })
            .detach();
        slot
    }
}

/// The numbers in the notices of a text.
pub(crate) fn lost(text: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| {
            line.strip_prefix("[console: ")?
                .strip_suffix(" bytes lost]")?
                .parse()
                .ok()
        })
        .collect()
}
