//! What a program has around it.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
#[cfg(feature = "net")]
use core::cell::RefCell;
use core::cell::{Cell, OnceCell};
use core::fmt;
use core::future::Future;
use core::time::Duration;

#[cfg(feature = "net")]
use fata_events::Signal;
use fata_events::{Handle, Instant, JoinHandle, Sleep, Timeout};
#[cfg(feature = "net")]
use fata_net::Stack;

use crate::args::Args;
use crate::console::Console;
#[cfg(feature = "suspend")]
use crate::lifecycle::{self, Lifecycle};
#[cfg(feature = "net")]
use crate::network::{self, Network};
use crate::port::Port;
use crate::random::Random;
use crate::shutdown::{Shutdown, ShutdownRequest};
#[cfg(feature = "net")]
use crate::stats::InterfaceStats;
use crate::stats::{Memory, Stats};

/// What a program has around it: boot arguments, network, console, clocks, random numbers, tasks.
///
/// `main` is given one. Clones are cheap and are the same environment; they stay on the program's one thread.
#[derive(Clone)]
pub struct Env(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    pub(crate) args: Args,
    pub(crate) handle: Handle,
    pub(crate) port: Rc<dyn Port>,
    pub(crate) shutdown: Shutdown,
    #[cfg(feature = "suspend")]
    pub(crate) lifecycle: lifecycle::State,
    #[cfg(feature = "net")]
    pub(crate) networks: RefCell<Vec<Network>>,
    /// Made when somebody asks for it, so that a program that never does has no cipher in its image.
    random: OnceCell<Random>,
    /// What its seed is made of, until then.
    entropy: Cell<Vec<u8>>,
}

impl Env {
    /// An environment on `port`, with tasks on the loop that `handle` belongs to, whose random numbers begin with
    /// `entropy` ([`Random::from_entropy`]). For ports; an application is given its `Env`.
    pub fn new(port: Rc<dyn Port>, handle: Handle, args: Args, entropy: Vec<u8>) -> Self {
        Self(Rc::new(Inner {
            args,
            handle,
            port,
            shutdown: Shutdown::default(),
            #[cfg(feature = "suspend")]
            lifecycle: lifecycle::State::default(),
            #[cfg(feature = "net")]
            networks: RefCell::default(),
            random: OnceCell::new(),
            entropy: Cell::new(entropy),
        }))
    }

    /// The boot arguments.
    #[must_use]
    pub fn args(&self) -> &Args {
        &self.0.args
    }

    /// The machine's name: `hostname=`, or else what the port calls the machine, or else `fata`.
    #[must_use]
    pub fn hostname(&self) -> String {
        let given = self.0.args.hostname().map(String::from);
        given
            .or_else(|| self.0.port.name())
            .unwrap_or_else(|| String::from("fata"))
    }

    /// What runs the program, for people to read: `Xen 4.17`.
    #[must_use]
    pub fn machine(&self) -> String {
        self.0.port.machine()
    }

    /// The network on the interface `net0`: short for `env.interface("net0")`.
    ///
    /// # Errors
    /// As [`interface`](Self::interface).
    #[cfg(feature = "net")]
    pub fn net(&self) -> impl Future<Output = Result<Stack, network::Error>> {
        self.interface("net0")
    }

    /// The network on one interface, named exactly: by its number (`net1`) or by its Ethernet address
    /// (`00:16:3e:01:02:03`). It waits until the interface is there and has an address, as the boot arguments say where
    /// from.
    ///
    /// The stack outlives the interface: if the toolstack takes it away (`xl network-detach`), the stack's link goes down,
    /// and comes up with the next interface of that number, whatever its Ethernet address. Listeners, sockets and fixed
    /// addresses stay as they are.
    ///
    /// The first call starts the network; a program that never calls this has none, and no network code in its image.
    ///
    /// # Errors
    /// Within 30 seconds: there is no such interface and none came, its backend does not connect, or no address came. The error's
    /// text says which, and what to do about it.
    #[cfg(feature = "net")]
    pub fn interface(&self, name: &str) -> impl Future<Output = Result<Stack, network::Error>> {
        network::open(self, name)
    }

