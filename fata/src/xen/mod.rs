//! The program as a Xen domain: everything below the facade, put together.
//!
//! It is generic over the [`Hypervisor`], so the whole start-up runs in the simulator as it runs on metal:
//!
//! ```text
//! start: event loop, clock -> console -> boot arguments
//!   life (a task): xenstore -> balloon -> control/shutdown, network interfaces -> the application's main -> the end
//! ```

#[cfg(feature = "balloon")]
mod balloon;
mod control;
#[cfg(feature = "net")]
mod interface;
#[cfg(feature = "net")]
mod interfaces;
mod life;
#[cfg(any(feature = "net", feature = "9pfs"))]
mod place;
mod port;
#[cfg(feature = "9pfs")]
mod shares;
#[cfg(feature = "suspend")]
mod suspend;
#[cfg(feature = "sysrq")]
mod sysrq;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;

use fata_events::xen::XenLoop;
use fata_hypercall::{Hypervisor, ShutdownReason};

use crate::args::Args;
use crate::exit::{ExitCode, Outcome, Termination};
use crate::logger::Logger;
use crate::stats::Memory;
use crate::{Env, xen::port::XenPort};

/// What the boot code knows and the facade needs.
#[derive(Clone)]
pub struct Facts {
    /// The command line.
    pub command_line: String,
    /// What a seed can be made of: see [`Random::from_entropy`](crate::random::Random::from_entropy).
    pub entropy: Vec<u8>,
    /// The memory that the program lives in.
    pub ram: Rc<dyn Ram>,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("command_line", &self.command_line)
            .finish_non_exhaustive()
    }
}

/// The memory that a program lives in. A function that tells its state is one of which nothing can be taken.
pub trait Ram {
    /// What of it is used for what.
    fn memory(&self) -> Memory;

    /// How many pages have memory, if the boot code can tell: then whatever has none is in the balloon already.
    #[cfg(feature = "balloon")]
    fn pages_with_memory(&self) -> Option<usize> {
        None
    }

    /// Gives up to so many free pages to Xen, and says how many: 0 only if none can go; there may be more where some went.
    #[cfg(feature = "balloon")]
    fn inflate(&self, pages: usize) -> usize;

    /// Gets up to so many of them back, and says how many: 0 only if Xen has none.
    #[cfg(feature = "balloon")]
    fn deflate(&self, pages: usize) -> usize;
}

impl<F: Fn() -> Memory> Ram for F {
    fn memory(&self) -> Memory {
        self()
    }

    #[cfg(feature = "balloon")]
    fn inflate(&self, _: usize) -> usize {
        0
    }

    #[cfg(feature = "balloon")]
    fn deflate(&self, _: usize) -> usize {
        0
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its exit status.
    pub code: ExitCode,
    /// What Xen was told.
    pub reason: ShutdownReason,
}

/// The application, whatever its type.
type Application = Box<dyn FnOnce(Env) -> Pin<Box<dyn Future<Output = Outcome>>>>;

/// A domain with its program.
///
/// The simulator calls [`turn`](Self::turn); metal calls [`run`](Self::run).
pub struct Guest<H: Hypervisor> {
    xen_loop: XenLoop<H>,
    logger: Logger,
    end: Rc<Cell<Option<End>>>,
}

/// Sets up a domain whose application is `main`. Nothing has happened before the first [`Guest::turn`].
pub fn start<H, F, T>(hv: H, facts: Facts, main: F) -> Guest<H>
where
    H: Hypervisor,
    F: FnOnce(Env) -> T + 'static,
    T: Future<Output: Termination> + 'static,
{
    start_boxed(
        hv,
        facts,
        Box::new(|env| Box::pin(async move { main(env).await.outcome() })),
    )
}

fn start_boxed<H: Hypervisor>(hv: H, facts: Facts, application: Application) -> Guest<H> {
    let xen_loop = XenLoop::new(hv.clone());
    let handle = xen_loop.handle();
    let port = Rc::new(XenPort::new(hv, &xen_loop, facts.ram));
    let env = Args::parse(&facts.command_line).map(|args| Env::new(port.clone(), handle.clone(), args, facts.entropy));
    let filter = env.as_ref().map(|env| env.args().log().clone()).unwrap_or_default();
    let logger = Logger {
        port: port.clone(),
        handle: handle.clone(),
        filter,
    };
    let end = Rc::new(Cell::new(None));
    let life = life::Life {
        port,
        handle: handle.clone(),
        end: Rc::clone(&end),
    };
    handle.spawn(life.run(env, application)).detach();
    Guest { xen_loop, logger, end }
}

impl<H: Hypervisor> Guest<H> {
    /// One round of the domain's loop. `true`: there is more to do now. `false`: it slept, or would sleep, or the
    /// program has ended.
    pub fn turn(&mut self) -> bool {
        self.end.get().is_none() && self.xen_loop.turn()
    }

    /// Runs for ever: on metal, ending the program ends the domain.
    pub fn run(&mut self) -> ! {
        self.xen_loop.run()
    }

    /// How the program ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end.get()
    }

    /// The program's log, for whoever can make it the process's.
    #[must_use]
    pub fn logger(&self) -> Logger {
        self.logger.clone()
    }
}

impl<H: Hypervisor> fmt::Debug for Guest<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("end", &self.end.get())
            .finish_non_exhaustive()
    }
}
