//! DNS against servers that answer, lie, or do not exist; DHCP against a small server.

mod world;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use fata_net::pair::{Control, pair};
use fata_net::{Cidr, Config, Error, Ipv4Config, Ipv6Config, Limits, Stack};
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet};
use world::{OURS, OURS6, THEIRS, THEIRS6, Wire, World, at};

type Script = Box<dyn FnMut(&[u8]) -> Vec<Vec<u8>>>;

/// A stack whose name server follows a script: question in, answers out.
fn with_server(world: &World, servers: &[IpAddr], mut script: Script) -> (Stack, Rc<RefCell<Vec<Vec<u8>>>>) {
    let (one, two) = pair();
    let mut config = world::fixed(OURS, OURS6);
    config.dns = servers.to_vec();
    let stack = world.stack(one, config, Limits::default(), 1);
    let server = world
        .stack(two, world::fixed(THEIRS, THEIRS6), Limits::default(), 2)
        .udp(53)
        .unwrap();
    let asked = Rc::new(RefCell::new(Vec::new()));
    let log = asked.clone();
    let serve = async move {
        let mut buffer = [0; 512];
        loop {
            let (len, from) = server.recv_from(&mut buffer).await.unwrap();
            log.borrow_mut().push(buffer[..len].to_vec());
            for answer in script(&buffer[..len]) {
                server.send_to(&answer, from).await.unwrap();
            }
        }
    };
    world.handle.spawn(serve).detach();
    (stack, asked)
}

/// The type that is asked for.
fn kind(question: &[u8]) -> u16 {
    u16::from_be_bytes([question[question.len() - 4], question[question.len() - 3]])
}

/// An answer with these records: (name, type, data). Names are as in messages.
fn answer(question: &[u8], code: u8, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2] |= 0x80;
    message[3] = 0x80 | code;
    message[7] = records.len() as u8;
    for (name, kind, data) in records {
        message.extend_from_slice(name);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        message.extend_from_slice(&(data.len() as u16).to_be_bytes());
        message.extend_from_slice(data);
    }
    message
}

/// The name of the question, as a pointer.
const SAME: &[u8] = &[0xc0, 12];

fn resolve(world: &mut World, stack: &Stack, name: &'static str) -> Result<Vec<IpAddr>, Error> {
    let stack = stack.clone();
    world.run(async move { stack.resolve(name).await })
}

#[test]
fn both_kinds_of_addresses_are_found() {
    let mut world = World::new();
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    let script = move |question: &[u8]| match kind(question) {
        1 => vec![answer(
            question,
            0,
            &[(SAME, 1, &[192, 0, 2, 1]), (SAME, 1, &[192, 0, 2, 2])],
        )],
        _ => vec![answer(question, 0, &[(SAME, 28, &v6.octets())])],
    };
    let (stack, asked) = with_server(&world, &[THEIRS.into()], Box::new(script));
    let found = resolve(&mut world, &stack, "Example.ORG.").unwrap();
    let expected: [IpAddr; 3] = [
        Ipv4Addr::new(192, 0, 2, 1).into(),
        Ipv4Addr::new(192, 0, 2, 2).into(),
        v6.into(),
    ];
    assert_eq!(found, expected);
    assert_eq!(&asked.borrow()[0][12..], b"\x07example\x03org\x00\x00\x01\x00\x01");
    // Identifiers differ.
    resolve(&mut world, &stack, "example.org").unwrap();
    let mut ids: Vec<_> = asked.borrow().iter().map(|question| question[..2].to_vec()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn aliases_are_followed_in_any_order() {
    let mut world = World::new();
    let script = |question: &[u8]| {
        let (middle, end) = (&b"\x06middle\xc0\x10"[..], &b"\x03end\x00"[..]);
        let records: &[(&[u8], u16, &[u8])] = &[
            (end, 1, &[192, 0, 2, 7]),
            (middle, 5, end),
            (SAME, 5, b"\x06MIDDLE\xc0\x10"),
        ];
        match kind(question) {
            1 => vec![answer(question, 0, records)],
            _ => vec![answer(question, 0, &[])],
        }
    };
    let (stack, _) = with_server(&world, &[THEIRS.into()], Box::new(script));
    assert_eq!(
        resolve(&mut world, &stack, "www.org"),
        Ok(vec![Ipv4Addr::new(192, 0, 2, 7).into()])
    );
}

#[test]
fn only_the_right_answer_counts() {
    let mut world = World::new();
    let script = |question: &[u8]| {
        let right = answer(question, 0, &[(SAME, kind(question), &[192, 0, 2, 1])]);
        let forged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut message = answer(question, 0, &[(SAME, 1, &[6, 6, 6, 6])]);
            change(&mut message);
            message
        };
        vec![
            forged(&|message| message[1] ^= 1),      // identifier
            forged(&|message| message[2] &= 0x7f),   // a question
            forged(&|message| message[14] = b'z'),   // another name
            forged(&|message| message[5] = 2),       // two questions
            forged(&|message| message.truncate(11)), // a torso
            vec![],
            right,
        ]
    };
    let (stack, _) = with_server(&world, &[THEIRS.into()], Box::new(script));
    let found = resolve(&mut world, &stack, "example.org");
    assert_eq!(found, Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]));
}

