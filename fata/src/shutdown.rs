//! The wish of the machine's owner that the program end.

use core::cell::Cell;
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll};

use fata_events::Signal;

/// What an administrator asked for (`xl shutdown`, `xl reboot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownRequest {
    /// End, and stay off.
    PowerOff,
    /// End, and start again.
    Reboot,
}

impl fmt::Display for ShutdownRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "power-off",
            Self::Reboot => "reboot",
        })
    }
}

/// The request, once there is one, and who waits for it.
#[derive(Default)]
pub(crate) struct Shutdown {
    request: Cell<Option<ShutdownRequest>>,
    /// Whether the application has ever asked: only then is it given time.
    heeded: Cell<bool>,
    changed: Signal,
}

impl Shutdown {
    /// Notes a request. The first one stands.
    pub(crate) fn ask(&self, request: ShutdownRequest) {
        if self.request.get().is_none() {
            self.request.set(Some(request));
            self.changed.raise();
        }
    }

    /// The request there is.
    pub(crate) fn requested(&self) -> Option<ShutdownRequest> {
        self.request.get()
    }

    /// Whether the application wants to end by itself.
    pub(crate) fn heeded(&self) -> bool {
        self.heeded.get()
    }

    /// The application's question.
    pub(crate) fn heed(&self) -> impl Future<Output = ShutdownRequest> {
        poll_fn(|cx| {
            self.heeded.set(true);
            self.poll(cx)
        })
    }

    /// Waits for a request.
    pub(crate) fn wait(&self) -> impl Future<Output = ShutdownRequest> {
        poll_fn(|cx| self.poll(cx))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<ShutdownRequest> {
        if let Some(request) = self.request.get() {
            return Poll::Ready(request);
        }
        // The first request is the first change.
        let _ = self.changed.poll_after(0, cx);
        Poll::Pending
    }
}
