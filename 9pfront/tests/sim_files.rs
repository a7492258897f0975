//! What a program does with files, against an honest backend, under many seeds.

mod common;

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use common::{SECOND, boot, bytes, finish, names, whole};
use embedded_io_async::{Read, Seek, SeekFrom, Write};
use fata_9pfront::{Errno, Error, Kind};
use fata_sim::{EventFaults, P9Config, check};

/// Backends of all kinds: rings from two pages on, short messages.
fn config(sim: &fata_sim::Sim) -> P9Config {
    P9Config {
        max_order: 1 + sim.random(9) as u32,
        msize: 4096 + sim.random(1 << sim.random(18)) as u32,
        ..P9Config::default()
    }
}

#[test]
fn files_are_what_was_written() {
    check(0..200, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, config(sim));
        if sim.random(3) == 0 {
            domain.set_event_faults(EventFaults {
                late_one_in: 4,
                late_by: SECOND / 1000,
                again_one_in: 8,
            });
        }
        let (ours, theirs) = (sim.random(200_000) as usize, sim.random(200_000) as usize);
        back.create_dir("deep");
        back.write("deep/theirs", &bytes(1, theirs));
        let program = boot(sim, &domain, |env| async move {
            let share = env.share;
            share.connected().await;
            assert_eq!(share.tag().as_deref(), Some("share"));
            assert!(share.read("/deep/theirs", 1 << 20).await.unwrap() == bytes(1, theirs));
            share.write("ours", &bytes(2, ours)).await.unwrap();
            assert_eq!(whole(&share.open("ours").await.unwrap()).await.unwrap(), bytes(2, ours));
            // Shorter than before.
            share.write("deep/theirs", b"replaced").await.unwrap();
            let metadata = share.metadata("deep/theirs").await.unwrap();
            assert_eq!((metadata.kind, metadata.len), (Kind::File, 8));
            assert_eq!(share.metadata("deep").await.unwrap().kind, Kind::Directory);
            assert_eq!(share.space().await.unwrap().available, 400 * 4096);
        });
        let fids = Rc::new(std::cell::Cell::new(0));
        sim.run_until(
            || {
                fids.set(if program.get() { fids.get() } else { back.fids() });
                program.get()
            },
            60 * SECOND,
        );
        assert!(fids.get() <= 2, "{} files were not given back", fids.get());
        finish(sim, &domain, &program);
        assert_eq!(back.read("ours"), Some(bytes(2, ours)));
        assert_eq!(back.read("deep/theirs").as_deref(), Some(&b"replaced"[..]));
    });
}

#[test]
fn directories_are_made_listed_renamed_and_removed() {
    check(0..100, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, config(sim));
        let count = sim.random(400) as usize;
        back.create_dir("many");
        (0..count).for_each(|n| back.write(&format!("many/{n:04}-{}", "x".repeat(n % 200)), b""));
        let program = boot(sim, &domain, |env| async move {
            let share = env.share;
            share.connected().await;
            let listed = names(&share, "many").await.unwrap();
            assert_eq!(listed.len(), count);
            assert!(
                listed
                    .iter()
                    .enumerate()
                    .all(|(n, name)| name.starts_with(&format!("{n:04}-")))
            );

            // Deeper than one walk reaches.
            let mut path = String::new();
            for depth in 0..40 {
                path = format!("{path}/{depth}");
                share.create_dir(&path).await.unwrap();
            }
            let file = format!("{path}/file");
            share.write(&file, b"deep").await.unwrap();
            assert_eq!(share.read(&file, 1 << 20).await.unwrap(), b"deep");
            assert_eq!(names(&share, &path).await.unwrap(), ["file"]);
            share.rename(&file, "up").await.unwrap();
            assert_eq!(share.read("up", 4).await.unwrap(), b"deep");
            assert_eq!(share.read("up", 3).await, Err(Error::TooLarge { limit: 3 }));
            assert!(share.metadata(&file).await.unwrap_err().is_missing());
            assert_eq!(share.remove_dir("0").await, Err(Error::Refused(Errno::ENOTEMPTY)));
            assert_eq!(share.remove_file("0").await, Err(Error::Refused(Errno::EISDIR)));
            share.remove_dir(&path).await.unwrap();
            share.remove_file("up").await.unwrap();
            assert_eq!(names(&share, "").await.unwrap(), ["0", "many"]);
            assert_eq!(share.create_dir("0").await, Err(Error::Refused(Errno::EEXIST)));
        });
        finish(sim, &domain, &program);
        assert_eq!(back.list("").unwrap(), ["0", "many"]);
    });
}

