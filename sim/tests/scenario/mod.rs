//! A guest whose program is tested by a host on its bridge: what is the same in every scenario.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use fata::stats::Memory;
use fata::xen::Ram;
use fata::{Env, NetworkError, Termination};
use fata_hypercall::PAGE_SIZE;
use fata_sim::wire::{Connection, DhcpConfig, Host, HostConfig};
use fata_sim::{Consoled, Domain, DomainConfig, Leaks, Netback, Rng, ShutdownRequest, Sim, VifConfig};

pub const SECOND: Duration = Duration::from_secs(1);
/// The host's address.
pub const HOST: [u8; 4] = [10, 0, 0, 1];
/// The guest's.
pub const ADDRESS: [u8; 4] = [10, 0, 0, 100];
const PORT: u16 = 7;
/// How long the client waits for the next byte before it opens a new connection. Two smoltcps can wait for each other for
/// ever: while one sends again, the sequence numbers of its acknowledgements are old, and the other one drops those.
const PATIENCE: Duration = Duration::from_secs(40);

/// Tells contents apart: FNV-1a.
fn digest(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |digest, &byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Sends everything back, and at the end what it thinks of it.
pub async fn echo(env: Env) -> Result<(), NetworkError> {
    let stack = loop {
        match env.net().await {
            Ok(stack) => break stack,
            // A driver domain that dies at the wrong moment takes longer than an application waits.
            Err(_) => env.sleep(SECOND).await,
        }
    };
    let listener = stack.listen(PORT)?;
    loop {
        let stream = listener.accept().await?;
        env.spawn(async move {
            let (mut buffer, mut sum) = ([0; 2048], 0);
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(count) => {
                        sum = digest(sum, &buffer[..count]);
                        if stream.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
            let _ = stream.write_all(&sum.to_le_bytes()).await;
            let _ = stream.close().await;
        })
        .detach();
    }
}

/// The domain's pages as the program's memory.
struct DomainRam(Domain);

impl Ram for DomainRam {
    fn memory(&self) -> Memory {
        let [free, used, ballooned] =
            [self.0.pages_free(), self.0.pages_used(), self.0.pages_ballooned()].map(|pages| pages * PAGE_SIZE);
        Memory {
            total: free + used,
            used,
            ballooned,
        }
    }

    fn inflate(&self, pages: usize) -> usize {
        self.0.release_pages(pages.min(256))
    }

    fn deflate(&self, pages: usize) -> usize {
        self.0.populate_pages(pages.min(256))
    }
}

/// A domain with the echo program, its devices, and a host that is its DHCP server and its client.
pub struct World<'a> {
    pub sim: &'a Sim,
    pub domain: Domain,
    pub vif: Netback,
    pub console: Consoled,
    pub host: Host,
}

impl<'a> World<'a> {
    pub fn new(sim: &'a Sim, domain: impl Into<DomainConfig>, vif: VifConfig) -> Self {
        let domain = sim.domain(domain);
        let vif = sim.add_vif(&domain, vif);
        let console = Consoled::start(sim, &domain).unwrap();
        let dhcp = DhcpConfig {
            first: Ipv4Addr::from(ADDRESS),
            prefix: 24,
            router: Some(Ipv4Addr::from(HOST)),
            dns: None,
            lease: 3600,
        };
        let config = HostConfig {
            dhcp: Some(dhcp),
            ..HostConfig::default()
        };
        let host = Host::start(sim, &sim.bridge("xenbr0"), config);
        Self {
            sim,
            domain,
            vif,
            console,
            host,
        }
    }

    pub fn boot<F>(&self, program: impl FnOnce(Env) -> F + 'static)
    where
        F: Future<Output: Termination> + 'static,
    {
        let facts = fata::xen::Facts {
            command_line: "ipv6=none".into(),
            entropy: vec![self.sim.random(256) as u8; 32],
            ram: Rc::new(DomainRam(self.domain.clone())),
        };
        let mut guest = fata::xen::start(self.domain.clone(), facts, program);
        self.sim.add_guest(&self.domain, move || {
            guest.turn();
        });
    }

    /// Lets `turns` turns pass, or as many as there are.
    pub fn run_turns(&self, turns: u64) {
        let mut left = turns;
        self.sim.try_run_until(
            || {
                left = left.saturating_sub(1);
                left == 0
            },
            SECOND,
        );
    }

    /// Lets the guest go down, and sees that nothing is left of it.
    pub fn power_off(&self) {
        self.sim.request_shutdown(&self.domain, ShutdownRequest::PowerOff);
        self.sim
            .run_until(|| self.domain.shutdown_reason().is_some(), 60 * SECOND);
        self.sim.run_for(SECOND);
        self.sim.remove_guest(&self.domain);
        self.sim.run_for(SECOND);
        if self.vif.is_alive() {
            self.sim.assert_no_leaks(&self.domain);
        } else {
            // It could not take leave of a backend that is not there; xenstored forgets its watches with the domain.
            let leaks = Leaks {
                watches: Vec::new(),
                ..self.sim.leaks(&self.domain)
            };
            assert!(leaks.is_empty(), "leaked: {leaks}");
            assert!(self.sim.take_violations().is_empty());
        }
    }
}

/// Bytes on their way to the guest and back, over as many connections as it takes.
pub struct Transfer<'a> {
    world: &'a World<'a>,
    data: Vec<u8>,
    answer: Vec<u8>,
    connection: Connection,
    got: RefCell<Vec<u8>>,
    /// The backend is hostile: nothing that comes is believed.
    pub tampered: Cell<bool>,
}

impl<'a> Transfer<'a> {
    pub fn start(world: &'a World<'a>, len: usize) -> Self {
        let mut rng = Rng::new(world.sim.random(u64::MAX));
        let data: Vec<u8> = (0..len.div_ceil(8))
            .flat_map(|_| rng.next_u64().to_le_bytes())
            .take(len)
            .collect();
        let mut answer = data.clone();
        answer.extend(digest(0, &data).to_le_bytes());
        Self {
            connection: Self::connect(world, &data),
            world,
            data,
            answer,
            got: RefCell::default(),
            tampered: Cell::new(false),
        }
    }

    fn connect(world: &World<'_>, data: &[u8]) -> Connection {
        let connection = world.host.connect(SocketAddr::from((ADDRESS, PORT)));
        connection.send(data);
        connection.close();
        connection
    }

    /// Everything has come back. What has come so far is always right.
    pub fn is_done(&self) -> bool {
        if self.connection.received() > 0 {
            let got = &mut *self.got.borrow_mut();
            got.extend(self.connection.take());
            assert!(
                self.tampered.get() || self.answer.starts_with(got),
                "some byte is wrong"
            );
        }
        self.got.borrow().len() == self.answer.len()
    }

    /// Begins again if the connection was lost.
    pub fn go_on(&mut self) {
        if self.connection.is_over() && !self.is_done() {
            self.got.borrow_mut().clear();
            self.connection = Self::connect(self.world, &self.data);
        }
    }

    /// Goes on until everything has come back.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) {
        let sim = self.world.sim;
        let end = sim.now().0 + limit.as_nanos() as u64;
        while sim.now().0 < end {
            let (before, patience) = (self.got.borrow().len(), sim.now().0 + PATIENCE.as_nanos() as u64);
            while sim.now().0 < patience && self.got.borrow().len() <= before {
                let news = || self.connection.received() > 0 || self.connection.is_over();
                sim.try_run_until(news, 5 * SECOND);
                if self.is_done() {
                    return;
                }
                sim.run_for(SECOND / 10);
                self.go_on();
            }
            if self.got.borrow().len() <= before {
                self.connection.abort();
            }
        }
        let state = |path: String| self.world.sim.store().read_text(&format!("{path}/state"));
        panic!(
            "{} of {} bytes came back in {limit:?}; frontend {:?}, backend {:?}\nconsole: {}\n{}",
            self.got.borrow().len(),
            self.answer.len(),
            state(self.world.vif.frontend_path()),
            state(self.world.vif.backend_path()),
            self.world.console.text(),
            self.world.sim.describe()
        );
    }
}
