//! Being told about changes.

use alloc::rc::Rc;
use core::future::poll_fn;
use core::task::{Context, Poll};

use fata_events::Signal;

use super::{Client, Shared};
use crate::Error;
use crate::wire::Path;

/// A watch: the server tells us about every change at or below its path, until this is dropped.
///
/// Events say only *that* something changed, and any number of them between two looks are one: memory is bounded by
/// the number of watches, whatever a peer writes (rule 62). So look, and look again after each change. Since the
/// server fires each watch once when it is set, one loop does both:
///
/// ```no_run
/// # async fn example(store: &fata_xenstore::Client) -> Result<(), fata_xenstore::Error> {
/// let mut watch = store.watch("control/shutdown")?;
/// loop {
///     watch.changed().await?; // at once, the first time
///     let _wish = store.read_optional("control/shutdown").await?;
/// }
/// # }
/// ```
///
/// Spurious events happen. After a reconnect a watch is set again by itself, and fires.
#[derive(Debug)]
pub struct Watch {
    shared: Rc<Shared>,
    token: u32,
    events: Signal,
    seen: u64,
}

impl Watch {
    /// Waits for something that has changed since the last time this returned. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection has ended, or the server has refused the watch.
    pub fn changed(&mut self) -> impl Future<Output = Result<(), Error>> {
        poll_fn(|cx| self.poll_changed(cx))
    }

    /// The same for hand-written futures.
    ///
    /// # Errors
    /// As [`changed`](Self::changed).
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.check()?;
        self.events.poll_after(self.seen, cx).map(|count| {
            self.seen = count;
            self.check()
        })
    }

    /// Whether something has changed since the last time this or [`changed`](Self::changed) was asked.
    pub fn take_changed(&mut self) -> bool {
        let count = self.events.count();
        core::mem::replace(&mut self.seen, count) != count
    }

    fn check(&self) -> Result<(), Error> {
        self.shared.mux.borrow().watch_error(self.token).map_or(Ok(()), Err)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.with(|mux| mux.unwatch(self.token));
    }
}

impl Client {
    /// Watches a path and all below it, or something special (`@releaseDomain`). The node need not exist.
    ///
    /// The request is sent and not waited for: requests that are made from here on see the node after it is watched. If
    /// the server refuses (stock servers allow a domain 128 watches), [`Watch::changed`] says so.
    ///
    /// # Errors
    /// [`Error::BadPath`], [`Error::TooLong`], and what ended the connection when it has ended.
    pub fn watch(&self, path: &str) -> Result<Watch, Error> {
        let path = Path::new(path)?;
        let (token, events) = self.shared.with(|mux| mux.watch(path))?;
        Ok(Watch {
            shared: Rc::clone(&self.shared),
            token,
            events,
            seen: 0,
        })
    }

    /// Waits until `accept` gives something for a node's value, and gives that.
    ///
    /// `accept` sees each state of the node that we got to see: `None` while there is no such node or while we may
    /// not read it yet, which is how a domain finds its nodes while the toolstack still builds them (rule 68).
    ///
    /// # Errors
    /// See [`Client`]. It waits without limit: see [`Handle::timeout`](fata_events::Handle::timeout).
    pub async fn wait_for<T>(
        &self,
        path: &str,
        mut accept: impl FnMut(Option<&[u8]>) -> Option<T>,
    ) -> Result<T, Error> {
        let mut watch = self.watch(path)?;
        loop {
            watch.changed().await?;
            let value = match self.read(path).await {
                Ok(value) => Some(value),
                Err(error) if error.is_missing() || error.is_denied() => None,
                Err(Error::Disconnected | Error::Restored) => continue, // set again, the watch fires again
                Err(error) => return Err(error),
            };
            if let Some(accepted) = accept(value.as_deref()) {
                return Ok(accepted);
            }
        }
    }
}
