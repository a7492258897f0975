//! The handle of a stack.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use fata_events::{Handle, Signal};
use rand_core::CryptoRng;

use crate::config::{Config, Ipv4Config, Limits, Status};
use crate::device::{Capabilities, Device};
use crate::options::{ListenOptions, TcpOptions, UdpOptions};
use crate::runner::Runner;
use crate::state::{MIN_MTU, State};
use crate::stats::Stats;
use crate::{Error, Result, TcpListener, TcpStream, UdpSocket, dns};

/// One network interface with its addresses, routes and sockets.
///
/// A cheap handle: clones are the same stack. It is not generic over the device, so an application's source names no
/// driver. Two interfaces are two stacks.
///
/// ```
/// # use std::rc::Rc;
/// # use core::time::Duration;
/// # use fata_events::{Executor, ManualClock};
/// # use fata_net::{pair, Cidr, Config, Error, Ipv4Config, Ipv6Config, Limits, Stack};
/// # use fata_net::pair::SeedRng;
/// # let mut executor = Executor::new(Rc::new(ManualClock::default()));
/// # let handle = executor.handle();
/// # let config = |last| Config {
/// #     ipv4: Ipv4Config::Static { addresses: vec![Cidr::new([10, 0, 0, last].into(), 24)], gateway: None },
/// #     ipv6: Ipv6Config::Off,
/// #     ..Config::default()
/// # };
/// # let (ours, theirs) = pair::pair();
/// let (stack, runner) = Stack::new(&handle, ours, SeedRng::new(1), config(1), Limits::default())?;
/// handle.spawn(runner.run()).detach();
/// # let (peer, runner) = Stack::new(&handle, theirs, SeedRng::new(2), config(2), Limits::default())?;
/// # handle.spawn(runner.run()).detach();
///
/// // A server that sends back what it gets.
/// let listener = stack.listen(7)?;
/// handle.spawn(async move {
///     while let Ok(mut stream) = listener.accept().await {
///         let mut buffer = [0; 64];
///         while let Ok(len @ 1..) = stream.read(&mut buffer).await {
///             stream.write_all(&buffer[..len]).await?;
///         }
///     }
///     Ok::<(), Error>(())
/// }).detach();
///
/// // A client.
/// let client = handle.spawn(async move {
///     let mut stream = peer.connect(([10, 0, 0, 1], 7).into()).await?;
///     stream.write_all(b"hello").await?;
///     let mut answer = [0; 5];
///     stream.read_exact(&mut answer).await?;
///     Ok::<_, Error>(answer)
/// });
/// # executor.run_until_idle();
/// # let mut result = None;
/// # let mut get = core::pin::pin!(client);
/// # if let core::task::Poll::Ready(done) = core::future::Future::poll(get.as_mut(), &mut core::task::Context::from_waker(core::task::Waker::noop())) { result = Some(done) }
/// # assert_eq!(result.unwrap().unwrap()?, *b"hello");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Stack(pub(crate) Rc<Shared>);

pub(crate) struct Shared {
    pub(crate) state: RefCell<State>,
    /// Raised when a socket has something for the runner to do.
    pub(crate) kick: Signal,
    pub(crate) handle: Handle,
}

impl Stack {
    /// Makes a stack over a device, and the runner that has to be spawned for it.
    ///
    /// `random` is the source of sequence numbers, ports and identifiers: it must be unpredictable to peers. The
    /// device need not be connected yet; its address and MTU are taken when its link comes up.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if the configuration can never work; [`Error::BadDevice`]; [`Error::OutOfMemory`] if
    /// the tables for `limits` do not fit.
    pub fn new<D: Device>(
        handle: &Handle,
        device: D,
        random: impl CryptoRng + 'static,
        config: Config,
        limits: Limits,
    ) -> Result<(Self, Runner<D>)> {
        let mut capabilities = device.capabilities();
        if !device.link_up() && (capabilities.mac == [0; 6] || capabilities.mtu < MIN_MTU) {
            // It does not know them yet. Nothing is sent under this address.
            capabilities = Capabilities {
                mac: PLACEHOLDER,
                mtu: 1500,
                ..capabilities
            };
        }
        let state = State::new(capabilities, Box::new(random), config, limits, handle.now())?;
        let shared = Rc::new(Shared {
            state: RefCell::new(state),
            kick: Signal::new(),
            handle: handle.clone(),
        });
        Ok((Self(shared.clone()), Runner::new(shared, device)))
    }

