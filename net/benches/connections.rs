//! What one request and its answer cost, in instructions, with 10 to 10,000 connections open beside it.
//!
//! `cargo bench -p fata-net --bench connections` runs itself under valgrind (`--tool=callgrind`), once per row, and
//! prints the table. Instructions repeat from run to run and from machine to machine, and a busy machine does not
//! change them. They count the stack, the loop, the in-memory wire and a server that sends back what it gets: one
//! segment in, one segment out. The peer's frames are made outside of what is counted.
//!
//! As one of the tests, without `--bench`, it only sees that the measurements run.
//!
//! `connections N one|all ROUNDS` is one measurement by hand: `one` connection speaks, or `all` of them in turn.
//! `connections 0 new ROUNDS` opens, uses and closes one after the other.

#[path = "../tests/world/mod.rs"]
mod world;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use fata_net::{Limits, ListenOptions, Stack, TcpListener};
use smoltcp::wire::TcpControl;
use world::peer::{Peer, TOGETHER, open};
use world::{OURS, Wire, World, at, segment};

const OPEN: [usize; 4] = [10, 100, 1_000, 10_000];
const ROUNDS: usize = 20_000;
const PORT: u16 = 7;
const REQUEST: &[u8] = &[b'x'; 64];
/// Time between two requests: ten thousand fit into a retransmission timeout, as each one acknowledges the last answer.
const PAUSE: Duration = Duration::from_micros(50);
/// Time before the first one that counts.
const QUIET: Duration = Duration::from_secs(5);

/// What is counted.
#[inline(never)]
fn counted_turn(world: &mut World) {
    world.settle();
    // Something after the call keeps it a call, with an end that valgrind sees.
    std::hint::black_box(world);
}

async fn echo(handle: fata_events::Handle, listener: TcpListener) {
    while let Ok(stream) = listener.accept().await {
        let serve = async move {
            let mut buffer = [0; 128];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
        };
        handle.spawn(serve).detach();
    }
}

fn listen(world: &World, stack: &Stack, backlog: usize) {
    let options = ListenOptions {
        backlog,
        ..ListenOptions::default()
    };
    let listener = stack.listen_on(at(OURS, PORT), options).expect("a listener");
    world.handle.spawn(echo(world.handle.clone(), listener)).detach();
}

/// Sends a request, takes the answer.
fn exchange(world: &mut World, wire: &mut Wire, peer: &mut Peer, counts: bool) {
    world.clock.set(world.clock_now() + PAUSE);
    wire.send(&peer.frame(TcpControl::Psh, REQUEST));
    match counts {
        true => counted_turn(world),
        false => world.settle(),
    }
    peer.sequence = peer.sequence.wrapping_add(REQUEST.len() as u32);
    let mut answered = 0;
    while let Some((frame, _)) = wire.0.take() {
        let answer = segment(&frame).expect("a segment");
        assert_eq!(answer.destination.port(), peer.port);
        answered += answer.payload.len();
        peer.acknowledgement = peer.acknowledgement.wrapping_add(answer.payload.len() as u32);
    }
    assert_eq!(answered, REQUEST.len(), "one answer for one request");
}

/// Opens a connection, sends a request, takes the answer, closes it.
fn whole_connection(world: &mut World, wire: &mut Wire, peer: &mut Peer) {
    let mut say = |peer: &mut Peer, control, data: &[u8]| {
        world.clock.set(world.clock_now() + PAUSE);
        wire.send(&peer.frame(control, data));
        counted_turn(world);
        peer.sequence = peer.sequence.wrapping_add(data.len() as u32);
        while let Some((frame, _)) = wire.0.take() {
            let answer = segment(&frame).expect("a segment");
            let takes_a_number = matches!(answer.control, TcpControl::Syn | TcpControl::Fin);
            let end = answer
                .sequence
                .wrapping_add(answer.payload.len() as u32 + u32::from(takes_a_number));
            peer.acknowledgement = end;
        }
    };
    say(peer, TcpControl::Syn, &[]);
    peer.sequence = peer.sequence.wrapping_add(1);
    say(peer, TcpControl::None, &[]);
    say(peer, TcpControl::Psh, REQUEST);
    say(peer, TcpControl::Fin, &[]);
    peer.sequence = peer.sequence.wrapping_add(1);
    say(peer, TcpControl::None, &[]);
}

