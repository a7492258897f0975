//! The whole table of states against the drivers that follow it: whatever state a frontend is in, whatever the backend's node
//! says, whatever happens then, it survives, says what the matter is, and serves again when there is an honest backend.
//!
//! Each line of the table is a seed, and so is each time that the line is run: a seed that fails prints which line it was.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use fata_9pfront::Device;
use fata_events::xen::{Ports, XenLoop};
use fata_events::{Handle, Signal};
use fata_grant::Table;
use fata_hypercall::{Hypervisor, Suspended};
use fata_netfront::{Options, TxMeta, Vif};
use fata_sim::netback::{Malice, NetDriver, Trick};
use fata_sim::wire::Packet;
use fata_sim::{
    Backend, Domain, Driver, Netback, Next, P9Back, P9Config, P9Driver, P9Trick, PoisonHeap, Sim, VifConfig, Waker,
    XenbusState, check,
};
use fata_xenstore::{Client, Store};

#[global_allocator]
static HEAP: PoisonHeap = PoisonHeap;

const SECOND: Duration = Duration::from_secs(1);

/// Where a driver is when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The backend has not spoken yet.
    Initialising,
    /// Its keys are published, and the backend has not answered: Connected or Initialised.
    Published,
    /// Both are connected, and something has been served.
    Connected,
    /// The backend has broken the protocol, and has not let go yet.
    Closing,
    /// It was stopped, and the backend has not let go yet.
    Leaving,
    /// The backend is Closing, and does not get any further.
    Closed,
    /// The backend has broken the protocol and has let go: the driver pauses.
    Pause,
}

impl From {
    const ALL: [Self; 7] = [
        Self::Initialising,
        Self::Published,
        Self::Connected,
        Self::Closing,
        Self::Leaving,
        Self::Closed,
        Self::Pause,
    ];
}

/// What the backend's node says then; `None`: there is no such node.
const BACKEND: [Option<&str>; 12] = [
    Some("0"),
    Some("1"),
    Some("2"),
    Some("3"),
    Some("4"),
    Some("5"),
    Some("6"),
    Some("7"),
    Some("8"),
    None,
    Some(""),
    Some("4\n"),
];

/// What happens beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Nothing.
    Written,
    /// The toolstack takes the device away.
    Removed,
    /// It asks the driver to take leave, waits for a while, and takes the device away.
    Detached,
    /// It takes the device away and makes it anew.
    Remade,
    /// It gives the device another backend.
    Moved,
    /// The backend's domain dies.
    Crashed,
    /// The domain goes on in a new one.
    Resumed,
    /// The driver is told to stop.
    Stopped,
}

impl Event {
    const ALL: [Self; 8] = [
        Self::Written,
        Self::Removed,
        Self::Detached,
        Self::Remade,
        Self::Moved,
        Self::Crashed,
        Self::Resumed,
        Self::Stopped,
    ];
}

/// How long the backend says nothing more: less than any limit, more than some, more than all.
const SILENCE: [Duration; 3] = [
    Duration::from_millis(30),
    Duration::from_secs(4),
    Duration::from_secs(16),
];

/// What the test wants of the domain, and what it has got.
#[derive(Default)]
struct Orders {
    stop: Cell<bool>,
    suspend: Cell<bool>,
    /// The driver's life may begin anew.
    again: Cell<bool>,
    /// How it ended.
    ended: RefCell<Option<Result<(), String>>>,
    /// Somebody asks for something.
    ask: Cell<bool>,
    /// How often somebody got what he asked for.
    served: Cell<u64>,
}

/// A driver, its backend, and somebody who wants to be served.
trait Front: Clone + 'static {
    type Back: Driver;
    /// What our state is when the keys are published.
    const PUBLISHED: &'static str;

    fn new(table: Table<Domain>, ports: Ports<Domain>, client: Client) -> Self;
    async fn live(&self) -> Result<(), String>;
    fn stop(&self);
    fn resume(&self);
    fn problem(&self) -> Option<String>;
    /// It takes the backend for connected.
    fn is_up(&self) -> bool;
    /// What uses the driver, as long as there is a domain.
    async fn work(self, handle: Handle, orders: Rc<Orders>);

    fn add(sim: &Sim, domain: &Domain) -> Backend<Self::Back>;
    /// Somebody outside who asks for what the driver is there for, if it is not somebody inside. Gives what wakes him.
    fn customer(sim: &Sim, orders: &Rc<Orders>) -> Option<Waker>;
    /// Has the backend break the protocol at the next opportunity; or never again.
    fn set_hostile(back: &Backend<Self::Back>, hostile: bool);
    fn has_broken_it(back: &Backend<Self::Back>) -> bool;
}