    /// Accepts connections on this TCP port, at every address of the stack, with the default settings. Port 0 picks
    /// one.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::OutOfMemory`], [`Error::Stopped`].
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        self.listen_on(
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            ListenOptions::default(),
        )
    }

    /// Accepts connections at this address. `[::]` is every address, `0.0.0.0` is every IPv4 address.
    ///
    /// # Errors
    /// As [`listen`](Self::listen); and [`Error::AddressNotAvailable`] if the address is not the stack's.
    pub fn listen_on(&self, address: SocketAddr, options: ListenOptions) -> Result<TcpListener> {
        TcpListener::new(self, address, options)
    }

    /// Connects to a TCP port.
    ///
    /// # Errors
    /// [`Error::ConnectionRefused`], [`Error::TimedOut`] (after
    /// [`Limits::connect_timeout`]), [`Error::AddressNotAvailable`] if there is no address or route for it,
    /// [`Error::OutOfMemory`], [`Error::Stopped`].
    pub async fn connect(&self, remote: SocketAddr) -> Result<TcpStream> {
        self.connect_with(remote, TcpOptions::default()).await
    }

    /// Connects to a TCP port, with settings.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_with(&self, remote: SocketAddr, options: TcpOptions) -> Result<TcpStream> {
        TcpStream::connect(self, remote, options).await
    }

    /// A UDP socket at this port of every address of the stack, with the default settings. Port 0 picks one.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::OutOfMemory`], [`Error::Stopped`].
    pub fn udp(&self, port: u16) -> Result<UdpSocket> {
        self.udp_on(
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            UdpOptions::default(),
        )
    }

    /// A UDP socket at this address. `[::]` and `0.0.0.0` are every address.
    ///
    /// # Errors
    /// As [`udp`](Self::udp); and [`Error::AddressNotAvailable`] if the address is not the stack's.
    pub fn udp_on(&self, address: SocketAddr, options: UdpOptions) -> Result<UdpSocket> {
        UdpSocket::new(self, address, options)
    }

    /// The addresses of a host: IPv4 first, then IPv6. A literal address is its own answer.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::NameNotFound`], [`Error::NameServerFailure`], [`Error::NoNameServer`],
    /// [`Error::TimedOut`] when no server has answered (each one is asked three times, within 10 s in all).
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>> {
        dns::resolve(self, name, dns::Family::Both).await
    }

    /// Waits until there is a link and an address that other networks can reach: an IPv4 address, unless IPv4 is off.
    ///
    /// It has no time limit of its own: wrap it in `Handle::timeout`.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn wait_config_up(&self) -> Result<()> {
        let (changed, want_ipv4) = {
            let state = self.0.state.borrow();
            (state.changed.clone(), state.config.ipv4 != Ipv4Config::Off)
        };
        let mut seen = changed.count();
        loop {
            {
                let state = self.0.state.borrow();
                if state.stopped {
                    return Err(Error::Stopped);
                }
                if state.status.is_up(want_ipv4) {
                    return Ok(());
                }
            }
            seen = changed.after(seen).await;
        }
    }

    /// Takes leave of all peers, for a program that ends: listeners are closed, connections send what is left and then
    /// their FIN, whoever holds them. Peers that have not closed their side after `patience` get a RST. The runner has
    /// to run until this returns; everything new fails with [`Error::Stopped`].
    pub async fn shutdown(&self, patience: Duration) {
        let handle = self.handle();
        self.with(|state| state.close_all(handle.now()));
        self.kick();
        let quiet = async {
            while !self.with(|state| state.is_quiet()) {
                handle.sleep(TICK).await;
            }
        };
        if handle.timeout(patience, quiet).await.is_err() {
            self.with(State::abort_all);
            self.kick();
        }
        // The last acknowledgements and resets leave.
        handle.sleep(TICK).await;
    }

    /// The interface as it is now: link, addresses, routers, name servers.
    pub fn status(&self) -> Status {
        self.0.state.borrow().status.clone()
    }

    /// Counts the changes of [`status`](Self::status): wait with `after`.
    pub fn changes(&self) -> Signal {
        self.0.state.borrow().changed.clone()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let now = self.0.handle.now();
        self.with(|state| {
            state.time_wait.expire(now);
            state.stats()
        })
    }

    /// The limits that it was made with.
    pub fn limits(&self) -> Limits {
        self.0.state.borrow().limits
    }

    /// The loop it runs on.
    pub(crate) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Has the runner look at the sockets.
    pub(crate) fn kick(&self) {
        self.0.kick.raise();
    }

    /// Changes the state.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.state.borrow_mut())
    }
}

/// How often a shutdown looks whether it is over.
const TICK: Duration = Duration::from_millis(10);

/// A locally administered address for a device that has none yet.
const PLACEHOLDER: [u8; 6] = [2, 0, 0, 0, 0, 1];

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stack")
    }
}
