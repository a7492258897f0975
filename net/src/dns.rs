//! Asking name servers (RFC 1035, RFC 3596).
//!
//! Each question goes out from a random port with a random identifier, both from the unpredictable source, and only
//! an answer from the server that was asked, to that port, with that identifier and that question counts. There is
//! no cache, no search list, no mDNS, and no TCP: of an answer that is cut to fit into a datagram, the addresses that
//! are in it count.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use fata_events::Instant;

use crate::options::UdpOptions;
use crate::{Error, Result, Stack, UdpSocket};

const PORT: u16 = 53;
const HEADER: usize = 12;
/// The largest message over UDP without extensions.
const LARGEST: usize = 512;
const CLASS_INTERNET: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
/// The longest name, with lengths and the final zero.
const LONGEST_NAME: usize = 255;
/// Aliases and compression pointers that are followed.
const HOPS: usize = 16;
/// Rounds over all servers, and how long each server has in a round.
const ROUNDS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// After this time no further server is asked.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Any address, any port.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
/// Room for the questions, and for a few answers that turn out to be wrong.
const OPTIONS: UdpOptions = UdpOptions {
    rx_buffer: 8 * LARGEST,
    tx_buffer: 2 * LARGEST,
    datagrams: 16,
};

/// Which addresses are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
    Both,
}

/// What a server says to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// These addresses; none, if the name exists and has none of this type.
    Addresses(Vec<IpAddr>),
    /// The name does not exist.
    NoName,
    /// The server cannot or will not say.
    Failure,
}

/// One question and what has become of it.
struct Query {
    id: u16,
    kind: u16,
    answer: Option<Answer>,
}

/// Finds the addresses of `name`.
pub(crate) async fn resolve(stack: &Stack, name: &str, family: Family) -> Result<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Ok([address].into());
    }
    let name = encode_name(name).ok_or(Error::InvalidName)?;
    let servers = stack.with(|state| state.status.dns.clone());
    if servers.is_empty() {
        return Err(Error::NoNameServer);
    }
    let kinds: &[u16] = match family {
        Family::Ipv4 => &[TYPE_A],
        Family::Ipv6 => &[TYPE_AAAA],
        Family::Both => &[TYPE_A, TYPE_AAAA],
    };
    let limit = stack.handle().now() + TIME_LIMIT;
    let mut failed = false;
    for (round, server) in ROUNDS
        .iter()
        .flat_map(|round| servers.iter().map(move |server| (*round, *server)))
    {
        let now = stack.handle().now();
        if now >= limit {
            break;
        }
        let mut queries: Vec<Query> = kinds
            .iter()
            .map(|kind| Query {
                id: new_id(stack),
                kind: *kind,
                answer: None,
            })
            .collect();
        let server = SocketAddr::new(server, PORT);
        // Each server gets a port of its own, and none waits for the neighbour of another one.
        let socket = stack.udp_on(ANY, OPTIONS)?;
        match ask(stack, &socket, server, &name, &mut queries, (now + round).min(limit)).await {
            Ok(()) => {}
            // This server is out of reach; another one may not be.
            Err(Error::AddressNotAvailable) => failed = true,
            Err(error) => return Err(error),
        }
        match conclude(&queries) {
            Some(Ok(addresses)) => return Ok(addresses),
            Some(Err(Error::NameNotFound)) => return Err(Error::NameNotFound),
            Some(Err(_)) => failed = true,
            None => {}
        }
    }
    Err(if failed {
        Error::NameServerFailure
    } else {
        Error::TimedOut
    })
}

fn new_id(stack: &Stack) -> u16 {
    stack.with(|state| state.random.next_u32() as u16)
}

/// Sends the questions to one server and waits for its answers.
async fn ask(
    stack: &Stack,
    socket: &UdpSocket,
    server: SocketAddr,
    name: &[u8],
    queries: &mut [Query],
    deadline: Instant,
) -> Result<()> {
    for query in queries.iter() {
        socket.send_to(&question(query.id, name, query.kind), server).await?;
    }
    let mut message = [0; LARGEST];
    while queries.iter().any(|query| query.answer.is_none()) {
        let Ok(received) = stack
            .handle()
            .timeout_at(deadline, socket.recv_from(&mut message))
            .await
        else {
            return Ok(());
        };
        let (len, from) = received?;
        let Some(message) = message.get(..len).filter(|_| from == server) else {
            continue;
        };
        for query in queries.iter_mut().filter(|query| query.answer.is_none()) {
            query.answer = decode(message, query.id, name, query.kind);
        }
    }
    Ok(())
}

