//! What is shared between threads of control, under one name, so that a model checker can put its own in.

pub(crate) use alloc::sync::Arc;

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicBool, Ordering};
/// Nobody waits for it: there is one thread and no interrupt handler. It is here because wakers are `Sync`.
#[cfg(not(loom))]
pub(crate) use spin::Mutex;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(loom)]
pub(crate) use model::Mutex;

#[cfg(loom)]
mod model {
    /// loom's, which cannot be poisoned: its model ends with the first panic.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("nobody has panicked")
        }
    }
}
