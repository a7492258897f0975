//! A backend that signals without cause, again and again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use fata_xenctl::Channel;

/// Signals until it is dropped.
pub(crate) struct Storm {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    /// `port` is one that the domain has allocated for dom0.
    pub(crate) fn start(domain: u16, port: u32) -> io::Result<Self> {
        let channel = Channel::bind(domain, port)?;
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let over = Arc::clone(&over);
            move || while !over.load(Ordering::Relaxed) && channel.notify().is_ok() {}
        });
        Ok(Self {
            over,
            thread: Some(thread),
        })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It cannot have panicked.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