/// A frame to everybody.
fn frame() -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x42; 100]].concat()
}

impl Front for Vif<Domain> {
    type Back = NetDriver;
    const PUBLISHED: &'static str = "4";

    fn new(table: Table<Domain>, ports: Ports<Domain>, client: Client) -> Self {
        let options = Options {
            rx_buffers: 20,
            tx_buffers: 4,
            segment_buffers: 0,
            ..Options::default()
        };
        Self::new(table, ports, client, 0, options)
    }

    async fn live(&self) -> Result<(), String> {
        self.run().await.map_err(|error| error.to_string())
    }

    fn stop(&self) {
        self.stop();
    }

    fn resume(&self) {
        self.resume();
    }

    fn problem(&self) -> Option<String> {
        self.problem().map(|error| error.to_string())
    }

    fn is_up(&self) -> bool {
        self.link_up()
    }

    /// Sends every frame back.
    async fn work(self, _: Handle, _: Rc<Orders>) {
        loop {
            while self.has_room()
                && let Some(frame) = self.receive()
            {
                let len = frame.meta().len;
                frame.consume(|from| {
                    let Some(answer) = self.transmit() else { return };
                    answer.consume(len, |to| {
                        to.copy_from_slice(from);
                        to[..6].copy_from_slice(&from[6..12]);
                        to[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
                        ((), TxMeta::default())
                    });
                });
            }
            self.flush();
            poll_fn(|cx| self.poll_ready(cx)).await;
        }
    }

    fn add(sim: &Sim, domain: &Domain) -> Netback {
        sim.add_vif(domain, VifConfig::default())
    }

    fn customer(sim: &Sim, orders: &Rc<Orders>) -> Option<Waker> {
        let (bridge, orders) = (sim.bridge("xenbr0"), Rc::clone(orders));
        Some(sim.add_service("a host", |waker| {
            let plug = bridge.plug(&waker);
            move || {
                if orders.ask.take() {
                    plug.send(Packet::new(frame()));
                }
                while let Some(packet) = plug.receive() {
                    assert_eq!(packet.bytes[12..], frame()[12..]);
                    orders.served.set(orders.served.get() + 1);
                }
                Next::Sleep
            }
        }))
    }

    fn set_hostile(back: &Netback, hostile: bool) {
        back.set_malice(Malice {
            one_in: hostile.into(),
            tricks: &[Trick::RxBounds],
        });
    }

    fn has_broken_it(back: &Netback) -> bool {
        back.stats().tricks > 0
    }
}

impl Front for Device<Domain> {
    type Back = P9Driver;
    const PUBLISHED: &'static str = "3";

    fn new(table: Table<Domain>, ports: Ports<Domain>, client: Client) -> Self {
        Self::new(table, ports, client, 0, Signal::new())
    }

    async fn live(&self) -> Result<(), String> {
        self.run().await.map_err(|error| error.to_string())
    }

    fn stop(&self) {
        self.stop();
    }

    fn resume(&self) {
        self.resume();
    }

    fn problem(&self) -> Option<String> {
        self.share().problem().map(|error| error.to_string())
    }

    fn is_up(&self) -> bool {
        self.share().is_connected()
    }

    /// Reads a file when somebody asks for it.
    async fn work(self, handle: Handle, orders: Rc<Orders>) {
        loop {
            handle.sleep(SECOND / 10).await;
            if !orders.ask.take() {
                continue;
            }
            match handle.timeout(4 * SECOND, self.share().read("file", 1 << 20)).await {
                Ok(Ok(bytes)) => {
                    assert_eq!(bytes, frame());
                    orders.served.set(orders.served.get() + 1);
                }
                Ok(Err(error)) => assert_names_something(&error.to_string()),
                Err(_) => {}
            }
        }
    }

    fn add(sim: &Sim, domain: &Domain) -> P9Back {
        let config = P9Config {
            max_order: 2,
            ..P9Config::default()
        };
        let back = sim.add_share(domain, config);
        back.write("file", &frame());
        back
    }

    fn customer(_: &Sim, _: &Rc<Orders>) -> Option<Waker> {
        None
    }

    fn set_hostile(back: &P9Back, hostile: bool) {
        back.set_malice(hostile.into(), &[P9Trick::Tag]);
    }