/// Connections of one request each, one after the other, with the buffers that a guest of 8 MiB has.
fn measure_new(rounds: usize) {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    listen(&world, &stack, TOGETHER);
    // The first one tells where the peer is, and stays.
    open(&mut world, &mut wire, PORT, 1);
    for round in 0..rounds {
        whole_connection(&mut world, &mut wire, &mut Peer::new(1 + round % 50_000, PORT));
    }
    let stats = stack.stats();
    let expected = (rounds as u64 + 1, 1);
    assert_eq!(
        (stats.tcp_accepted, stats.tcp_connections),
        expected,
        "all were opened and closed"
    );
}

fn measure(count: usize, all: bool, rounds: usize) {
    let mut world = World::new();
    let limits = Limits {
        connections: count + 1,
        half_open: TOGETHER,
        tcp_rx_buffer: 1024,
        tcp_tx_buffer: 1024,
        ..Limits::default()
    };
    let (stack, mut wire) = world.stack_and_wire(limits);
    listen(&world, &stack, TOGETHER);
    let mut peers = open(&mut world, &mut wire, PORT, count);
    assert_eq!(stack.stats().tcp_accepted, count as u64, "all connections are open");
    // From here on it is the second request for everybody who speaks, and the timers of the handshakes are over.
    for peer in &mut peers[..if all { count } else { 1 }] {
        exchange(&mut world, &mut wire, peer, false);
        wire.send(&peer.frame(TcpControl::None, &[]));
        world.settle();
    }
    world.pass(QUIET);
    let start = Instant::now();
    for round in 0..rounds {
        let index = if all { round % count } else { 0 };
        exchange(&mut world, &mut wire, &mut peers[index], true);
    }
    // Without valgrind, a rough idea.
    eprintln!("{} ns", start.elapsed().as_nanos() / rounds.max(1) as u128);
}

/// Instructions per request and answer.
fn count(connections: usize, who: &str) -> Option<u64> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=*counted_turn*",
        ])
        .arg(std::env::current_exe().ok()?)
        .args([&connections.to_string(), who, &ROUNDS.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{text}");
        return None;
    }
    let total = text.lines().find_map(|line| line.split("Collected :").nth(1))?;
    Some(total.trim().parse::<u64>().ok()? / ROUNDS as u64)
}

fn main() -> ExitCode {
    let (options, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word.starts_with("--"));
    if let [count, who, rounds] = &words[..]
        && let (Ok(count), Ok(rounds)) = (count.parse(), rounds.parse())
    {
        match &**who {
            "new" => measure_new(rounds),
            _ => measure(count, who == "all", rounds),
        }
        return ExitCode::SUCCESS;
    }
    if !options.iter().any(|option| option == "--bench") {
        measure(100, false, 100);
        measure(100, true, 100);
        measure_new(100);
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: there is no valgrind");
        return ExitCode::SUCCESS;
    }
    println!("instructions per request and answer (one segment each)\n");
    println!("| open connections | one speaks | all speak in turn |");
    println!("|---:|---:|---:|");
    for connections in OPEN {
        let [one, all] = ["one", "all"].map(|who| count(connections, who));
        let (Some(one), Some(all)) = (one, all) else {
            eprintln!("a run with {connections} connections has failed");
            return ExitCode::FAILURE;
        };
        println!("| {connections} | {one} | {all} |");
    }
    let Some(new) = count(0, "new") else {
        eprintln!("the run with new connections has failed");
        return ExitCode::FAILURE;
    };
    println!("\n{new} for a connection that is opened, used for one request and closed");
    ExitCode::SUCCESS
}
