//! The console against a daemon that reads, stops, lies or never was.

#[path = "../../events/tests/common/mod.rs"]
mod common;
mod guest;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::Fake;
use fata_console::{BACKLOG, Console, Error, MAX_LINE};
use fata_events::xen::XenLoop;
use fata_grant::{ByteLayout, ByteRing};
use fata_hypercall::Port;
use guest::*;
use proptest::prelude::*;

#[test]
fn line_feeds_become_what_a_terminal_wants() {
    let mut guest = guest();
    for text in ["a\nb\r\n", "c\r", "\n", "\n\n", "d"] {
        guest.console.write(text.as_bytes());
    }
    writeln!(guest.console, "{}-{:?}", 4, 'e');
    assert_eq!(
        guest.daemon.take_all(&mut guest.xen),
        "a\r\nb\r\nc\r\n\r\n\r\nd4-'e'\r\n"
    );
    assert_eq!(guest.console.stats().dropped, 0);
}

#[test]
fn a_burst_costs_one_notification_to_wake_and_one_to_end() {
    let mut guest = guest();
    guest.settle();
    guest.console.write(b"first");
    assert_eq!(
        guest.notifications(),
        0,
        "a line that is not complete can wait for the end of the turn"
    );
    guest.console.write(b" line\n");
    assert_eq!(guest.notifications(), 1);
    for _ in 0..20 {
        guest.console.write(b"more\n");
    }
    assert_eq!(guest.notifications(), 1, "the daemon is still at the first");
    guest.settle();
    guest.settle();
    assert_eq!(guest.notifications(), 2);
    assert_eq!(guest.console.stats().notifications, 2);

    guest.daemon.take(RING);
    guest.settle();
    guest.console.write(b"prompt> ");
    assert_eq!(guest.notifications(), 2);
    guest.settle();
    assert_eq!(
        guest.notifications(),
        3,
        "a prompt is shown, if only at the end of the turn"
    );
    guest.console.write(b"");
    guest.settle();
    assert_eq!(guest.notifications(), 3);
}

#[test]
fn a_daemon_that_takes_wakes_nobody_unless_somebody_waits() {
    let mut guest = guest();
    guest.console.write(b"text\n");
    guest.settle();
    let polls = guest.xen.handle().stats().polls;
    guest.daemon.take(RING);
    guest.settle();
    assert_eq!(guest.xen.handle().stats().polls, polls);
    assert_eq!(guest.hv.last_poll().ports, [], "nor is the port watched");
}

/// Who writes more at once than the ring holds is not asked to write again.
#[test]
fn what_waits_for_room_moves_by_itself() {
    let mut guest = guest();
    guest.settle();
    let text = "z".repeat(RING + 100);
    guest.console.write(text.as_bytes());
    assert_eq!(guest.daemon.take_all(&mut guest.xen), text);
}

/// MSA-03 (CVE-2022-46770): output longer than the ring made a guest loop for ever.
#[test]
fn msa_03_console_longer_than_ring() {
    let mut guest = guest();
    let text = "x".repeat(99) + "\n";
    let lines = 10_000;
    let long = text.repeat(lines);
    guest.console.write(long.as_bytes()); // the daemon has stopped; this comes back all the same
    let fitted = (RING + BACKLOG) / (text.len() + 1);
    assert_eq!(guest.console.stats().dropped, ((lines - fitted) * text.len()) as u64);
    assert!(guest.console.stats().backlog <= BACKLOG);

    let got = guest.daemon.take_all(&mut guest.xen);
    let whole = got.lines().filter(|line| *line == text.trim_end()).count();
    assert_eq!(whole, fitted, "what fits comes through, as whole lines");
    assert_eq!(lost(&got), [guest.console.stats().dropped]);
    assert_eq!(got.lines().count(), fitted + 1);
}

