//! A guest that misbehaves on request. The words after `--` say how; each request is one of the integration tests'.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod faults;
mod grants;
mod share;
mod vchan;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt::Write;
use core::time::Duration;

use fata::{Env, ExitCode, Failure, LifecycleEvent};

#[fata::main]
async fn main(env: Env) -> Result<(), Box<dyn Error>> {
    let words = env.args().application().to_vec();
    let words: Vec<&str> = words.iter().map(|word| word.as_str()).collect();
    let mut console = env.console();
    match words[..] {
        ["exit", status] => Err(Failure::new(ExitCode(status.parse()?), "asked to fail"))?,
        ["panic"] => panic!("asked to panic"),
        ["overflow"] => writeln!(console, "survived {}", faults::overflow(1))?,
        ["null"] => writeln!(console, "survived {}", faults::read_null())?,
        ["write-text"] => faults::write_text(),
        ["execute-data"] => faults::execute_data(),
        ["allocate"] => loop {
            core::mem::forget(vec![1_u8; 1 << 20]);
        },
        ["fill", mebibytes] => fill(mebibytes.parse()?)?,
        ["ask"] => {
            writeln!(console, "your name?")?;
            writeln!(
                console,
                "hello, {}",
                env.console().read_line().await.unwrap_or_default()
            )?;
        }
        ["flood"] => {
            for line in 0..2000 {
                writeln!(console, "line {line} of a flood that no ring can hold")?;
            }
            // Long enough for a test to see that the guest sleeps, although nobody reads.
            env.sleep(Duration::from_secs(8)).await;
            writeln!(console, "past the flood")?;
        }
        ["clock"] => {
            let began = env.now();
            let looks = (1..10_000).find(|_| env.now() > began);
            writeln!(console, "the clock ran at look {looks:?}")?;
        }
        ["lifecycle"] => lifecycle(env).await?,
        ["resolve", name] => {
            for address in env.net().await?.resolve(name).await? {
                writeln!(console, "{name} is {address}")?;
            }
        }
        ["interfaces"] => {
            for name in env.interfaces() {
                let stack = env.interface(&name).await?;
                writeln!(console, "{name}: {:?}", stack.status())?;
            }
        }
        ["grants"] => grants::run(&env).await?,
        ["share", tag] => share::run(&env, tag).await?,
        ["vchan", ref rest @ ..] => vchan::run(&env, rest).await?,
        ["plug"] => plug(env).await,
        _ => Err(Failure::new(ExitCode::USAGE, "no such request"))?,
    }
    Ok(())
}

/// Tells of the machine's life, and the time, for ever.
async fn lifecycle(env: Env) -> core::fmt::Result {
    let mut console = env.console();
    let mut lifecycle = env.lifecycle();
    writeln!(console, "waiting")?;
    loop {
        let event = lifecycle.next().await;
        let (up, clock) = (env.now().since_zero().as_millis(), env.wall_clock().as_secs());
        match event {
            LifecycleEvent::Suspending(hold) => {
                env.sleep(Duration::from_millis(200)).await;
                writeln!(console, "suspending, up {up} ms")?;
                drop(hold);
            }
            LifecycleEvent::Cancelled => writeln!(console, "cancelled, up {up} ms, clock {clock} s")?,
            _ => {
                writeln!(console, "resumed, up {up} ms, clock {clock} s")?;
                env.sleep(Duration::from_millis(100)).await;
                writeln!(console, "timers run")?;
            }
        }
    }
}

/// Tells of interfaces that come and go, and opens each.
async fn plug(env: Env) {
    let (mut console, changes) = (env.console(), env.interface_changes());
    let (mut seen, mut known) = (changes.count(), Vec::<String>::new());
    loop {
        let there = env.interfaces();
        if there != known {
            // The console takes what it can; nobody is to be told of the rest.
            let _ = writeln!(console, "interfaces: {},", there.join(","));
        }
        for name in there.iter().filter(|name| !known.contains(*name)) {
            if let Ok(stack) = env.interface(name).await {
                for cidr in stack.status().addresses {
                    let _ = writeln!(console, "{name}: {}", cidr.address);
                }
            }
        }
        for name in known.iter().filter(|name| !there.contains(*name)) {
            let _ = writeln!(console, "{name} is gone");
        }
        known = there;
        seen = changes.after(seen).await;
    }
}

/// Allocates that much memory at once, writes to all of it and reads it back.
fn fill(mebibytes: usize) -> Result<(), Failure> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for n in 0..mebibytes {
        let mut block = Vec::new();
        if block.try_reserve_exact(1 << 20).is_err() {
            return Err(Failure::new(
                ExitCode::FAILURE,
                alloc::format!("out of memory after {n} MiB"),
            ));
        }
        block.resize(1 << 20, n as u8);
        blocks.push(block);
    }
    let right = blocks
        .iter()
        .enumerate()
        .all(|(n, block)| block.iter().all(|&byte| byte == n as u8));
    if right {
        Ok(())
    } else {
        Err(Failure::new(ExitCode::FAILURE, "memory has changed"))
    }
}
