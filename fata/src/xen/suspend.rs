//! Being saved: `xl save`, `xl restore`, `xl migrate`.
//!
//! ```text
//! control/shutdown = "suspend", which Control empties
//!   -> tasks are told, and may ask for a moment         (Lifecycle)
//!   -> xenstore falls quiet, the console is flushed     (what is in the rings now does not come along)
//!   -> streams to other domains are closed
//!   -> Hypervisor::suspend .................................. the domain stands still
//!   -> cancelled: nothing has changed
//!      restored: clock, ports, grants, console, store, devices begin again, in this order
//!   -> xenstore goes on, tasks are told
//! ```

use core::time::Duration;

use fata_hypercall::{Hypervisor, Suspended};
use fata_xenstore::Store;

use super::port::XenPort;
use crate::Env;

/// How long xenstore may take to answer what it was asked before.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// How long the console's daemon may take to read what is in its ring.
const CONSOLE_PATIENCE: Duration = Duration::from_millis(100);

/// Has the domain stand still until the toolstack lets it go on, here or elsewhere.
pub(super) async fn suspend<H: Hypervisor>(port: &XenPort<H>, store: &Store<H>, env: &Env) {
    let lifecycle = &env.0.lifecycle;
    let handle = &env.0.handle;
    log::info!("to be suspended");
    lifecycle.suspending(handle).await;
    let Ok(quiet) = handle.timeout(STORE_PATIENCE, store.quiet()).await else {
        log::error!("not suspended: xenstore does not answer");
        return lifecycle.cancelled();
    };
    // Now that nobody can make another.
    #[cfg(feature = "vchan")]
    port.let_go();
    port.console().flush(port.clock(), CONSOLE_PATIENCE);
    let suspended = port.hypervisor().suspend();
    if suspended == Ok(Suspended::Restored) {
        port.resume();
    }
    drop(quiet);
    match suspended {
        Ok(Suspended::Restored) => {
            log::info!("resumed in a new domain");
            lifecycle.resumed();
        }
        Ok(Suspended::Cancelled) => {
            log::info!("not suspended after all, or only copied");
            lifecycle.cancelled();
        }
        Err(error) => {
            log::error!("not suspended: {error}");
            lifecycle.cancelled();
        }
    }
}