/// The same without a single line end.
#[test]
fn msa_03_one_line_longer_than_everything() {
    let mut guest = guest();
    guest.console.write(&[b'y'; 1_000_000]);
    guest.console.write(b" and more of it");
    guest.console.write(b"\nnext\n");
    let dropped = guest.console.stats().dropped;
    let got = guest.daemon.take_all(&mut guest.xen);
    let shown = got.chars().take_while(|&c| c == 'y').count();
    assert!(shown > RING + BACKLOG - 512 && shown <= RING + BACKLOG);
    assert_eq!(
        got[shown..],
        format!("\r\n[console: {dropped} bytes lost]\r\n"),
        "the notice is on a line of its own"
    );
    guest.console.write(b"after\n");
    assert_eq!(guest.daemon.take_all(&mut guest.xen), "after\r\n");
}

/// Rule 79: a daemon that has stopped costs lines, not time, and what was lost is said when it goes on.
#[test]
fn rule_79_a_stopped_daemon_costs_lines() {
    let mut guest = guest();
    for i in 0..1000 {
        writeln!(guest.console, "line {i:04} of the boot");
        guest.settle();
    }
    let notifications = guest.notifications();
    assert!(
        notifications < 200,
        "no storm of notifications for a full ring: {notifications}"
    );
    guest.hv.signal(PORT); // it is alive, but took nothing
    guest.settle();
    assert!(guest.hv.last_poll().slept);

    let first = guest.daemon.take_all(&mut guest.xen);
    guest.console.write(b"now\n");
    let got = first + &guest.daemon.take_all(&mut guest.xen);
    let shown = got.lines().filter(|line| line.starts_with("line ")).count();
    assert!(got.starts_with("line 0000 of the boot\r\nline 0001"));
    assert_eq!(lost(&got), [(1000 - shown as u64) * 22]);
    assert!(got.ends_with("bytes lost]\r\nnow\r\n"));
}

/// A line that lost a part loses all that comes after it: no text is put together that nobody wrote.
#[test]
fn rule_79_the_rest_of_a_cut_line_is_dropped_too() {
    let mut guest = guest();
    guest.console.write(b"head ");
    guest.console.write(&[b'-'; RING + BACKLOG]);
    let mut got = guest.daemon.take_all(&mut guest.xen);
    guest.console.write(b"tail\nnext\n");
    got += &guest.daemon.take_all(&mut guest.xen);
    let dashes = got.matches('-').count();
    let expected = format!(
        "head {}\r\n[console: {} bytes lost]\r\n[console: 5 bytes lost]\r\nnext\r\n",
        "-".repeat(dashes),
        RING + BACKLOG - dashes
    );
    assert_eq!(got, expected);
}

/// Rule 66 for the console: indices are taken as found, and wrap.
#[test]
fn rule_66_indices_are_taken_as_found() {
    let mut guest = guest_at(0xffff_fff0);
    let mut sent = String::new();
    let mut got = String::new();
    for i in 0..200 {
        let line = format!("{i} {}\r\n", "z".repeat(i % 50));
        guest.console.write(line.as_bytes());
        sent += &line;
        got += &guest.daemon.take_all(&mut guest.xen);
    }
    assert_eq!(got, sent);
    let typed = guest.daemon.type_in(b"hello");
    let console = guest.console.clone();
    let read = guest.spawn(async move {
        let mut to = [0; 9];
        console.read(&mut to).await.map(|count| to[..count].to_vec())
    });
    guest.settle();
    assert_eq!((typed, read.take()), (5, Some(Ok(b"hello".to_vec()))));
}

