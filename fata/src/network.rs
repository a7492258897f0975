//! Opening the network on an interface.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::net::IpAddr;
use core::task::{Poll, ready};
use core::time::Duration;

use fata_events::{JoinHandle, Signal};
use fata_net::{Cidr, Config, Ipv4Config, Ipv6Config, Limits, Stack, Status};

use crate::Env;
use crate::args::{InterfaceArgs, Ipv4, Ipv6};
use crate::device::InterfaceDevice;
use crate::env::Inner;
use crate::port::Interface;

/// How long an interface may take to be there, its backend to connect, and to have a link.
const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// How long an address may take to come, once there is a link.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(20);

/// The network of one interface: it runs as long as the program.
pub(crate) struct Network {
    index: usize,
    stack: Stack,
    _runner: JoinHandle<()>,
    /// Raised when the program has ended.
    ending: Signal,
    /// Takes leave of the peers then. A task of its own, so that a program that never asks for the network does not
    /// have this code either.
    leave: Option<JoinHandle<()>>,
}

impl Network {
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn stats(&self) -> fata_net::Stats {
        self.stack.stats()
    }
}

/// How long peers may take to close their side when the program has ended.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Takes leave of all peers on all interfaces, in little more than [`LEAVE_PATIENCE`].
pub(crate) async fn leave(env: &Env) {
    let mut tasks = Vec::new();
    for network in env.0.networks.borrow_mut().iter_mut() {
        network.ending.raise();
        tasks.extend(network.leave.take());
    }
    for task in tasks {
        // Nobody cancels it.
        let _ = task.await;
    }
}

/// `net0`
pub(crate) fn name(index: usize) -> String {
    ["net", &index.to_string()].concat()
}

/// The interface of that name, if there is one now.
fn find(env: &Env, wanted: &str) -> Option<(usize, Rc<dyn Interface>)> {
    let mut interfaces = env.0.port.interfaces().into_iter();
    interfaces.find(|(index, interface)| is_named(wanted, *index, &**interface))
}

/// Why there is none.
fn missing(env: &Env, wanted: &str) -> Error {
    Error::NoInterface {
        name: wanted.into(),
        there: env.interfaces(),
        remedy: env.0.port.how_to_add_interface(),
    }
}

/// The interface of that name, as soon as there is one.
async fn wait_for(env: &Env, wanted: &str) -> (usize, Rc<dyn Interface>) {
    let changes = env.0.port.interface_changes();
    let mut seen = changes.count();
    if find(env, wanted).is_none() {
        log::warn!(target: "net", "{}; it is waited for", missing(env, wanted));
    }
    loop {
        if let Some(found) = find(env, wanted) {
            return found;
        }
        seen = changes.after(seen).await;
    }
}

/// The stack on the interface `wanted`, once it has an address.
pub(crate) async fn open(env: &Env, wanted: &str) -> Result<Stack, Error> {
    let Inner { handle, port, .. } = &*env.0;
    let linked = async {
        let (index, interface) = wait_for(env, wanted).await;
        let args = env.args().interface(index);
        let stack = start(env, index, &interface, &args)?;
        wait_until(&stack, &|status| status.link_up).await;
        Ok::<_, Error>((index, interface, args, stack))
    };
    let linked = handle.timeout(LINK_PATIENCE, linked).await;
    let no_link = |index, interface: &dyn Interface| Error::NoLink {
        name: name(index),
        problem: interface.problem(),
    };
    let Ok(linked) = linked else {
        let found = find(env, wanted);
        return Err(found.map_or_else(
            || missing(env, wanted),
            |(index, interface)| no_link(index, &*interface),
        ));
    };
    let (index, interface, args, stack) = linked?;
    let last = env.args().last_interface();
    if let Some(last) = last.filter(|last| port.interfaces().iter().all(|(index, _)| index < last)) {
        log::warn!(target: "net", "boot arguments name {}, but there is no such interface", name(last));
    }
    let is_addressed = |status: &Status| status.link_up && has_address(status, &args);
    let addressed = wait_until(&stack, &is_addressed);
    if handle.timeout(ADDRESS_PATIENCE, addressed).await.is_err() {
        return Err(match (interface.link_up(), args.ipv4) {
            (false, _) => no_link(index, &*interface),
            (true, Ipv4::Off) => Error::NoRouter { name: name(index) },
            (true, _) => Error::NoDhcp { name: name(index) },
        });
    }
    Ok(stack)
}

fn wait_until(stack: &Stack, accept: &dyn Fn(&Status) -> bool) -> impl Future<Output = ()> {
    let changes = stack.changes();
    poll_fn(move |cx| {
        loop {
            let seen = changes.count();
            if accept(&stack.status()) {
                return Poll::Ready(());
            }
            ready!(changes.poll_after(seen, cx));
        }
    })
}

/// Whether there is the address that the boot arguments want first: IPv4 unless that is off.
fn has_address(status: &Status, args: &InterfaceArgs) -> bool {
    let any = |wanted: fn(IpAddr) -> bool| status.addresses.iter().any(|cidr| wanted(cidr.address));
    match (args.ipv4, args.ipv6) {
        (Ipv4::Off, Ipv6::Off) => true,
        (Ipv4::Off, _) => any(|address| matches!(address, IpAddr::V6(v6) if !v6.is_unicast_link_local())),
        _ => any(|address| address.is_ipv4()),
    }
}

