//! The store's client against a server that lies: in answers, events, lengths, indices. The input is a list of steps.
#![no_main]

#[path = "../../xenstore/tests/common/mod.rs"]
mod common;

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::{Machine, Rig};
use fata_events::{JoinHandle, Turn};
use fata_grant::{ByteLayout, ByteRing};
use fata_hypercall::DomId;
use fata_xenstore::wire::{Assembler, MessageType, Packet, Request};
use fata_xenstore::{Client, Error};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// What a server may write in the page: how much it took, how much it sent, features, connection, error.
const WRITABLE: [usize; 5] = [2048, 2060, 2064, 2068, 2072];
/// More turns than any step can cause; whoever needs more goes round in circles.
const MANY: u32 = 10_000;
/// Callers at once.
const CALLERS: usize = 40;

fuzz_target!(|input: &[u8]| {
    // The input has ended, that is all.
    let _ = run(&mut Unstructured::new(input));
});

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let start: u32 = input.arbitrary()?;
    let mut rig = Rig::prepared(|page| {
        for offset in [2048, 2052, 2056, 2060] {
            page.store_u32(offset, start, Relaxed);
        }
    });
    let mut server = Server::new(Rc::clone(&rig.machine));
    let mut callers: Vec<JoinHandle<()>> = Vec::new();
    while !input.is_empty() {
        match input.arbitrary::<u8>()? % 8 {
            0 => {
                if callers.len() < CALLERS {
                    callers.push(call(&rig, input.arbitrary()?));
                }
            }
            1 if !callers.is_empty() => {
                let index = usize::from(input.arbitrary::<u8>()?) % callers.len();
                drop(callers.swap_remove(index));
            }
            2 => server.answer_well(),
            3 => server.answer(input)?,
            4 => server.event(input)?,
            5 => {
                let bytes = bytes(input)?;
                server.send(bytes);
            }
            6 => {
                let offset = WRITABLE[usize::from(input.arbitrary::<u8>()?) % WRITABLE.len()];
                rig.machine.page.store_u32(offset, input.arbitrary()?, Relaxed);
            }
            _ => {
                let pause = Duration::from_millis(u64::from(input.arbitrary::<u16>()?));
                rig.clock.set(rig.handle().now() + pause);
            }
        }
        rig.machine.signal();
        settle(&mut rig);
        server.listen();
        callers.retain(|caller| !caller.is_finished());
    }
    // Whatever has happened: without a connection, nobody waits.
    drop(rig.runner.take());
    settle(&mut rig);
    for _ in 0..MANY {
        // Who pauses between two attempts finds out after the pause.
        if let Turn::Idle {
            deadline: Some(deadline),
        } = rig.executor.turn()
        {
            rig.clock.set(deadline);
        }
        callers.retain(|caller| !caller.is_finished());
        if callers.is_empty() {
            break;
        }
    }
    assert!(callers.is_empty(), "somebody waits for ever");
    assert_eq!(rig.store.stats().watches, 0);
    Ok(())
}

fn settle(rig: &mut Rig) {
    let quiet = |rig: &mut Rig| !rig.ports.dispatch() && rig.executor.turn() != Turn::Ready;
    assert!((0..MANY).any(|_| quiet(rig)), "it does not settle");
}

/// A task that wants something of the store.
fn call(rig: &Rig, what: u8) -> JoinHandle<()> {
    let store = rig.client();
    rig.handle().spawn(async move {
        let _ = ask(&store, what).await;
    })
}

async fn ask(store: &Client, what: u8) -> core::result::Result<(), Error> {
    match what % 12 {
        0 => store.read("name").await.map(drop),
        1 => store.list("device/vif").await.map(drop),
        2 => store.write("data/a", "value").await,
        3 => store.permissions("data").await.map(drop),
        4 => store.domain_path(DomId(7)).await.map(drop),
        5 => store.is_domain_introduced(DomId(7)).await.map(drop),
        6 => store.read_number::<u16>("mtu", 68..=1500).await.map(drop),
        7 => store.reset_watches().await,
        8 => store.remove("data/a").await,
        9 => store.read_flag("feature-sg").await.map(drop),
        10 => {
            let mut watch = store.watch("data")?;
            loop {
                watch.changed().await?;
            }
        }
        _ => {
            store
                .transaction(async |transaction| {
                    let value = transaction.read("data/a").await?;
                    transaction.write("data/b", &value).await
                })
                .await
        }
    }
}