/// Rule 78: an impossible index closes the ring. The text goes on in Xen's log, with one message and what had to wait.
#[test]
fn rule_78_an_impossible_output_index_closes_the_ring() {
    // From one more than was produced to one less than the ring could hold.
    for claim in [1, 5000, 0x8000_0000, (RING as u32 + 1).wrapping_neg()] {
        let mut guest = guest();
        let filler = [b'f'; 200];
        for _ in 0..15 {
            guest.console.write(&filler);
        }
        guest.settle();
        let prod = page(&guest.hv).load_u32(OUT_PROD, Ordering::Relaxed).unwrap();
        page(&guest.hv).store_u32(OUT_CONS, prod.wrapping_add(claim), Ordering::Relaxed);
        guest.console.write(b"one\n");
        guest.console.write(b"two\n");
        guest.settle();
        let log = String::from_utf8(guest.hv.0.log.take()).unwrap();
        let waited = "f".repeat(15 * 200 - RING);
        assert_eq!(
            log,
            format!("console: impossible ring index; output goes to Xen's log\n{waited}one\ntwo\n")
        );
        let stats = guest.console.stats();
        assert!(!stats.open);
        // Xen's log need not have it: a release build of Xen refuses.
        assert_eq!(stats.dropped, waited.len() as u64 + 8);
    }
}

/// A restore brings a ring, whoever closed the one before: the console works as at the start.
#[test]
fn a_ring_that_was_closed_comes_back_with_a_restore() {
    for by_a_writer in [true, false] {
        let mut guest = guest();
        guest.settle();
        if !by_a_writer {
            guest.console.write(&[b'x'; RING + 100]);
        }
        page(&guest.hv).store_u32(OUT_CONS, 7777, Ordering::Relaxed);
        if by_a_writer {
            guest.console.write(b"lost\n");
        }
        guest.settle();
        assert!(!guest.console.stats().open);

        for offset in [OUT_CONS, OUT_PROD] {
            page(&guest.hv).store_u32(offset, 0, Ordering::Relaxed);
        }
        guest
            .daemon
            .ring
            .replace(ByteRing::attach(ByteLayout::CONSOLE.other_end(), page(&guest.hv)).unwrap());
        guest.xen.ports().resume();
        guest.console.resume(guest.xen.ports());
        guest.settle();
        assert!(guest.console.stats().open);
        let before = guest.notifications();
        guest.console.write(b"prompt> ");
        guest.settle();
        assert_eq!(guest.notifications(), before + 1, "nobody tells the daemon");
        let notice = match by_a_writer {
            true => "[console: 5 bytes lost]\r\n",
            false => "\r\n[console: 100 bytes lost]\r\n",
        };
        guest.console.write(&[b'y'; RING + 100]);
        guest.settle();
        let got = guest.daemon.take_all(&mut guest.xen);
        assert_eq!(
            got,
            format!("{notice}prompt> {}", "y".repeat(RING + 100)),
            "the backlog stays"
        );
    }
}

/// Rules 78 and 81: the same for what is typed; who waits for it is told, whoever noticed it: himself, when the port fires,
/// or a writer, when it does not.
#[test]
fn rule_81_a_blocked_reader_notices_the_close() {
    for (index, fires) in [(IN_PROD, true), (OUT_CONS, false)] {
        let mut guest = guest();
        let (bytes, line) = (guest.console.clone(), guest.console.clone());
        let bytes = guest.spawn(async move { bytes.read(&mut [0; 5]).await });
        let line = guest.spawn(async move { line.read_line().await });
        guest.settle();
        assert!(bytes.borrow().is_none() && line.borrow().is_none());
        page(&guest.hv).store_u32(index, 7777, Ordering::Relaxed);
        if fires {
            guest.hv.signal(PORT);
        } else {
            guest.console.write(b"x");
        }
        guest.settle();
        assert_eq!(
            (bytes.take(), line.take()),
            (Some(Err(Error::Closed)), Some(Err(Error::Closed)))
        );
        let console = guest.console.clone();
        let late = guest.spawn(async move { console.read(&mut [0; 5]).await });
        guest.settle();
        assert_eq!(late.take(), Some(Err(Error::Closed)));
    }
}