#[test]
fn failures_have_names() {
    let mut world = World::new();
    let (stack, _) = with_server(
        &world,
        &[THEIRS.into()],
        Box::new(|question| vec![answer(question, 3, &[])]),
    );
    assert_eq!(resolve(&mut world, &stack, "no.such"), Err(Error::NameNotFound));
    let (stack, _) = with_server(
        &world,
        &[THEIRS.into()],
        Box::new(|question| vec![answer(question, 0, &[])]),
    );
    assert_eq!(resolve(&mut world, &stack, "no.address"), Err(Error::NameNotFound));
    let (stack, _) = with_server(
        &world,
        &[THEIRS.into()],
        Box::new(|question| vec![answer(question, 2, &[])]),
    );
    assert_eq!(
        resolve(&mut world, &stack, "broken.server"),
        Err(Error::NameServerFailure)
    );
    let (stack, _) = with_server(&world, &[], Box::new(|_| vec![]));
    assert_eq!(resolve(&mut world, &stack, "example.org"), Err(Error::NoNameServer));
    assert_eq!(
        resolve(&mut world, &stack, "10.1.2.3"),
        Ok(vec![Ipv4Addr::new(10, 1, 2, 3).into()])
    );
    for name in ["", ".", "a..b", "white space", "\u{fc}ber.de"] {
        assert_eq!(resolve(&mut world, &stack, name), Err(Error::InvalidName), "{name}");
    }
    let start = world.clock_now();
    let (stack, asked) = with_server(&world, &[THEIRS.into()], Box::new(|_| vec![]));
    assert_eq!(resolve(&mut world, &stack, "silent.server"), Err(Error::TimedOut));
    assert!(world.clock_now() - start <= Duration::from_secs(10));
    assert_eq!(asked.borrow().len(), 6, "three times, for both kinds");
}

#[test]
fn the_second_server_helps_out() {
    let mut world = World::new();
    let script = |question: &[u8]| match kind(question) {
        1 => vec![answer(question, 0, &[(SAME, 1, &[192, 0, 2, 1])])],
        _ => vec![],
    };
    let servers = [
        Ipv4Addr::new(10, 0, 0, 99).into(),
        Ipv4Addr::new(8, 8, 8, 8).into(),
        THEIRS6.into(),
    ];
    let (stack, _) = with_server(&world, &servers, Box::new(script));
    let start = world.clock_now();
    assert_eq!(
        resolve(&mut world, &stack, "example.org"),
        Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()])
    );
    assert!(world.clock_now() - start <= Duration::from_secs(5));
}

/// What a DHCP client has sent, and the transaction it is about.
fn dhcp_messages(wire: &mut Wire, world: &mut World) -> Vec<Vec<u8>> {
    let frames = wire.frames(world);
    let messages = frames.iter().filter_map(|frame| {
        let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
        let packet = (ethernet.ethertype() == EthernetProtocol::Ipv4).then(|| ethernet.payload())?;
        let packet = Ipv4Packet::new_checked(packet).unwrap();
        (packet.next_header() == IpProtocol::Udp && packet.payload()[2..4] == [0, 67])
            .then(|| packet.payload()[8..].to_vec())
    });
    messages.collect()
}

