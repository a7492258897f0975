//! From nothing to a ready Xen host, once; from a snapshot to a ready Xen host, every other time.
//!
//! A snapshot is QEMU's migration stream, written to a plain file when dom0 is ready. It needs no disk image and no tool
//! besides QEMU, and it is only ever read, so that any number of hosts may start from it at the same time.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::agent::Agent;
use crate::cache::{Cache, Key, Lock, Used};
use crate::error::Error;
use crate::host::{Clock, Options};
use crate::image;
use crate::network::{self, AGENT};
use crate::progress::{Stage, Step};
use crate::qemu::{self, Qemu};
use crate::qmp::Qmp;

/// What dom0's init prints last.
const READY: &str = "fata: dom0 is ready";
/// Lines that tell how far a cold boot is, in the order in which they come.
const MILESTONES: [&str; 5] = [
    "Xen version",
    "Dom0 has maximum",
    "Scrubbing",
    "Xen is relinquishing",
    READY,
];

/// A QEMU whose dom0 answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) qemu: Qemu,
    pub(crate) qmp: Qmp,
    pub(crate) agent: Agent,
}

/// Makes sure that the machine and its snapshot are in the cache, then starts from the snapshot.
pub(crate) fn start(options: &Options) -> Result<(Running, Used), Error> {
    let Options {
        cache,
        clock,
        memory_mib,
        reporter,
    } = options;
    let arguments = qemu::arguments(*clock, *memory_mib);
    let found = || {
        let machine = cache.ready("machine", image::key())?;
        let snapshot = cache.ready("snapshot", key(&arguments))?;
        Some((machine, snapshot))
    };
    let (machine, snapshot) = match found() {
        Some(both) => both,
        None => {
            let lock = cache.lock(reporter)?;
            let machine = image::build(&lock, cache, reporter)?;
            let snapshot = build(&lock, cache, machine.path(), &arguments, options)?;
            (machine, snapshot)
        }
    };
    let running = reporter.stage(Stage::Restore, |_| {
        restore(cache, machine.path(), snapshot.path(), &arguments, *clock)
    })?;
    Ok((running, machine))
}

/// A snapshot fits what it was made of: the machine's folder (QEMU's version is part of its recipe), QEMU's arguments and
/// our files in dom0.
fn key(arguments: &[String]) -> Key {
    let machine = image::key().to_string();
    let overlay = image::OVERLAY.iter().flat_map(|(path, _, content)| [*path, *content]);
    Key::of(
        arguments
            .iter()
            .map(String::as_str)
            .chain([machine.as_str()])
            .chain(overlay),
    )
}

fn build(lock: &Lock, cache: &Cache, machine: &Path, arguments: &[String], options: &Options) -> Result<Used, Error> {
    let key = key(arguments);
    if let Some(ready) = cache.ready("snapshot", key) {
        return Ok(ready);
    }
    // Of two checkouts, for both clocks.
    lock.build("snapshot", key, 4, |folder| {
        // What Linux unpacks is one archive after the other, so ours may simply follow.
        let initrd = folder.join("initrd");
        let base = machine.join(image::DOM0_BASE);
        let mut content = std::fs::read(&base).map_err(Error::io("read", &base))?;
        content.extend(image::overlay(image::texts(image::OVERLAY))?);
        image::write(&initrd, content)?;

        let mut running = options.reporter.stage(Stage::Boot, |step| {
            let mut qemu = Qemu::start(
                cache,
                machine,
                arguments,
                &[("initrd", &initrd), (qemu::STATE, &folder.join(qemu::STATE))],
            )?;
            wait_ready(&mut qemu, step)?;
            connect(qemu, options.clock)
        })?;
        options
            .reporter
            .stage(Stage::Snapshot, |step| save(&mut running, folder, step))
    })
}

fn wait_ready(qemu: &mut Qemu, step: &Step<'_>) -> Result<(), Error> {
    let mut reached = 0;
    qemu.wait_for("booting Xen and dom0", Duration::from_secs(600), |qemu| {
        let log = qemu.xen_log();
        let now = MILESTONES.iter().filter(|line| log.contains(**line)).count();
        if now > reached {
            reached = now;
            step.advance(now as f32, MILESTONES.len() as f32);
        }
        Ok(log.contains(READY).then_some(()))
    })
}