#[test]
fn a_ring_that_is_broken_from_the_start_is_not_used() {
    for (offset, port) in [
        (Some(OUT_CONS), PORT),
        (Some(IN_PROD), PORT),
        (None, Port(0)),
        (None, Port(4096)),
    ] {
        let hv = Fake::with_console(port);
        if let Some(offset) = offset {
            page(&hv).store_u32(offset, 77_777, Ordering::Relaxed);
        }
        let xen = XenLoop::new(hv.clone());
        let console = Console::new(hv.clone(), xen.ports());
        console.write(b"hello\n");
        let log = String::from_utf8(hv.0.log.take()).unwrap();
        assert_eq!(log, "console: the ring is unusable; output goes to Xen's log\nhello\n");
    }
}

#[test]
fn without_a_ring_xens_log_is_the_console() {
    let hv = Fake::new();
    let mut xen = XenLoop::new(hv.clone());
    let console = Console::new(hv.clone(), xen.ports());
    xen.handle().spawn(console.clone().run()).detach();
    console.write(b"hello\n");
    writeln!(console, "{}", 5);
    while xen.turn() {}
    assert_eq!(hv.0.log.take(), b"hello\n5\n");
    assert!(console.flush(xen.clock(), Duration::from_secs(1)));
    let stats = console.stats();
    assert_eq!((stats.open, stats.dropped), (false, 8));
}

/// A log message or a panic from inside the console must neither deadlock nor panic.
#[test]
fn writing_inside_a_write_goes_to_xens_log() {
    let mut guest = guest();
    let (console, moment) = (guest.console.clone(), Cell::new(0));
    guest.hv.set_hook(move |_| {
        moment.set(moment.get() + 1);
        match moment.get() {
            1 => console.write(b"inside\n"),   // while the console looks for its ring
            2 => console.write(b"notified\n"), // while it notifies: the ring is whole again
            _ => assert!(console.stats().written > 0),
        }
    });
    guest.console.write(b"outer\n");
    guest.hv.set_hook(|_| {});
    assert_eq!(guest.daemon.take_all(&mut guest.xen), "outer\r\nnotified\r\n");
    assert_eq!(guest.hv.0.log.take(), b"inside\n");
}

/// XSA-391 (CVE-2021-28713): a daemon that signals in a loop, and types nothing.
#[test]
fn xsa_391_a_daemon_that_signals_and_types_nothing() {
    let mut guest = guest();
    let console = guest.console.clone();
    let line = guest.spawn(async move { console.read_line().await });
    guest.settle();
    let turns = guest.hv.clone().storm_for_a_second(&mut guest.xen, PORT);
    assert!(turns < 1000, "{turns} turns");
    guest.daemon.type_in(b"still there?\r");
    guest.hv.storm_for_a_second(&mut guest.xen, PORT);
    assert_eq!(line.take(), Some(Ok("still there?".into())));
}

/// The same while output waits for room that it does not make.
#[test]
fn xsa_391_a_daemon_that_signals_and_takes_nothing() {
    let mut guest = guest();
    guest.console.write(&[b'x'; RING + 100]);
    guest.settle();
    let turns = guest.hv.clone().storm_for_a_second(&mut guest.xen, PORT);
    assert!(turns < 1000, "{turns} turns");
    guest.daemon.take(RING);
    guest.hv.storm_for_a_second(&mut guest.xen, PORT);
    assert_eq!(guest.console.stats().backlog, 0);
}

/// Rule 80: the flush at exit loses nothing that fits, as long as the daemon works.
#[test]
fn rule_80_the_flush_loses_nothing_that_fits() {
    let guest = guest();
    let mut sent = String::new();
    for i in 0..500 {
        let line = format!("last words {i:04}\r\n");
        guest.console.write(line.as_bytes());
        sent += &line;
    }
    assert!(guest.console.stats().backlog > 0);
    let got = Rc::new(RefCell::new(Vec::new()));
    let (daemon, taken) = (guest.daemon.clone(), got.clone());
    // The daemon works while the guest sleeps.
    guest.hv.set_hook(move |hv| {
        if hv.0.polls.borrow().len() > taken.borrow().len() / 300 {
            taken.borrow_mut().extend(daemon.take(300));
        }
    });
    assert!(guest.console.flush(guest.xen.clock(), Duration::from_secs(1)));
    assert_eq!(String::from_utf8(got.take()).unwrap(), sent);
    assert!(guest.hv.0.polls.borrow().iter().all(|poll| poll.ports == [PORT]));
}