    fn has_broken_it(back: &P9Back) -> bool {
        back.tricks() > 0
    }
}

fn assert_names_something(text: &str) {
    let names = ["backend", "interface", "share", "9pfs", "xenstore"];
    assert!(names.iter().any(|name| text.contains(name)), "what is {text:?} about?");
}

/// Gives the domain a program: the driver, its user, and somebody who does what the test wants.
fn boot<F: Front>(sim: &Sim, domain: &Domain, orders: &Rc<Orders>) -> F {
    let mut xen = XenLoop::new(domain.clone());
    let (handle, ports, clock) = (xen.handle(), xen.ports().clone(), Rc::clone(xen.clock()));
    let table = Table::new(domain.clone());
    let store = Rc::new(Store::new(domain.clone(), &ports, handle.clone()).unwrap());
    handle.spawn(store.run()).detach();
    let front = F::new(table.clone(), ports.clone(), store.client().clone());
    handle
        .spawn(front.clone().work(handle.clone(), Rc::clone(orders)))
        .detach();
    handle
        .spawn({
            let (front, orders, handle) = (front.clone(), Rc::clone(orders), handle.clone());
            async move {
                loop {
                    let outcome = front.live().await;
                    orders.ended.replace(Some(outcome));
                    while !orders.again.take() {
                        handle.sleep(SECOND / 10).await;
                    }
                    orders.ended.replace(None);
                }
            }
        })
        .detach();
    handle
        .spawn({
            let (front, orders, handle, domain) = (front.clone(), Rc::clone(orders), handle.clone(), domain.clone());
            async move {
                loop {
                    handle.sleep(SECOND / 10).await;
                    if orders.stop.take() {
                        front.stop();
                    }
                    if orders.suspend.take() {
                        let quiet = store.quiet().await;
                        assert_eq!(domain.suspend(), Ok(Suspended::Restored));
                        clock.resume();
                        ports.resume();
                        table.resume();
                        store.resume(&ports).unwrap();
                        front.resume();
                        drop(quiet);
                    }
                }
            }
        })
        .detach();
    sim.add_guest(domain, move || {
        xen.turn();
    });
    front
}

/// One line of the table, while it runs.
struct Case<'a, F: Front> {
    sim: &'a Sim,
    domain: Domain,
    orders: Rc<Orders>,
    front: F,
    back: Backend<F::Back>,
    customer: Option<Waker>,
}

impl<'a, F: Front> Case<'a, F> {
    fn new(sim: &'a Sim) -> Self {
        let domain = sim.domain("guest");
        if sim.random(8) == 0 {
            domain.watch_for_poison(); // which takes as long as all the rest
        }
        let orders = Rc::<Orders>::default();
        let back = F::add(sim, &domain);
        back.set_silent(true);
        Self {
            sim,
            front: boot(sim, &domain, &orders),
            customer: F::customer(sim, &orders),
            domain,
            orders,
            back,
        }
    }

    fn state(&self, path: &str) -> Option<String> {
        self.sim.store().read_text(&format!("{path}/state"))
    }

    #[track_caller]
    fn wait_for_own(&self, state: &str) {
        let path = self.back.frontend_path();
        self.sim
            .run_until(|| self.state(&path).as_deref() == Some(state), 20 * SECOND);
    }

    fn ask(&self) {
        self.orders.ask.set(true);
        if let Some(customer) = &self.customer {
            customer.wake();
        }
    }

    #[track_caller]
    fn assert_serves(&self) {
        let before = self.orders.served.get();
        let served = || self.orders.served.get() > before;
        // After so long a silence the longest pause between two attempts is 16 seconds.
        for _ in 0..80 {
            self.ask();
            if self.sim.try_run_until(served, SECOND / 4) {
                return;
            }
        }
        panic!("it does not serve: {:?}, {:?}", self.front.problem(), self.back);
    }

    /// Has the driver go where the line begins; from then on the backend says nothing.
    fn drive(&self, to: From) {
        let (sim, back) = (self.sim, &self.back);
        if to == From::Initialising {
            sim.run_for(SECOND / 10);
            return;
        }
        back.set_silent(false);
        if to == From::Published {
            sim.run_until(|| back.state() == XenbusState::InitWait, SECOND);
            back.set_silent(true);
            self.wait_for_own(F::PUBLISHED);
            return;
        }
        self.assert_serves();
        match to {
            From::Closing | From::Pause => {
                F::set_hostile(back, true);
                self.ask();
                sim.run_until(|| F::has_broken_it(back), SECOND);
                F::set_hostile(back, false);
                back.set_silent(to == From::Closing);
                self.wait_for_own(if to == From::Closing { "5" } else { "6" });
                sim.run_for(SECOND / 20);
                back.set_silent(true);
            }
            From::Leaving => {
                back.set_silent(true);
                self.orders.stop.set(true);
                self.wait_for_own("5");
            }
            From::Closed => {
                back.set_silent(true);
                self.say(Some("5"));
                self.wait_for_own("6");
            }
            From::Initialising | From::Published | From::Connected => back.set_silent(true),
        }
    }

