//! TCP between two stacks.

mod echo;
mod world;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use echo::serve_echo;
use embedded_io_async::{Read, Write};
use fata_net::pair::Faults;
use fata_net::{ChecksumOffload, Error, Limits, ListenOptions, Stack, TcpOptions};
use world::{OURS, OURS6, THEIRS, World, at, pattern};

#[test]
fn sixty_four_at_once_are_all_let_in() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours
        .listen_on(
            at(OURS, 80),
            ListenOptions {
                backlog: 64,
                ..ListenOptions::default()
            },
        )
        .unwrap();
    let connected = Rc::new(Cell::new(0));
    let start = world.clock_now();
    for index in 0..64u8 {
        let (theirs, connected) = (theirs.clone(), connected.clone());
        let client = async move {
            let stream = theirs.connect(at(OURS, 80)).await.unwrap();
            connected.set(connected.get() + 1);
            stream.write_all(&[index]).await.unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [index]);
        };
        world.handle.spawn(client).detach();
    }
    // Nobody accepts, yet all of them get through.
    world.settle();
    assert_eq!(connected.get(), 64);
    assert_eq!(world.clock_now(), start, "none had to try again");
    assert_eq!(ours.stats().tcp_accepted, 64);
    world.run(async move {
        for _ in 0..64 {
            let stream = listener.accept().await.unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            stream.write_all(&byte).await.unwrap();
        }
    });
}

#[test]
fn above_the_backlog_they_wait_and_are_not_refused() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours
        .listen_on(
            at(OURS, 80),
            ListenOptions {
                backlog: 4,
                ..ListenOptions::default()
            },
        )
        .unwrap();
    let results = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..12 {
        let (theirs, results) = (theirs.clone(), results.clone());
        let client = async move {
            let stream = theirs.connect(at(OURS, 80)).await;
            results
                .borrow_mut()
                .push(stream.map(|stream| (stream.peer_addr(), stream)));
        };
        world.handle.spawn(client).detach();
    }
    world.settle();
    assert_eq!(results.borrow().len(), 4);
    assert!(ours.stats().tcp_backlog_full >= 8);
    let accepted = world.run(async move {
        let mut streams = Vec::new();
        for _ in 0..12 {
            streams.push(listener.accept().await.unwrap());
        }
        streams
    });
    world.settle();
    assert_eq!(accepted.len(), 12);
    assert!(results.borrow().len() == 12 && results.borrow().iter().all(Result::is_ok));
}

#[test]
fn ten_thousand_short_connections_in_little_memory() {
    let mut world = World::new();
    let limits = Limits {
        connections: 24,
        half_open: 8,
        time_wait: 100,
        ..Limits::default()
    };
    let (ours, theirs, _, _) = world.stacks(limits);
    let listener = ours.listen(80).unwrap();
    let peak = Rc::new(Cell::new(0));
    {
        let (peak, ours) = (peak.clone(), ours.clone());
        let server = async move {
            while let Ok(stream) = listener.accept().await {
                let mut request = [0; 4];
                if stream.read_exact(&mut request).await.is_ok() {
                    // The server closes first, so TIME-WAIT is its own.
                    let _ = stream.write_all(b"answer").await;
                }
                drop(stream);
                peak.set(peak.get().max(ours.stats().tcp_connections));
            }
        };
        world.handle.spawn(server).detach();
    }
    let client = theirs.clone();
    world.run(async move {
        for _ in 0..10_000 {
            let stream = client.connect(at(OURS, 80)).await.unwrap();
            stream.write_all(b"get!").await.unwrap();
            let mut answer = Vec::new();
            let mut buffer = [0; 16];
            while let len @ 1.. = stream.read(&mut buffer).await.unwrap() {
                answer.extend_from_slice(&buffer[..len]);
            }
            assert_eq!(answer, b"answer");
        }
    });
    let stats = ours.stats();
    assert_eq!(stats.tcp_accepted, 10_000);
    assert_eq!(stats.tcp_no_memory, 0);
    assert!(peak.get() <= 4, "{} connections at once", peak.get());
    assert_eq!(stats.tcp_time_wait, 100);
    world.pass(Duration::from_secs(1));
    assert_eq!((ours.stats().tcp_connections, theirs.stats().tcp_connections), (0, 0));
}