/// The other end of the ring. It reads as a server does, as long as what it reads makes sense.
struct Server {
    machine: Rc<Machine>,
    ring: ByteRing,
    stream: Assembler,
    /// Requests without an answer: type, number, transaction.
    open: Vec<(MessageType, u32, u32)>,
    /// Of each watch that was set: path and token, each with its NUL.
    watches: Vec<Vec<u8>>,
}

impl Server {
    fn new(machine: Rc<Machine>) -> Self {
        Self {
            ring: ByteRing::attach(ByteLayout::XENSTORE.other_end(), &machine.page).expect("equal indices"),
            machine,
            stream: Assembler::new(),
            open: Vec::new(),
            watches: Vec::new(),
        }
    }

    /// Takes in what the client has sent. It is what a client may send, unless the lies made it overwrite its own words.
    fn listen(&mut self) {
        while let Ok(wanted @ 0..4096) = self.stream.wanted() {
            if wanted > 0 {
                let mut bytes = [0; 4096];
                let Ok(len @ 1..) = self.ring.read(&self.machine.page, &mut bytes[..wanted]) else {
                    return;
                };
                if self.stream.feed(&bytes[..len]).is_err() {
                    return;
                }
            }
            if let Some(packet) = self.stream.packet() {
                if let Ok(Request::Watch { .. }) = Request::parse(packet) {
                    self.watches.push(packet.payload.to_vec());
                }
                self.open.push((packet.kind, packet.req_id, packet.tx_id));
                self.stream.clear();
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // What does not fit is lost, as is everything once the indices are wrong.
        let _ = self.ring.write(&self.machine.page, bytes);
    }

    fn send_packet(&mut self, packet: Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes).expect("less than 4096 bytes");
        self.send(&bytes);
    }

    /// Answers the oldest request as a server would.
    fn answer_well(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (kind, req_id, tx_id) = self.open.remove(0);
        let payload: &[u8] = match kind {
            MessageType::READ => b"1",
            MessageType::DIRECTORY => b"0\x001\0",
            MessageType::DIRECTORY_PART => b"7\x000\0\0",
            MessageType::GET_PERMS => b"n0\0r7\0",
            MessageType::TRANSACTION_START => b"9\0",
            MessageType::GET_DOMAIN_PATH => b"/local/domain/7\0",
            MessageType::IS_DOMAIN_INTRODUCED => b"T\0",
            _ => b"OK\0",
        };
        self.send_packet(Packet {
            kind,
            req_id,
            tx_id,
            payload,
        });
    }

    /// Answers some request with something; a third of the answers says that it failed.
    fn answer(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let [which, how] = input.arbitrary::<[u8; 2]>()?;
        let payload = bytes(input)?;
        if !self.open.is_empty() {
            let (kind, req_id, tx_id) = self.open.remove(usize::from(which) % self.open.len());
            let kind = match how % 3 {
                0 => kind,
                1 => MessageType::ERROR,
                _ => MessageType(u32::from(how / 3)),
            };
            self.send_packet(Packet {
                kind,
                req_id,
                tx_id,
                payload,
            });
        }
        Ok(())
    }

    /// Fires some watch, or one that there is not.
    fn event(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let which = usize::from(input.arbitrary::<u8>()?);
        let payload = match self.watches.get(which) {
            Some(known) => known.clone(),
            None => bytes(input)?.to_vec(),
        };
        self.send_packet(Packet {
            kind: MessageType::WATCH_EVENT,
            req_id: 0,
            tx_id: 0,
            payload: &payload,
        });
        Ok(())
    }
}

/// A piece of the input, as long as its first byte says.
fn bytes<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
    input.bytes(len)
}
