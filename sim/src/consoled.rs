//! xenconsoled: the other end of a domain's console ring (xen/include/public/io/console.h).

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Acquire, Release};

use fata_hypercall::{Port, SharedPage};

use crate::domain::Domain;
use crate::grants::{Access, Mapping};
use crate::sim::{Next, Sim, Waker};
use crate::toolstack::CONSOLE_GRANT;

const IN_RING: u32 = 1024;
const OUT_RING: u32 = 2048;
const INPUT: usize = 0;
const OUTPUT: usize = 1024;
const IN_CONS: usize = 3072;
const IN_PROD: usize = 3076;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

/// A console daemon for one domain.
///
/// ```
/// use fata_sim::{Consoled, Sim};
/// let sim = Sim::new(1);
/// let domain = sim.domain("guest");
/// let console = Consoled::start(&sim, &domain).unwrap();
/// console.type_in(b"help\n");
/// // ... a guest runs ...
/// assert_eq!(console.output(), b"");
/// ```
#[derive(Clone)]
pub struct Consoled {
    shared: Rc<Shared>,
    waker: Waker,
}

struct Shared {
    dom0: Domain,
    page: RefCell<Mapping>,
    port: Cell<Port>,
    output: RefCell<Vec<u8>>,
    input: RefCell<VecDeque<u8>>,
    stopped: Cell<bool>,
}

impl Consoled {
    /// Attaches to a domain's console; `None` if it has none, or a daemon already.
    #[must_use]
    pub fn start(sim: &Sim, domain: &Domain) -> Option<Self> {
        let dom0 = sim.dom0().clone();
        let (page, port) = attach(&dom0, domain)?;
        let shared = Rc::new(Shared {
            dom0,
            page: RefCell::new(page),
            port: Cell::new(port),
            output: RefCell::default(),
            input: RefCell::default(),
            stopped: Cell::new(false),
        });
        let waker = sim.add_service(&format!("consoled for {}", domain.id()), |waker| {
            shared.dom0.own_port(port, &waker);
            let shared = Rc::clone(&shared);
            move || shared.step()
        });
        sim.when_restored(domain, {
            let (shared, waker, domain) = (Rc::clone(&shared), waker.clone(), domain.clone());
            move |_: &Sim| shared.move_to(&domain, &waker)
        });
        sim.stalls.watch({
            let shared = Rc::clone(&shared);
            move || shared.due()
        });
        Some(Self { shared, waker })
    }

    /// Everything the domain wrote so far.
    #[must_use]
    pub fn output(&self) -> Vec<u8> {
        self.shared.output.borrow().clone()
    }

    /// The same as text, with a replacement for what is not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.output.borrow()).into_owned()
    }

    /// What somebody types at `xl console`.
    pub fn type_in(&self, bytes: &[u8]) {
        self.shared.input.borrow_mut().extend(bytes);
        self.waker.wake();
    }

    /// Stops the daemon, or lets it go on: while it is stopped, the ring fills up.
    pub fn set_stopped(&self, stopped: bool) {
        self.shared.stopped.set(stopped);
        self.waker.wake();
    }
}

/// Maps a domain's console and binds to its port.
fn attach(dom0: &Domain, domain: &Domain) -> Option<(Mapping, Port)> {
    let ring = domain.state.console.get()?;
    let page = dom0.map_grant(domain.id(), CONSOLE_GRANT, Access::Write).ok()?;
    let port = dom0.bind_interdomain(domain.id(), ring.port.get()).ok()?;
    Some((page, port))
}

impl Shared {
    /// The domain was restored: its console is another one.
    fn move_to(&self, domain: &Domain, waker: &Waker) {
        let _ = self.dom0.machine.close(&self.dom0.state, self.port.get());
        if let Some((page, port)) = attach(&self.dom0, domain) {
            self.dom0.own_port(port, waker);
            self.page.replace(page);
            self.port.set(port);
        }
    }

    fn page(&self) -> Ref<'_, SharedPage> {
        Ref::map(self.page.borrow(), Mapping::page)
    }

    fn load(&self, offset: usize) -> u32 {
        self.page().load_u32(offset, Acquire).unwrap_or(0)
    }

    /// What waits for somebody who sleeps, while all sleep.
    fn due(&self) -> Option<String> {
        let forgotten = !self.stopped.get()
            && self.load(OUT_PROD) != self.load(OUT_CONS)
            && !self.dom0.state.is_pending(self.port.get());
        forgotten.then(|| {
            format!(
                "the guest has written to console port {} and not notified",
                self.port.get()
            )
        })
    }

    fn step(&self) -> Next {
        self.dom0.take_pending(self.port.get());
        if self.stopped.get() {
            return Next::Sleep;
        }
        let (page, load) = (self.page(), |offset| self.load(offset));
        let mut moved = false;

        let (mut cons, prod) = (load(OUT_CONS), load(OUT_PROD));
        if prod.wrapping_sub(cons) > OUT_RING {
            self.dom0
                .machine
                .violation(format!("consoled: output indices {cons} and {prod} are impossible"));
            cons = prod;
        }
        while cons != prod {
            let byte = page.load_u8(OUTPUT + (cons % OUT_RING) as usize, Acquire).unwrap_or(0);
            self.output.borrow_mut().push(byte);
            cons = cons.wrapping_add(1);
            moved = true;
        }
        page.store_u32(OUT_CONS, cons, Release);

        let (cons, mut prod) = (load(IN_CONS), load(IN_PROD));
        let mut input = self.input.borrow_mut();
        while prod.wrapping_sub(cons) < IN_RING
            && let Some(byte) = input.pop_front()
        {
            page.store_u8(INPUT + (prod % IN_RING) as usize, byte, Release);
            prod = prod.wrapping_add(1);
            moved = true;
        }
        page.store_u32(IN_PROD, prod, Release);
        if moved {
            let _ = self.dom0.machine.send(&self.dom0.state, self.port.get());
        }
        Next::Sleep
    }
}

impl fmt::Debug for Consoled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consoled({} bytes)", self.shared.output.borrow().len())
    }
}