#[test]
fn above_the_limit_of_connections_a_syn_is_lost_and_comes_again() {
    let mut world = World::new();
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let (one, two) = fata_net::pair::pair();
    let ours = world.stack(one, world::fixed(OURS, OURS6), limits, 1);
    let theirs = world.stack(two, world::fixed(THEIRS, world::THEIRS6), Limits::default(), 2);
    serve_echo(&world, &ours);
    let streams = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..3 {
        let (theirs, streams) = (theirs.clone(), streams.clone());
        let client = async move {
            let stream = theirs.connect(at(OURS, 7)).await.unwrap();
            streams.borrow_mut().push(stream);
        };
        world.handle.spawn(client).detach();
    }
    world.settle();
    assert_eq!(streams.borrow().len(), 2);
    assert!(ours.stats().tcp_no_memory > 0);
    streams.borrow_mut().pop();
    world.pass(Duration::from_secs(10));
    assert_eq!(streams.borrow().len(), 2, "the third has got the second's place");
}

#[test]
fn one_side_closed_the_other_goes_on() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    let server = world.handle.spawn(async move {
        let stream = listener.accept().await.unwrap();
        let mut buffer = [0; 16];
        let mut got = 0;
        while let len @ 1.. = stream.read(&mut buffer).await.unwrap() {
            got += len;
        }
        assert_eq!(stream.read(&mut buffer).await, Ok(0), "the end stays the end");
        stream.write_all(&pattern(50_000)).await.unwrap();
        got
    });
    world.run(async move {
        let stream = theirs.connect(at(OURS, 80)).await.unwrap();
        stream.write_all(&[1; 40]).await.unwrap();
        stream.shutdown();
        assert_eq!(stream.write(b"x").await, Err(Error::NotConnected));
        let mut answer = vec![0; 50_000];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, pattern(50_000));
        assert_eq!(stream.read(&mut answer).await, Ok(0));
        assert_eq!(server.await.unwrap(), 40);
    });
}

#[test]
fn what_was_written_before_the_drop_arrives() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    world.run(async move {
        let options = TcpOptions {
            tx_buffer: Some(30_000),
            ..TcpOptions::default()
        };
        let stream = theirs.connect_with(at(OURS, 80), options).await.unwrap();
        stream.write_all(&pattern(30_000)).await.unwrap();
        drop(stream);
        let stream = listener.accept().await.unwrap();
        let mut got = Vec::new();
        let mut buffer = [0; 700];
        while let len @ 1.. = stream.read(&mut buffer).await.unwrap() {
            got.extend_from_slice(&buffer[..len]);
        }
        assert_eq!(got, pattern(30_000));
    });
}

#[test]
fn an_owned_writer_that_is_dropped_ends_the_stream() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    serve_echo(&world, &ours);
    world.run(async move {
        let (mut reader, mut writer) = theirs.connect(at(OURS, 7)).await.unwrap().into_split();
        writer.write_all(b"last words").await.unwrap();
        drop(writer);
        let mut words = [0; 10];
        reader.read_exact(&mut words).await.unwrap();
        assert_eq!(words, *b"last words");
        assert_eq!(reader.read(&mut words).await, Ok(0));
    });
}

#[test]
fn an_abort_resets_the_peer() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    world.run(async move {
        let stream = theirs.connect(at(OURS, 80)).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        assert_eq!(accepted.peer_addr(), stream.local_addr());
        assert_eq!(accepted.local_addr(), at(OURS, 80));
        accepted.abort();
        let mut buffer = [0; 4];
        assert_eq!(stream.read(&mut buffer).await, Err(Error::ConnectionReset));
        assert_eq!(stream.write(b"more").await, Err(Error::ConnectionReset));
        assert_eq!(stream.close().await, Err(Error::ConnectionReset));
    });
    world.pass(Duration::from_secs(1));
    assert_eq!(ours.stats().tcp_connections, 0);
}