/// What the answers of one server come to. `None`: it said nothing.
fn conclude(queries: &[Query]) -> Option<Result<Vec<IpAddr>>> {
    let mut addresses = Vec::new();
    let (mut absent, mut failed, mut silent) = (false, false, false);
    for query in queries {
        match &query.answer {
            Some(Answer::Addresses(found)) => {
                addresses.extend_from_slice(found);
                absent = true;
            }
            Some(Answer::NoName) => absent = true,
            Some(Answer::Failure) => failed = true,
            None => silent = true,
        }
    }
    if !addresses.is_empty() {
        Some(Ok(addresses))
    } else if failed {
        Some(Err(Error::NameServerFailure))
    } else if absent && !silent {
        Some(Err(Error::NameNotFound))
    } else {
        None
    }
}

/// A name as it is in messages: lengths and labels, in lower case.
fn encode_name(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut encoded = Vec::new();
    for label in name.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        if !label.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        encoded.push(len);
        encoded.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    encoded.push(0);
    (encoded.len() <= LONGEST_NAME).then_some(encoded)
}

/// A message with one question.
fn question(id: u16, name: &[u8], kind: u16) -> Vec<u8> {
    // Recursion desired; one question.
    const FLAGS_AND_COUNTS: [u8; 10] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let [id, kind, class] = [id, kind, CLASS_INTERNET].map(u16::to_be_bytes);
    [&id[..], &FLAGS_AND_COUNTS, name, &kind, &class].concat()
}

/// A resource record, its name spelt out.
struct Record {
    name: Vec<u8>,
    kind: u16,
    class: u16,
    /// Where its data is in the message.
    data: (usize, usize),
}

/// The answer to a question, if this message is one. What a server answers besides is ignored.
fn decode(message: &[u8], id: u16, name: &[u8], kind: u16) -> Option<Answer> {
    let flags = word(message, 2)?;
    let (questions, answers) = (word(message, 4)?, word(message, 6)?);
    // A response to a standard query (opcode 0), with our question in it.
    if word(message, 0)? != id || flags & 0xf800 != 0x8000 || questions != 1 {
        return None;
    }
    let (asked, at) = read_name(message, HEADER)?;
    if asked != name || word(message, at)? != kind || word(message, at + 2)? != CLASS_INTERNET {
        return None;
    }
    match flags & 0xf {
        0 => {}
        3 => return Some(Answer::NoName),
        _ => return Some(Answer::Failure),
    }
    let mut records = Vec::new();
    let mut at = at + 4;
    for _ in 0..answers {
        // The rest may have been cut off (the flag TC), or be nonsense: what came before it counts.
        let Some((record, next)) = read_record(message, at) else {
            break;
        };
        records.push(record);
        at = next;
    }
    Some(Answer::Addresses(follow(message, &records, name, kind)))
}

/// The addresses of `name`, by way of its aliases.
fn follow(message: &[u8], records: &[Record], name: &[u8], kind: u16) -> Vec<IpAddr> {
    let mut name = name.to_vec();
    for _ in 0..HOPS {
        let of_name = || {
            records
                .iter()
                .filter(|record| record.name == name && record.class == CLASS_INTERNET)
        };
        let addresses: Vec<IpAddr> = of_name()
            .filter(|record| record.kind == kind)
            .filter_map(|record| address(message, record))
            .collect();
        let alias = of_name().find(|record| record.kind == TYPE_CNAME);
        let target = alias.and_then(|record| read_name(message, record.data.0));
        match target {
            Some((target, _)) if addresses.is_empty() => name = target,
            _ => return addresses,
        }
    }
    Vec::new()
}

fn address(message: &[u8], record: &Record) -> Option<IpAddr> {
    let data = message.get(record.data.0..record.data.1)?;
    match record.kind {
        TYPE_A => <[u8; 4]>::try_from(data)
            .ok()
            .map(|octets| Ipv4Addr::from(octets).into()),
        TYPE_AAAA => <[u8; 16]>::try_from(data)
            .ok()
            .map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

fn read_record(message: &[u8], at: usize) -> Option<(Record, usize)> {
    let (name, at) = read_name(message, at)?;
    let start = at + 10;
    let end = start + usize::from(word(message, at + 8)?);
    message.get(start..end)?;
    Some((
        Record {
            name,
            kind: word(message, at)?,
            class: word(message, at + 2)?,
            data: (start, end),
        },
        end,
    ))
}

/// Reads a name, follows its compression (RFC 1035 section 4.1.4), and gives what comes after it.
fn read_name(message: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut name = Vec::new();
    let mut end = None;
    let mut hops = 0;
    loop {
        let len = usize::from(*message.get(at)?);
        match len {
            0 => {
                name.push(0);
                return Some((name, end.unwrap_or(at + 1)));
            }
            1..=63 => {
                let label = message.get(at..=at + len)?;
                if name.len() + label.len() >= LONGEST_NAME {
                    return None;
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                at += 1 + len;
            }
            0xc0.. => {
                hops += 1;
                if hops > HOPS {
                    return None;
                }
                end = end.or(Some(at + 2));
                at = usize::from(word(message, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