/// Rule 80: and it is bounded, whether the daemon sleeps or only pretends to work.
#[test]
fn rule_80_the_flush_is_bounded() {
    let guest = guest();
    guest.console.write(&[b'x'; 3000]);
    // A stopped daemon: time goes by in poll.
    guest.hv.set_hook(|hv| hv.0.tsc.set(hv.0.tsc.get() + 100_000));
    guest.hv.signal(PORT); // an old event must not keep poll from sleeping
    let before = guest.hv.system_time();
    assert!(!guest.console.flush(guest.xen.clock(), Duration::from_millis(5)));
    let took = guest.hv.system_time() - before;
    assert!((5_000_000..6_000_000).contains(&took), "{took} ns");
    assert!(guest.hv.0.polls.borrow()[0].slept);

    // A daemon that signals and takes nothing; and a clock that stands still on top of it.
    guest.hv.0.polls.borrow_mut().clear();
    guest.hv.set_hook(|hv| hv.signal(PORT));
    assert!(!guest.console.flush(guest.xen.clock(), Duration::from_secs(1)));
    assert!(guest.hv.0.polls.borrow().len() <= 65);
}

#[test]
fn what_is_typed_arrives_whole_and_makes_room() {
    let mut guest = guest();
    let console = guest.console.clone();
    let all = guest.spawn(async move {
        let mut all = Vec::new();
        while all.len() < 3000 {
            let mut to = [0; 100];
            let count = console.read(&mut to).await.unwrap();
            all.extend_from_slice(&to[..count]);
        }
        all
    });
    let typed: Vec<u8> = (0..3000_u32).map(|i| i as u8).collect();
    let mut done = 0;
    while done < typed.len() {
        done += guest.daemon.type_in(&typed[done..]);
        guest.settle();
    }
    assert_eq!(all.take().unwrap(), typed);
    assert_eq!(guest.console.stats().received, 3000);
    assert!(guest.notifications() > 0, "the daemon is told that there is room");
    let console = guest.console.clone();
    let empty = guest.spawn(async move { console.read(&mut []).await });
    guest.settle();
    assert_eq!(empty.take(), Some(Ok(0)));
}

#[test]
fn a_line_is_echoed_edited_and_ends_where_it_ends() {
    let mut guest = guest();
    let console = guest.console.clone();
    let lines = guest.spawn(async move {
        let first = console.read_line().await.unwrap();
        let second = console.read_line().await.unwrap();
        let mut rest = [0; 20];
        let count = console.read(&mut rest).await.unwrap();
        (first, second, rest[..count].to_vec())
    });
    guest.daemon.type_in(b"hel");
    guest.settle();
    assert_eq!(guest.daemon.take_all(&mut guest.xen), "hel", "echoed at once");
    guest.daemon.type_in(b"p\x7flo\rsecond\nrest");
    guest.settle();
    let expected = (String::from("hello"), String::from("second"), b"rest".to_vec());
    assert_eq!(lines.take(), Some(expected));
    assert_eq!(guest.daemon.take_all(&mut guest.xen), "p\x08 \x08lo\r\nsecond\r\n");
}

/// A caller that gives up waiting loses nothing of what was typed.
#[test]
fn a_line_survives_its_reader() {
    let mut guest = guest();
    let console = guest.console.clone();
    let handle = guest.xen.handle();
    let task = handle.spawn(async move { console.read_line().await });
    guest.daemon.type_in(b"first half, ");
    guest.settle();
    drop(task);
    guest.daemon.type_in(b"second half\r");
    let console = guest.console.clone();
    let line = guest.spawn(async move { console.read_line().await });
    guest.settle();
    assert_eq!(line.take(), Some(Ok("first half, second half".into())));
}