#[test]
fn a_listener_that_goes_takes_its_waiting_connections_along() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    let client = theirs.clone();
    let stream = world.run(async move { client.connect(at(OURS, 80)).await.unwrap() });
    drop(listener);
    world.run(async move {
        assert_eq!(stream.read(&mut [0; 4]).await, Err(Error::ConnectionReset));
        assert_eq!(theirs.connect(at(OURS, 80)).await.err(), Some(Error::ConnectionRefused));
    });
    assert!(ours.listen(80).is_ok());
}

#[test]
fn connecting_fails_for_the_right_reason() {
    let mut world = World::new();
    let (ours, theirs, _, right) = world.stacks(Limits::default());
    let start = world.clock_now();
    let client = theirs.clone();
    world.run(async move {
        let error = async |to| client.connect(to).await.err().unwrap();
        assert_eq!(error(at(OURS, 81)).await, Error::ConnectionRefused);
        assert_eq!(error(at([192, 168, 7, 7], 80)).await, Error::AddressNotAvailable);
        assert_eq!(error(at(THEIRS, 80)).await, Error::AddressNotAvailable);
        assert_eq!(error(at([127, 0, 0, 1], 80)).await, Error::AddressNotAvailable);
        assert_eq!(error(at(OURS, 0)).await, Error::InvalidInput);
    });
    assert_eq!(world.clock_now(), start);
    // A neighbour that does not answer, then a wire that swallows everything.
    let client = theirs.clone();
    world.run(async move {
        assert_eq!(
            client.connect(at([10, 0, 0, 99], 80)).await.err(),
            Some(Error::TimedOut)
        );
    });
    right.set_faults(Faults {
        loss: 1000,
        ..Faults::default()
    });
    world.run(async move {
        assert_eq!(theirs.connect(at(OURS, 7)).await.err(), Some(Error::TimedOut));
    });
    world.pass(Duration::from_secs(5));
    assert_eq!(ours.stats().tcp_connections, 0);
}

#[test]
fn who_never_closes_is_aborted_in_the_end() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    let (kept, dropped) = world.run(async move {
        let kept = theirs.connect(at(OURS, 80)).await.unwrap();
        (kept, listener.accept().await.unwrap())
    });
    // The peer keeps its side open: the connection would stay in FIN-WAIT-2 for ever.
    drop(dropped);
    world.pass(Duration::from_secs(29));
    assert_eq!(ours.stats().tcp_connections, 1);
    world.pass(Duration::from_secs(5));
    let stats = ours.stats();
    assert_eq!(
        (stats.tcp_connections, stats.tcp_closing, stats.tcp_close_timeouts),
        (0, 0, 1)
    );
    world.run(async move {
        assert_eq!(kept.read(&mut [0; 4]).await, Ok(0), "the FIN came first");
        assert_eq!(kept.write(b"more").await, Err(Error::ConnectionReset));
    });
}

#[test]
fn a_vanished_peer_is_noticed() {
    let mut world = World::new();
    let (ours, theirs, left, right) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    let (stream, peer) = world.run(async move {
        let stream = theirs.connect(at(OURS, 80)).await.unwrap();
        (listener.accept().await.unwrap(), stream)
    });
    // An idle connection with a live peer lives on: keep-alives are answered.
    world.pass(Duration::from_secs(1200));
    assert!(stream.is_open() && peer.is_open());
    left.set_faults(Faults {
        loss: 1000,
        ..Faults::default()
    });
    right.set_faults(Faults {
        loss: 1000,
        ..Faults::default()
    });
    let start = world.clock_now();
    world.run(async move { assert_eq!(stream.read(&mut [0; 4]).await, Err(Error::ConnectionReset)) });
    let took = world.clock_now() - start;
    assert!(
        took > Duration::from_secs(200) && took < Duration::from_secs(400),
        "{took:?}"
    );
}

