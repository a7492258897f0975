//! The wish of the machine's owner that the program end.

use core::cell::Cell;
use core::fmt;
use core::future::poll_fn;

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
    pub(crate) async fn heed(&self) -> ShutdownRequest {
        self.heeded.set(true);
        self.wait().await
    }

    /// Waits for a request.
    pub(crate) async fn wait(&self) -> ShutdownRequest {
        loop {
            let seen = self.changed.count();
            if let Some(request) = self.request.get() {
                return request;
            }
            poll_fn(|cx| self.changed.poll_after(seen, cx)).await;
        }
    }
}