#[test]
fn a_line_has_a_longest_length() {
    let mut guest = guest();
    let console = guest.console.clone();
    let line = guest.spawn(async move { console.read_line().await });
    for _ in 0..10 {
        guest.daemon.type_in(&[b'k'; 1000]);
        guest.settle();
        guest.daemon.take_all(&mut guest.xen);
    }
    guest.daemon.type_in(b"\r");
    guest.settle();
    assert_eq!(line.take(), Some(Ok("k".repeat(MAX_LINE))));
}

#[test]
fn it_is_a_stream_like_others() {
    use embedded_io_async::{Read, Write};
    let mut guest = guest();
    let mut console = guest.console.clone();
    let echoed = guest.spawn(async move {
        let mut to = [0; 3];
        console.read_exact(&mut to).await.unwrap();
        Write::write_all(&mut console, &to).await
    });
    guest.daemon.type_in(b"ab");
    guest.settle();
    guest.daemon.type_in(b"c");
    assert_eq!(guest.daemon.take_all(&mut guest.xen), "abc");
    assert_eq!(echoed.take(), Some(Ok(())));
}

#[derive(Clone, Debug)]
enum Op {
    /// A line of so many bytes, written in so many pieces.
    Line(usize, usize),
    /// The daemon takes so many bytes.
    Take(usize),
    Turn,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..600_usize, 1..4_usize).prop_map(|(length, pieces)| Op::Line(length, pieces)),
        2 => (0..3000_usize).prop_map(Op::Take),
        2 => Just(Op::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the daemon does, the lines that come through come in order; every line that is cut or missing stands
    /// beside a notice; and the notices add up to what was dropped, to the byte.
    #[test]
    fn nothing_is_lost_silently(ops in prop::collection::vec(op(), 1..120), start in any::<u32>()) {
        let mut guest = guest_at(start);
        let mut sent = 0_usize;
        let mut count = 0;
        let mut got = Vec::new();
        for op in ops {
            match op {
                Op::Line(length, pieces) => {
                    let line = format!("<{count} {}>\n", "x".repeat(length));
                    count += 1;
                    sent += line.len();
                    for piece in line.as_bytes().chunks(line.len().div_ceil(pieces)) {
                        guest.console.write(piece);
                    }
                }
                Op::Take(most) => got.extend(guest.daemon.take(most)),
                Op::Turn => { guest.xen.turn(); }
            }
        }
        got.extend(guest.daemon.take_all(&mut guest.xen).into_bytes());
        let got = String::from_utf8(got).unwrap();
        let mut before = -1;
        let mut shown = 0;
        let mut cut = 0;
        for line in got.split_inclusive("\r\n") {
            if line.starts_with("[console: ") {
                continue;
            }
            shown += line.trim_end().len();
            match line.strip_prefix('<').and_then(|line| line.strip_suffix(">\r\n")) {
                Some(whole) => {
                    let id: i64 = whole.split(' ').next().unwrap().parse().unwrap();
                    prop_assert!(id > before);
                    if id > before + 1 {
                        prop_assert!(got.contains(" bytes lost]"));
                    }
                    before = id;
                    shown += 1; // its LF
                }
                None => cut += 1,
            }
        }
        let notices = lost(&got);
        let dropped = guest.console.stats().dropped;
        prop_assert_eq!(notices.iter().sum::<u64>(), dropped);
        prop_assert!(cut <= notices.len(), "{} lines are cut, {} notices", cut, notices.len());
        prop_assert_eq!(shown as u64 + dropped, sent as u64);
        prop_assert_eq!(guest.console.stats().backlog, 0);
        prop_assert!(guest.hv.0.log.borrow().is_empty());
    }
}