const LEASED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

/// Answers a DHCP message as a server at `THEIRS`, which is router and name server, too.
fn dhcp_answer(request: &[u8]) -> Option<Vec<u8>> {
    dhcp_offer(request, LEASED)
}

/// The same with another address.
fn dhcp_offer(request: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let packet = DhcpPacket::new_checked(request).unwrap();
    let request = DhcpRepr::parse(&packet).unwrap();
    let message_type = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => DhcpMessageType::Ack,
        _ => return None,
    };
    let repr = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: address,
        server_ip: THEIRS,
        router: Some(THEIRS),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(THEIRS),
        parameter_request_list: None,
        dns_servers: Some([THEIRS].into_iter().collect()),
        max_size: None,
        lease_duration: Some(600),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut message)).unwrap();
    let datagram = world::udp(at(THEIRS, 67), at(LEASED, 68), &message);
    Some(world::ip_frame(
        THEIRS.into(),
        LEASED.into(),
        IpProtocol::Udp,
        &datagram,
    ))
}

#[test]
fn an_address_is_leased_kept_and_lost() {
    let mut world = World::new();
    let (one, two) = pair();
    let config = Config {
        ipv6: Ipv6Config::Off,
        dns: vec![Ipv4Addr::new(9, 9, 9, 9).into()],
        hostname: Some("fata-guest".into()),
        ..Config::default()
    };
    let stack = world.stack(one, config, Limits::default(), 1);
    let mut wire = Wire(two);
    let waiter = stack.clone();
    let up = world.handle.spawn(async move { waiter.wait_config_up().await });
    let discover = dhcp_messages(&mut wire, &mut world);
    assert_eq!(discover.len(), 1);
    assert!(
        discover[0].windows(12).any(|bytes| bytes == b"\x0c\x0afata-guest"),
        "option 12"
    );
    assert!(stack.status().addresses.is_empty() && !up.is_finished());
    // The first one gets lost. It asks again soon.
    world.pass(Duration::from_millis(2100));
    let discover = dhcp_messages(&mut wire, &mut world);
    wire.send(&dhcp_answer(&discover[0]).unwrap());
    let request = dhcp_messages(&mut wire, &mut world);
    wire.send(&dhcp_answer(&request[0]).unwrap());
    world.settle();
    assert!(up.is_finished());
    let status = stack.status();
    assert_eq!(status.addresses, [Cidr::new(LEASED.into(), 24)]);
    assert_eq!(status.gateways, [IpAddr::from(THEIRS)]);
    assert_eq!(status.dns, [IpAddr::from([9, 9, 9, 9]), THEIRS.into()]);
    assert_eq!(status.dhcp_server, Some(THEIRS));
    // Half of the lease later it asks for more; the server is gone; in the end the address is, too.
    let changes = stack.changes();
    let seen = changes.count();
    world.pass(Duration::from_secs(310));
    assert!(!dhcp_messages(&mut wire, &mut world).is_empty());
    assert_eq!(changes.count(), seen);
    world.pass(Duration::from_secs(310));
    assert!(stack.status().addresses.is_empty() && changes.count() > seen);
}

/// A stack whose server has leased it an address, for ten minutes.
fn leased(world: &mut World) -> (Stack, Wire, Control) {
    let (one, two) = pair();
    let control = one.control();
    let config = Config {
        ipv6: Ipv6Config::Off,
        ..Config::default()
    };
    let stack = world.stack(one, config, Limits::default(), 1);
    let mut wire = Wire(two);
    lease(&mut wire, world, LEASED);
    assert_eq!(stack.status().addresses.len(), 1);
    wire.frames(world);
    (stack, wire, control)
}

/// Both halves of a server's work.
fn lease(wire: &mut Wire, world: &mut World, address: Ipv4Addr) {
    for kind in ["discover", "request"] {
        let messages = dhcp_messages(wire, world);
        assert_eq!(messages.len(), 1, "{kind}");
        wire.send(&dhcp_offer(&messages[0], address).unwrap());
    }
    world.settle();
}