#[test]
fn without_a_link_connections_end_all_the_same() {
    let mut world = World::new();
    let (ours, theirs, left, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    let (streams, _peers) = world.run(async move {
        let (mut streams, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            peers.push(theirs.connect(at(OURS, 80)).await.unwrap());
            streams.push(listener.accept().await.unwrap());
        }
        (streams, peers)
    });
    left.set_link(false);
    let start = world.clock_now();
    world.run(async move {
        for stream in &streams {
            stream.write_all(b"into the void").await.unwrap();
        }
        for stream in streams {
            assert_eq!(stream.read(&mut [0; 4]).await, Err(Error::ConnectionReset));
        }
    });
    assert!(world.clock_now() - start < Duration::from_secs(1000));
    world.pass(Duration::from_secs(60));
    assert_eq!(ours.stats().tcp_connections, 0);
}

#[test]
fn a_link_that_comes_back_keeps_its_connections() {
    let mut world = World::new();
    let (ours, theirs, left, _) = world.stacks(Limits::default());
    serve_echo(&world, &ours);
    let stream = world.run(async move { theirs.connect(at(OURS, 7)).await.unwrap() });
    left.set_link(false);
    world.pass(Duration::from_secs(3));
    assert!(!ours.status().link_up);
    // It comes back as another device: other offloads, a smaller MTU.
    left.set_capabilities(|capabilities| {
        capabilities.tx_checksum = ChecksumOffload::ALL;
        capabilities.mtu = 1400;
    });
    left.set_link(true);
    world.run(async move {
        stream.write_all(b"still there?").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"still there?");
    });
    assert_eq!(ours.status().mtu, 1400);
}

#[test]
fn a_dropped_connection_that_times_out_without_a_link_is_freed() {
    let mut world = World::new();
    let (ours, theirs, left, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    let options = TcpOptions {
        idle_timeout: Some(Duration::from_secs(10)),
        ..TcpOptions::default()
    };
    let address = at(THEIRS, 80);
    let peers = theirs.listen(80).unwrap();
    let client = ours.clone();
    let peer = world.run(async move {
        let stream = client.connect_with(address, options).await.unwrap();
        (stream, peers.accept().await.unwrap(), listener)
    });
    left.set_link(false);
    drop(peer.0);
    let before = world.turns;
    world.pass(Duration::from_secs(60));
    assert_eq!(ours.stats().tcp_connections, 0);
    assert!(world.turns - before < 1000, "{} turns", world.turns - before);
}

#[test]
fn a_shutdown_sends_what_is_left_and_takes_leave() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    let handle = world.handle.clone();
    let start = world.clock_now();
    let (stack, client) = (ours.clone(), theirs.clone());
    let (held, idle) = world.run(async move {
        let connect = || client.connect(at(OURS, 80));
        let (reader, held, dropped, idle) = (connect(), connect(), connect(), connect());
        let reader = reader.await.unwrap();
        let writer = listener.accept().await.unwrap();
        let peer_of_held = held.await.unwrap();
        let held = listener.accept().await.unwrap();
        let dropped_peer = dropped.await.unwrap();
        drop(listener.accept().await.unwrap());
        let idle = idle.await.unwrap();
        writer.write_all(&pattern(4000)).await.unwrap();
        drop(writer);
        let read = handle.spawn(async move {
            let (mut got, mut buffer) = (Vec::new(), [0; 700]);
            while let len @ 1.. = reader.read(&mut buffer).await.unwrap() {
                got.extend_from_slice(&buffer[..len]);
            }
            assert_eq!(got, pattern(4000));
        });
        let end = handle.spawn(async move {
            // A stream that a task still holds is closed, too.
            assert_eq!(peer_of_held.read(&mut [0; 4]).await, Ok(0));
            assert_eq!(dropped_peer.read(&mut [0; 4]).await, Ok(0));
        });
        stack.shutdown(Duration::from_secs(1)).await;
        read.await.unwrap();
        end.await.unwrap();
        // Nobody accepted this one.
        assert_eq!(idle.read(&mut [0; 4]).await, Err(Error::ConnectionReset));
        assert_eq!(listener.accept().await.err(), Some(Error::Stopped));
        assert_eq!(stack.connect(at(THEIRS, 80)).await.err(), Some(Error::Stopped));
        (held, idle)
    });
    assert!(
        world.clock_now() - start < Duration::from_secs(1),
        "nobody kept us waiting"
    );
    drop((held, idle));
    world.pass(Duration::from_secs(60));
    assert_eq!(ours.stats().tcp_connections, 0);
}

