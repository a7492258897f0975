//! What is logged, and where it goes.

use alloc::rc::Rc;

use fata_events::Handle;
use log::{LevelFilter, Metadata, Record};

use crate::args::Filter;
use crate::log_line::log_line;
use crate::port::Port;

/// The log of one program: what `log=` lets through goes to the console.
///
/// The crate `log` knows one logger per process. On metal that is this one; where several machines are simulated in
/// one process, nobody makes it global.
#[derive(Clone)]
pub struct Logger {
    pub(crate) port: Rc<dyn Port>,
    pub(crate) handle: Handle,
    pub(crate) filter: Filter,
}

impl Logger {
    /// The level beyond which nothing is logged.
    #[must_use]
    pub fn max_level(&self) -> LevelFilter {
        self.filter.max_level()
    }

    /// Whether such a message is logged.
    #[must_use]
    pub fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    /// Has the console take what it holds in memory, within a bounded time; for the moments before a crash.
    pub fn flush(&self) {
        self.port.flush();
    }

    /// Logs a message.
    pub fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            log_line(&|bytes| self.port.write(bytes), self.handle.now().since_zero(), record);
        }
    }
}

impl core::fmt::Debug for Logger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Logger").field(&self.filter).finish()
    }
}