#[test]
fn what_cannot_be_done_says_why() {
    check(0..50, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, config(sim));
        back.write("file", b"text");
        back.set_room(10_000);
        let program = boot(sim, &domain, |env| async move {
            let share = env.share;
            assert_eq!(
                share.read("file", 1 << 20).await,
                Err(Error::Closed),
                "before it is connected"
            );
            share.connected().await;
            assert!(share.open("missing").await.unwrap_err().is_missing());
            assert!(share.read("missing/deeper", 1 << 20).await.unwrap_err().is_missing());
            assert_eq!(share.read("file/deeper", 1 << 20).await, Err(Error::Refused(Errno(20))));
            assert!(share.create("missing/file").await.unwrap_err().is_missing());
            assert!(share.edit("missing").await.unwrap_err().is_missing());
            assert_eq!(share.read_dir("file").await.unwrap_err(), Error::Refused(Errno(20)));
            assert_eq!(share.read("../etc/passwd", 1 << 20).await, Err(Error::BadPath));
            assert_eq!(share.create_dir("/").await, Err(Error::BadPath));
            let full = share.write("large", &[1; 20_000]).await;
            assert_eq!(full, Err(Error::Refused(Errno::ENOSPC)));
            assert_eq!(share.read("file", 1 << 20).await.unwrap(), b"text", "it goes on");
        });
        finish(sim, &domain, &program);
    });
}

#[test]
fn a_file_is_a_stream_with_a_position() {
    check(0..50, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, config(sim));
        let program = boot(sim, &domain, |env| async move {
            env.share.connected().await;
            let mut file = env.share.create("file").await.unwrap();
            file.write_all(&bytes(3, 30_000)).await.unwrap();
            file.flush().await.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.seek(SeekFrom::Start(10_000)).await, Ok(10_000));
            let mut piece = vec![0; 20_000];
            file.read_exact(&mut piece).await.unwrap();
            assert_eq!(piece, bytes(3, 30_000)[10_000..]);
            assert_eq!(file.read(&mut piece).await, Ok(0), "the end");
            assert_eq!(file.seek(SeekFrom::Current(-29_999)).await, Ok(1));
            assert_eq!(file.seek(SeekFrom::Current(-2)).await, Err(Error::BadSeek));
            assert_eq!(file.seek(SeekFrom::End(-5)).await, Ok(29_995));
            file.set_len(29_996).await.unwrap();
            assert_eq!(file.read(&mut piece).await, Ok(1));
            file.set_len(30_001).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().len, 30_001);
            // A second one of the same name sees the same bytes.
            let again = env.share.edit("file").await.unwrap();
            again.write_all_at(30_000, b"!").await.unwrap();
            let mut last = [0; 9];
            assert_eq!(file.read_at(29_996, &mut last).await, Ok(5));
            assert_eq!(&last[..5], b"\0\0\0\0!");
        });
        finish(sim, &domain, &program);
        assert_eq!(back.read("file").unwrap().len(), 30_001);
    });
}

/// Many tasks, each with a file of its own, more than there may be requests.
#[test]
fn many_at_once_do_not_get_each_others_answers() {
    check(0..50, |sim| {
        let domain = sim.domain("guest");
        let back = sim.add_share(&domain, config(sim));
        let program = boot(sim, &domain, |env| async move {
            env.share.connected().await;
            let tasks: Vec<_> = (0..60_u8)
                .map(|number| {
                    let share = env.share.clone();
                    env.handle.spawn(async move {
                        let (name, content) = (format!("file-{number}"), bytes(number, 200 * usize::from(number)));
                        share.write(&name, &content).await.unwrap();
                        assert_eq!(share.read(&name, 1 << 20).await.unwrap(), content);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        finish(sim, &domain, &program);
        assert_eq!(back.list("").unwrap().len(), 60);
        assert_eq!(back.read("file-59"), Some(bytes(59, 200 * 59)));
    });
}

/// Futures are dropped at any moment, and everything they had is given back.
#[test]
fn rule_59_a_request_that_nobody_waits_for_keeps_its_tag() {
    let told = AtomicU64::new(0);
    check(0..200, |sim| {
        let domain = sim.domain("guest");
        // Time passes while somebody works, so that some of the limits are over in the middle.
        sim.set_turn_cost(SECOND / 100_000);
        let back = sim.add_share(&domain, config(sim));
        back.create_dir("a");
        back.write("a/file", &bytes(1, 50_000));
        let pauses: Vec<_> = (0..60).map(|_| sim.random(300)).collect();
        let program = boot(sim, &domain, |env| async move {
            let share = env.share;
            share.connected().await;
            for (turn, pause) in pauses.into_iter().enumerate() {
                let pause = std::time::Duration::from_micros(pause);
                let work = async {
                    match turn % 4 {
                        0 => drop(share.read("a/file", 1 << 20).await),
                        1 => drop(share.write("a/other", &[1; 9000]).await),
                        2 => drop(names(&share, "a").await),
                        _ => drop(share.metadata("a/missing").await),
                    }
                };
                let _ = env.handle.timeout(pause, work).await;
            }
            assert!(share.read("a/file", 1 << 20).await.unwrap() == bytes(1, 50_000));
            env.handle.sleep(SECOND).await;
        });
        let mut fids = 0;
        sim.run_until(
            || {
                fids = if back.is_connected() { back.fids() } else { fids };
                program.get()
            },
            60 * SECOND,
        );
        assert_eq!(fids, 1, "only the root directory is left");
        told.fetch_add(back.taken_back(), Relaxed);
        finish(sim, &domain, &program);
    });
    // In one run it may be that whatever was given up had never been sent.
    if std::env::var_os("FATA_SEED").is_none() {
        assert!(told.into_inner() > 0, "no server was told of any");
    }
}
