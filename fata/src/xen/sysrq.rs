//! `xl sysrq`: what an administrator asks of a program that does not do what it should.

use alloc::rc::Rc;
use core::fmt::Write;

use fata_hypercall::{Hypervisor, ShutdownReason};
use fata_xenstore::Client;
use fata_xenstore::control::Sysrq;

use super::port::XenPort;
use crate::Env;

/// What is printed for any letter that means nothing.
const HELP: &str =
    "sysrq: m memory, t tasks, n network, c crash with a report, b reboot at once, o power off at once\n";

/// Obeys, as long as the store lives.
pub(super) async fn obey<H: Hypervisor>(port: Rc<XenPort<H>>, store: Client, env: Env) {
    let Ok(mut letters) = Sysrq::new(&store) else { return };
    while let Ok(letter) = letters.next().await {
        let stats = env.stats();
        let mut console = env.console();
        // Writing to the console does not fail.
        let _ = match letter {
            b'm' => {
                let memory = stats.memory;
                writeln!(
                    console,
                    "sysrq: memory: {} KiB, {} in use, {} in the balloon; {} pages granted, {} in quarantine",
                    memory.total >> 10,
                    memory.used >> 10,
                    memory.ballooned >> 10,
                    stats.grants.active,
                    stats.grants.quarantined
                )
            }
            b't' => writeln!(
                console,
                "sysrq: {} tasks, {} timers, {} ports, {} watches; up {} s",
                stats.tasks,
                stats.timers,
                stats.ports,
                stats.watches,
                stats.uptime.as_secs()
            ),
            #[cfg(feature = "net")]
            b'n' => stats.interfaces.iter().try_for_each(|interface| {
                let (link, net) = (if interface.link_up { "up" } else { "down" }, &interface.stack);
                writeln!(
                    console,
                    "sysrq: {}: link {link}, {} frames in, {} out, {} connections",
                    interface.name, net.rx_frames, net.tx_frames, net.tcp_connections
                )
            }),
            b'c' => panic!("sysrq: crash, as the administrator wishes"),
            b'b' => return port.hypervisor().shutdown(ShutdownReason::Reboot),
            b'o' => return port.hypervisor().shutdown(ShutdownReason::PowerOff),
            _ => console.write_str(HELP),
        };
    }
}