#[test]
fn a_shutdown_resets_who_does_not_close() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let listener = ours.listen(80).unwrap();
    let start = world.clock_now();
    world.run(async move {
        let peer = theirs.connect(at(OURS, 80)).await.unwrap();
        let _held = listener.accept().await.unwrap();
        ours.shutdown(Duration::from_secs(1)).await;
        assert_eq!(peer.read(&mut [0; 4]).await, Ok(0));
        assert_eq!(peer.write(b"more").await, Err(Error::ConnectionReset));
    });
    assert!(world.clock_now() - start < Duration::from_millis(1100));
}

#[test]
fn without_its_runner_everything_fails_at_once() {
    let mut world = World::new();
    let (one, two) = fata_net::pair::pair();
    let theirs = world.stack(two, world::fixed(THEIRS, world::THEIRS6), Limits::default(), 2);
    let random = fata_net::pair::SeedRng::new(1);
    let config = world::fixed(OURS, OURS6);
    let (ours, runner) = Stack::new(&world.handle, one, random, config, Limits::default()).unwrap();
    let runner = world.handle.spawn(runner.run());
    let listener = ours.listen(80).unwrap();
    let udp = ours.udp(9).unwrap();
    let (stream, listener, _peer) = world.run(async move {
        let peer = theirs.connect(at(OURS, 80)).await.unwrap();
        (listener.accept().await.unwrap(), listener, peer)
    });
    let waiting = world.handle.spawn(async move {
        assert_eq!(stream.read(&mut [0; 4]).await, Err(Error::Stopped));
        assert_eq!(udp.recv_from(&mut [0; 4]).await, Err(Error::Stopped));
        assert_eq!(listener.accept().await.err(), Some(Error::Stopped));
    });
    world.settle();
    runner.cancel();
    world.run(async move {
        waiting.await.unwrap();
        assert_eq!(ours.listen(81).err(), Some(Error::Stopped));
        assert_eq!(ours.udp(81).err(), Some(Error::Stopped));
        assert_eq!(ours.connect(at(THEIRS, 80)).await.err(), Some(Error::Stopped));
        assert_eq!(ours.wait_config_up().await, Err(Error::Stopped));
    });
}

#[test]
fn ports_are_taken_once() {
    let world = World::new();
    let (ours, _, _, _) = world.stacks(Limits::default());
    let all = ours.listen(80).unwrap();
    assert_eq!(ours.listen(80).err(), Some(Error::AddressInUse));
    // One address of many is more exact than all of them.
    let one = ours.listen_on(at(OURS, 80), ListenOptions::default()).unwrap();
    assert_eq!(
        ours.listen_on(at(OURS, 80), ListenOptions::default()).err(),
        Some(Error::AddressInUse)
    );
    assert_eq!(
        ours.listen_on(at(THEIRS, 80), ListenOptions::default()).err(),
        Some(Error::AddressNotAvailable)
    );
    let any = ours.listen(0).unwrap();
    assert!(any.local_addr().port() >= 49_152);
    drop((all, one));
    assert!(ours.listen(80).is_ok());
}