fn lose_the_link(world: &mut World, stack: &Stack, control: &Control) {
    control.set_link(false);
    world.settle();
    assert!(!stack.status().link_up);
    control.set_link(true);
    world.settle();
}

/// A gratuitous ARP request for the leased address.
fn is_announcement(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6] && frame[28..32] == LEASED.octets() && frame[38..42] == LEASED.octets()
}

/// Milliseconds after now at which the address is announced, within ten seconds.
fn announcements(world: &mut World, wire: &mut Wire) -> Vec<u64> {
    let mut times = Vec::new();
    for millis in (0..10_000).step_by(10) {
        while let Some((frame, _)) = wire.0.take() {
            times.extend(is_announcement(&frame).then_some(millis));
        }
        world.pass(Duration::from_millis(10));
    }
    times
}

#[test]
fn neighbours_are_told_once_and_six_times_after_a_loss_of_the_link() {
    let mut world = World::new();
    let (stack, mut wire, control) = leased(&mut world);
    assert_eq!(
        announcements(&mut world, &mut wire),
        [],
        "it was said while the lease was taken"
    );
    lose_the_link(&mut world, &stack, &control);
    assert_eq!(announcements(&mut world, &mut wire), [0, 50, 200, 450, 800, 1250]);
    // A second loss in the middle: it begins again.
    lose_the_link(&mut world, &stack, &control);
    world.pass(Duration::from_millis(100));
    lose_the_link(&mut world, &stack, &control);
    assert_eq!(announcements(&mut world, &mut wire), [0, 0, 0, 50, 200, 450, 800, 1250]);
}

#[test]
fn a_lease_outlives_a_short_loss_of_the_link() {
    let mut world = World::new();
    let (stack, mut wire, control) = leased(&mut world);
    lose_the_link(&mut world, &stack, &control);
    assert_eq!(stack.status().addresses.len(), 1);
    // The neighbours are told where the address is now, and the server is asked whether it is still ours.
    let (mut announced, mut asked) = (0, None);
    while let Some((frame, _)) = wire.0.take() {
        announced += u32::from(is_announcement(&frame));
        if frame[12..14] == [8, 0] && frame[36..38] == [0, 67] {
            asked = Some(frame[42..].to_vec());
        }
    }
    assert_eq!(announced, 1);
    wire.send(&dhcp_answer(&asked.unwrap()).unwrap());
    let request = dhcp_messages(&mut wire, &mut world);
    let changes = stack.changes().count();
    wire.send(&dhcp_answer(&request[0]).unwrap());
    world.settle();
    assert_eq!(stack.status().addresses, [Cidr::new(LEASED.into(), 24)]);
    assert_eq!(stack.changes().count(), changes, "nobody notices");
    // It is a whole lease again.
    world.pass(Duration::from_secs(590));
    assert_eq!(stack.status().addresses.len(), 1);
}

#[test]
fn another_network_gives_another_address() {
    let mut world = World::new();
    let (stack, mut wire, control) = leased(&mut world);
    lose_the_link(&mut world, &stack, &control);
    let other = Ipv4Addr::new(10, 0, 0, 51);
    lease(&mut wire, &mut world, other);
    assert_eq!(stack.status().addresses, [Cidr::new(other.into(), 24)]);
}

#[test]
fn a_lease_that_nobody_confirms_is_kept_to_its_end() {
    let mut world = World::new();
    let (stack, mut wire, control) = leased(&mut world);
    world.pass(Duration::from_secs(100));
    for _ in 0..2 {
        lose_the_link(&mut world, &stack, &control);
    }
    world.pass(Duration::from_secs(498));
    assert_eq!(stack.status().addresses.len(), 1);
    world.pass(Duration::from_secs(3));
    assert!(stack.status().addresses.is_empty());
    // And it goes on asking.
    wire.frames(&mut world);
    world.pass(Duration::from_secs(5));
    assert!(!dhcp_messages(&mut wire, &mut world).is_empty());
}

