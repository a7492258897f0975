//! The console, for the application.

use alloc::rc::Rc;
use alloc::string::String;
use core::fmt;
use core::future::poll_fn;

use crate::port::Port;

/// The machine's console: `xl console`, for example.
///
/// Writing never blocks: if nobody takes what is written, it is dropped and counted, and the console says so when it
/// can be written to again.
///
/// It is a [`core::fmt::Write`], so `writeln!(env.console(), "...")` works; it never fails.
#[derive(Clone)]
pub struct Console(pub(crate) Rc<dyn Port>);

impl Console {
    /// Writes text.
    pub fn print(&self, text: &str) {
        self.0.write(text.as_bytes());
    }

    /// Waits until somebody has typed a line, and gives it without its end. `None` if there is no console, or if what
    /// is at its other end broke the rules.
    pub fn read_line(&self) -> impl Future<Output = Option<String>> {
        poll_fn(|cx| self.0.poll_line(cx))
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.print(text);
        Ok(())
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}