/// Opens the control socket, finds the agent's port and asks it for a first answer.
fn connect(mut qemu: Qemu, clock: Clock) -> Result<Running, Error> {
    let control = qemu.control();
    let mut qmp = qemu.wait_for("QEMU's control socket", Duration::from_secs(60), |_| {
        Qmp::connect(&control)
    })?;
    finish(qemu, &mut qmp, clock).map(|(qemu, agent)| Running { qemu, qmp, agent })
}

fn finish(mut qemu: Qemu, qmp: &mut Qmp, clock: Clock) -> Result<(Qemu, Agent), Error> {
    let port = network::forwarded_port(&qmp.human("info usernet")?, AGENT.0, AGENT.1);
    let agent = Agent {
        port: port.ok_or_else(|| Error::Qmp {
            command: "info usernet".into(),
            answer: "no forwarded port".into(),
        })?,
    };
    // The first answer also sets the clock, which stood still since the snapshot. Instructions are counted from a fixed
    // beginning instead.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let script = match clock {
        Clock::Wall => format!("date -u -s @{now}"),
        Clock::Instructions => "true".to_owned(),
    };
    qemu.wait_for("the agent in dom0", Duration::from_secs(180), |_| {
        match agent.run(&script, Duration::from_secs(10)) {
            Ok(output) if output.success() => Ok(Some(())),
            Ok(output) => Err(Error::Command {
                command: script.clone(),
                status: output.status,
                output: output.stderr,
            }),
            Err(_) => Ok(None),
        }
    })?;
    Ok((qemu, agent))
}

fn save(running: &mut Running, folder: &Path, step: &Step<'_>) -> Result<(), Error> {
    let Running { qemu, qmp, .. } = running;
    qmp.execute("stop", json!({}))?;
    // QEMU's default limit is for networks that others need as well.
    qmp.execute("migrate-set-parameters", json!({ "max-bandwidth": 8_u64 << 30 }))?;
    qmp.execute("migrate", json!({ "uri": format!("exec:cat > {}", qemu::STATE) }))?;
    qemu.wait_for("writing the snapshot", Duration::from_secs(300), |_| {
        match qmp.status("query-migrate")?.as_str() {
            "completed" => Ok(Some(())),
            "failed" | "cancelled" => Err(Error::Qmp {
                command: "migrate".into(),
                answer: "the snapshot failed".into(),
            }),
            _ => Ok(None),
        }
    })?;
    step.advance(1.0, 2.0);
    qmp.execute("quit", json!({}))?;
    qemu.wait_end(Duration::from_secs(30))?;
    image::write(&folder.join("boot.log"), qemu.xen_log())
}

fn restore(
    cache: &Cache,
    machine: &Path,
    snapshot: &Path,
    arguments: &[String],
    clock: Clock,
) -> Result<Running, Error> {
    let mut all = arguments.to_vec();
    all.extend(["-incoming".to_owned(), format!("exec:cat {}", qemu::STATE)]);
    let files = [
        ("initrd", snapshot.join("initrd")),
        (qemu::STATE, snapshot.join(qemu::STATE)),
    ];
    let files = files.each_ref().map(|(name, path)| (*name, path.as_path()));
    let mut qemu = Qemu::start(cache, machine, &all, &files)?;
    let control = qemu.control();
    let mut qmp = qemu.wait_for("QEMU's control socket", Duration::from_secs(60), |_| {
        Qmp::connect(&control)
    })?;
    qemu.wait_for("reading the snapshot", Duration::from_secs(120), |_| {
        Ok((qmp.status("query-status")? != "inmigrate").then_some(()))
    })?;
    qmp.execute("cont", json!({}))?;
    let (qemu, agent) = finish(qemu, &mut qmp, clock)?;
    Ok(Running { qemu, qmp, agent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_machine_has_its_own_snapshot() {
        let key = |clock, memory| key(&qemu::arguments(clock, memory)).to_string();
        let keys = [
            key(Clock::Wall, 1536),
            key(Clock::Instructions, 1536),
            key(Clock::Wall, 6144),
        ];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
        assert_eq!(keys[0], key(Clock::Wall, 1536));
    }
}