    fn say(&self, state: Option<&str>) {
        let path = format!("{}/state", self.back.backend_path());
        let store = self.sim.store();
        let _ = state.map_or_else(|| store.remove(&path), |state| store.write(&path, state));
    }

    fn happen(&mut self, event: Event) {
        let sim = self.sim;
        match event {
            Event::Written => {}
            Event::Removed => sim.forget_device(&self.back),
            Event::Detached => {
                self.back.set_silent(sim.random(2) == 0);
                sim.remove_device(&self.back, 7 * SECOND);
            }
            Event::Remade => {
                sim.forget_device(&self.back);
                self.back = F::add(sim, &self.domain);
                self.back.set_silent(true);
            }
            Event::Moved => sim.move_device(&self.back),
            Event::Crashed => self.back.crash(),
            Event::Resumed => {
                sim.suspend(&self.domain, Suspended::Restored);
                self.orders.suspend.set(true);
                sim.run_until(|| !sim.is_suspending(&self.domain), SECOND);
            }
            Event::Stopped => self.orders.stop.set(true),
        }
    }

    fn has_ended(&self) -> bool {
        self.orders.ended.borrow().is_some()
    }

    #[track_caller]
    fn wait_for_end(&self) -> Result<(), String> {
        self.sim.run_until(|| self.has_ended(), 30 * SECOND);
        self.orders.ended.borrow().clone().unwrap()
    }
}

/// What a line of the table is, for the message.
struct Line(String);

impl Drop for Line {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

const LINES: u64 = (From::ALL.len() * BACKEND.len() * Event::ALL.len()) as u64;
const RUNS: u64 = LINES * SILENCE.len() as u64;

fn run<F: Front>(sim: &Sim) {
    let number = sim.seed() as usize;
    let (from, number) = (From::ALL[number % From::ALL.len()], number / From::ALL.len());
    let (state, number) = (BACKEND[number % BACKEND.len()], number / BACKEND.len());
    let (event, number) = (Event::ALL[number % Event::ALL.len()], number / Event::ALL.len());
    let silence = SILENCE[number % SILENCE.len()];
    // Every second time the node changes once more.
    let is_gone = matches!(event, Event::Removed | Event::Detached);
    let again = !is_gone && sim.random(2) == 0;
    let again = again.then(|| BACKEND[sim.random(BACKEND.len() as u64) as usize]);
    let driver = std::any::type_name::<F>();
    let _line = Line(format!(
        "{driver}: in {from:?} the backend says {state:?}; {event:?}; it says {again:?}; {silence:?} of silence"
    ));

    let mut case = Case::<F>::new(sim);
    case.drive(from);
    case.say(state);
    case.happen(event);
    if let Some(state) = again {
        case.say(state);
    }
    sim.run_for(silence);
    let problem = case.front.problem();
    if let Some(problem) = &problem {
        assert_names_something(problem);
    }
    // When all limits are over the driver has said what it is that it waits for.
    let is_fine = case.has_ended() || case.front.is_up();
    assert!(silence < SILENCE[2] || is_fine || problem.is_some(), "it says nothing");

    // Now all are honest.
    case.back.set_silent(false);
    if matches!(event, Event::Written | Event::Crashed | Event::Stopped) {
        case.back.restart();
    }
    if is_gone || from == From::Leaving || event == Event::Stopped {
        if let Err(why) = case.wait_for_end() {
            // What was wrong when it was told to stop, or went wrong while it took leave.
            let was_told = event == Event::Stopped || from == From::Leaving;
            assert!(was_told, "it ended: {why}");
            assert_names_something(&why);
        }
        if is_gone {
            case.back = F::add(sim, &case.domain);
        }
        case.orders.again.set(true);
        sim.run_until(|| !case.has_ended(), SECOND);
    }
    case.assert_serves();
    assert!(!case.has_ended());
    assert_eq!(case.front.problem(), None);

    // And nothing is left.
    case.orders.stop.set(true);
    assert_eq!(case.wait_for_end(), Ok(()));
    sim.run_for(2 * SECOND);
    sim.remove_guest(&case.domain);
    sim.assert_no_leaks(&case.domain);
}

#[test]
fn rule_71_the_whole_table_for_netfront() {
    check(0..RUNS, run::<Vif<Domain>>);
}

#[test]
fn rule_71_the_whole_table_for_9pfs() {
    check(0..RUNS, run::<Device<Domain>>);
}
