//! What is shared between threads of control, under one name, so that a model checker can put its own in.

pub(crate) use core::sync::atomic::{AtomicBool, Ordering};

pub(crate) use alloc::sync::Arc;
/// Nobody waits for it: there is one thread and no interrupt handler. It is here because wakers are `Sync`.
pub(crate) use spin::Mutex;