/// Whether an interface is the one that was asked for, by its number or by its Ethernet address.
fn is_named(wanted: &str, index: usize, interface: &dyn Interface) -> bool {
    let mac = interface.capabilities().mac;
    let mut bytes = wanted.split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
    wanted == name(index) || (mac.iter().all(|&byte| bytes.next() == Some(Some(byte))) && bytes.next().is_none())
}

/// The interface's stack, which is started the first time.
fn start(env: &Env, index: usize, interface: &Rc<dyn Interface>, args: &InterfaceArgs) -> Result<Stack, Error> {
    let Inner {
        handle, port, networks, ..
    } = &*env.0;
    let mut networks = networks.borrow_mut();
    if let Some(network) = networks.iter().find(|network| network.index == index) {
        return Ok(network.stack.clone());
    }
    let device = InterfaceDevice(Rc::clone(interface));
    let limits = Limits::for_memory(port.memory().free());
    let (stack, runner) =
        Stack::new(handle, device, env.random(), config(args, env.hostname()), limits).map_err(Error::Stack)?;
    handle.spawn(report(stack.clone(), name(index))).detach();
    let ending = Signal::new();
    let ended = ending.after(0);
    let leaving = stack.clone();
    networks.push(Network {
        index,
        stack: stack.clone(),
        _runner: handle.spawn(runner.run()),
        ending,
        leave: Some(handle.spawn(async move {
            ended.await;
            leaving.shutdown(LEAVE_PATIENCE).await;
        })),
    });
    Ok(stack)
}

/// Boot arguments, as the stack takes them.
fn config(args: &InterfaceArgs, hostname: String) -> Config {
    Config {
        ipv4: match args.ipv4 {
            Ipv4::Dhcp => Ipv4Config::Dhcp,
            Ipv4::Off => Ipv4Config::Off,
            Ipv4::Static { address, prefix } => Ipv4Config::Static {
                addresses: alloc::vec![Cidr::new(address, prefix)],
                gateway: args.gateway,
            },
        },
        ipv6: match args.ipv6 {
            Ipv6::Auto => Ipv6Config::Slaac,
            Ipv6::Off => Ipv6Config::Off,
            Ipv6::Static { address, prefix } => Ipv6Config::Static {
                addresses: alloc::vec![Cidr::new(address, prefix)],
                gateway: args.gateway6,
            },
        },
        dns: args.dns.clone(),
        // DHCP wants the name without its domain, and no longer than a label of DNS (RFC 2132, section 3.14).
        hostname: hostname
            .split('.')
            .next()
            .filter(|label| (1..=63).contains(&label.len()))
            .map(String::from),
    }
}

/// Logs the interface's addresses as they come.
async fn report(stack: Stack, name: String) {
    let changes = stack.changes();
    let mut known = Vec::new();
    loop {
        let seen = changes.count();
        let status = stack.status();
        // Before there is a link, addresses are made of a placeholder.
        let addresses = if status.link_up { status.addresses } else { Vec::new() };
        for cidr in &addresses {
            if !known.contains(cidr) {
                log::info!(target: "net", "{name}: {}/{}", cidr.address, cidr.prefix);
            }
        }
        known = addresses;
        changes.after(seen).await;
    }
}

/// Why there is no network.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is no interface of that name.
    NoInterface {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        there: Vec<String>,
        /// What an administrator does about it.
        remedy: String,
    },
    /// The interface has no connection.
    NoLink {
        /// Its name.
        name: String,
        /// What is known about it, and what to do.
        problem: String,
    },
    /// There is a link, and no DHCP server.
    NoDhcp {
        /// The interface's name.
        name: String,
    },
    /// There is a link, and no IPv6 router.
    NoRouter {
        /// The interface's name.
        name: String,
    },
    /// The stack does not take the interface or its settings.
    Stack(fata_net::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInterface { name, there, remedy } if there.is_empty() => {
                write!(f, "no network interface {name}: {remedy}")
            }
            Self::NoInterface { name, there, .. } => {
                write!(f, "no network interface {name}; there is")?;
                for (index, other) in there.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma} {other}")?;
                }
                Ok(())
            }
            Self::NoLink { name, problem } => write!(f, "{name}: {problem}"),
            Self::NoDhcp { name } => write!(
                f,
                "{name}: no DHCP server has answered in {} s; start one on the bridge, or give the boot arguments \
                 ipv4=ADDRESS/PREFIX gateway=ADDRESS",
                ADDRESS_PATIENCE.as_secs()
            ),
            Self::NoRouter { name } => write!(
                f,
                "{name}: no router has announced an IPv6 network in {} s; give the boot argument ipv6=ADDRESS/PREFIX",
                ADDRESS_PATIENCE.as_secs()
            ),
            Self::Stack(error) => write!(f, "network: {error}"),
        }
    }
}

impl fmt::Debug for Error {
    /// The text. Every error that `main` may return brings its Debug into the image, and one that is derived brings
    /// what quotes and escapes strings, too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Error {}

impl From<fata_net::Error> for Error {
    fn from(error: fata_net::Error) -> Self {
        Self::Stack(error)
    }
}