    /// The names of the interfaces there are now. They may come and go: see
    /// [`interface_changes`](Self::interface_changes).
    #[cfg(feature = "net")]
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        self.0
            .port
            .interfaces()
            .iter()
            .map(|(index, _)| network::name(*index))
            .collect()
    }

    /// What streams to other domains are made with, as Xen's libvchan has them; `None` if the machine has no such thing, or
    /// did not answer when the program started. A suspend closes them.
    ///
    /// See [`vchan`](crate::vchan) for an example.
    #[cfg(feature = "vchan")]
    #[must_use]
    pub fn vchans(&self) -> Option<fata_vchan::Vchans> {
        self.0.port.vchans()
    }

    /// A directory that the host shares, by its tag: with `p9 = ["tag=data,path=/srv/data,security_model=none"]` in the domain's
    /// configuration it is `share("data")`. It waits until it is connected.
    ///
    /// The share outlives its connection: see [`p9`](crate::p9).
    ///
    /// ```no_run
    /// /// Greets whoever the host's file names.
    /// async fn greet(env: fata::Env) -> Result<(), fata::p9::Error> {
    ///     let data = env.share("data").await?;
    ///     let name = data.read("name", 100).await?;
    ///     env.console().print(&format!("Hello, {}!\n", String::from_utf8_lossy(&name)));
    ///     data.write("greeted", b"yes\n").await
    /// }
    /// ```
    ///
    /// # Errors
    /// Within 10 seconds: [`NoDevice`](crate::p9::Error::NoDevice) if there is no share of that name, or why it is not connected.
    #[cfg(feature = "9pfs")]
    pub fn share(&self, tag: &str) -> impl Future<Output = Result<fata_9pfront::Share, fata_9pfront::Error>> {
        crate::share::open(self, tag)
    }

    /// Counts the changes of the interfaces: one has come or gone, or has another link or Ethernet address. Wait with
    /// `after`.
    ///
    /// ```no_run
    /// # async fn serve(_: fata::net::Stack) {}
    /// /// Serves on whatever interface the toolstack gives.
    /// async fn serve_all(env: fata::Env) {
    ///     let (changes, mut served) = (env.interface_changes(), Vec::new());
    ///     let mut seen = changes.count();
    ///     loop {
    ///         for name in env.interfaces() {
    ///             if !served.contains(&name) && let Ok(stack) = env.interface(&name).await {
    ///                 env.spawn(serve(stack)).detach();
    ///                 served.push(name);
    ///             }
    ///         }
    ///         seen = changes.after(seen).await;
    ///     }
    /// }
    /// ```
    #[cfg(feature = "net")]
    #[must_use]
    pub fn interface_changes(&self) -> Signal {
        self.0.port.interface_changes().clone()
    }

    /// The console.
    #[must_use]
    pub fn console(&self) -> Console {
        Console(Rc::clone(&self.0.port))
    }

    /// Starts a task beside this one. Dropping the handle cancels it; [`JoinHandle::detach`] lets it run.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        self.0.handle.spawn(future)
    }

    /// Waits.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.0.handle.sleep(duration)
    }

    /// Runs `future`, but not for longer than `duration`.
    ///
    /// # Errors
    /// [`TimedOut`](crate::TimedOut), and `future` is dropped.
    pub fn timeout<F: Future>(&self, duration: Duration, future: F) -> Timeout<F> {
        self.0.handle.timeout(duration, future)
    }

    /// The monotonic clock: time since the program started.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.handle.now()
    }

    /// Time since 1970 (UTC, without leap seconds). The host may correct it, so it may jump.
    #[must_use]
    pub fn wall_clock(&self) -> Duration {
        self.0.port.wall_clock()
    }

    /// Cryptographically secure random numbers.
    #[must_use]
    pub fn random(&self) -> Random {
        let random = || Random::from_entropy(&self.0.entropy.take());
        self.0.random.get_or_init(random).clone()
    }

    /// The heap.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.0.port.memory()
    }

    /// All figures of the running program.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Inner { handle, port, .. } = &*self.0;
        let tasks = handle.stats();
        Stats {
            uptime: handle.now().since_zero(),
            memory: port.memory(),
            grants: port.grants(),
            ports: port.ports(),
            events: port.events(),
            watches: port.watches(),
            tasks: tasks.tasks,
            timers: tasks.timers,
            console_dropped: port.console_dropped(),
            #[cfg(feature = "net")]
            interfaces: self.interface_stats(),
        }
    }

    #[cfg(feature = "net")]
    fn interface_stats(&self) -> Vec<InterfaceStats> {
        let networks = self.0.networks.borrow();
        let mut all = Vec::new();
        for (index, interface) in self.0.port.interfaces() {
            let network = networks.iter().find(|network| network.index() == index);
            all.push(InterfaceStats {
                name: network::name(index),
                link_up: interface.link_up(),
                stack: network.map(Network::stats).unwrap_or_default(),
            });
        }
        all
    }

    /// Waits until an administrator wants the program to end.
    ///
    /// A program that asks this is given ten seconds from then on to return from `main`. One that never asks is ended
    /// at once.
    pub fn shutdown_requested(&self) -> impl Future<Output = ShutdownRequest> {
        self.0.shutdown.heed()
    }

    /// What happens to the machine from now on: it is suspended, and goes on, perhaps elsewhere.
    #[cfg(feature = "suspend")]
    #[must_use]
    pub fn lifecycle(&self) -> Lifecycle {
        self.0.lifecycle.subscribe(self.clone())
    }

    /// For the port: where it notes a request.
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("args", &self.0.args)
            .finish_non_exhaustive()
    }
}