#[test]
fn a_router_gives_an_address_and_a_way_out() {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        Icmpv6Packet, Icmpv6Repr, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
    };
    let mut world = World::new();
    let (one, two) = pair();
    let config = Config {
        ipv4: Ipv4Config::Off,
        ..Config::default()
    };
    let stack = world.stack(one, config, Limits::default(), 1);
    let mut wire = Wire(two);
    let solicited = wire
        .frames(&mut world)
        .iter()
        .any(|frame| frame[12..14] == [0x86, 0xdd] && frame[54] == 133);
    assert!(solicited);
    let (router, all) = (
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    );
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 5, 0, 0, 0, 0);
    let advert = |lifetime| {
        let repr = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
            hop_limit: 64,
            flags: NdiscRouterFlags::empty(),
            router_lifetime: smoltcp::time::Duration::from_secs(lifetime),
            reachable_time: smoltcp::time::Duration::ZERO,
            retrans_time: smoltcp::time::Duration::ZERO,
            lladdr: Some(world::THEIR_MAC.into()),
            mtu: None,
            prefix_info: Some(NdiscPrefixInformation {
                prefix_len: 64,
                flags: NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
                valid_lifetime: smoltcp::time::Duration::from_secs(lifetime),
                preferred_lifetime: smoltcp::time::Duration::from_secs(lifetime),
                prefix,
            }),
        });
        let mut message = vec![0; repr.buffer_len()];
        repr.emit(
            &router,
            &all,
            &mut Icmpv6Packet::new_unchecked(&mut message),
            &ChecksumCapabilities::default(),
        );
        let mut frame = world::ip_frame(router.into(), all.into(), IpProtocol::Icmpv6, &message);
        frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        frame[14 + 7] = 255;
        frame
    };
    wire.send(&advert(1000));
    let waiter = stack.clone();
    world.run(async move { waiter.wait_config_up().await.unwrap() });
    let status = stack.status();
    let own = Ipv6Addr::new(0x2001, 0xdb8, 0, 5, 0, 0xff, 0xfe00, 0xa);
    assert!(
        status.addresses.contains(&Cidr::new(own.into(), 64)),
        "{:?}",
        status.addresses
    );
    assert_eq!(status.gateways, [IpAddr::from(router)]);
    // The end of the search for routers changes nothing.
    world.pass(Duration::from_secs(20));
    assert_eq!(stack.status(), status);
}

#[test]
fn impossible_configurations_are_refused() {
    let world = World::new();
    let fixed = |addresses: Vec<Cidr<Ipv4Addr>>, gateway| Config {
        ipv4: Ipv4Config::Static { addresses, gateway },
        ipv6: Ipv6Config::Off,
        ..Config::default()
    };
    let try_it = |config: Config| {
        let (device, _) = pair();
        let random = fata_net::pair::SeedRng::new(1);
        Stack::new(&world.handle, device, random, config, Limits::default()).map(drop)
    };
    assert_eq!(try_it(fixed(vec![Cidr::new(OURS, 24)], Some(THEIRS))), Ok(()));
    let bad = [
        fixed(vec![Cidr::new(OURS, 33)], None),
        fixed(vec![Cidr::new(Ipv4Addr::new(224, 0, 0, 1), 24)], None),
        fixed(vec![Cidr::new(Ipv4Addr::UNSPECIFIED, 24)], None),
        fixed(vec![Cidr::new(OURS, 24)], Some(Ipv4Addr::new(10, 0, 1, 1))),
        fixed(
            (1..=9)
                .map(|last| Cidr::new(Ipv4Addr::new(10, 0, 0, last), 24))
                .collect(),
            None,
        ),
        Config {
            hostname: Some("h".repeat(64)),
            ..Config::default()
        },
        Config {
            dns: vec![Ipv4Addr::UNSPECIFIED.into()],
            ..Config::default()
        },
    ];
    for config in bad {
        assert_eq!(try_it(config.clone()), Err(Error::InvalidInput), "{config:?}");
    }
    // A device with a group's address.
    let (device, _) = pair();
    device
        .control()
        .set_capabilities(|capabilities| capabilities.mac[0] |= 1);
    let random = fata_net::pair::SeedRng::new(1);
    let made = Stack::new(&world.handle, device, random, Config::default(), Limits::default()).map(drop);
    assert_eq!(made, Err(Error::BadDevice));
}
