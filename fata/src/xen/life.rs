//! From the first task to the last.

use alloc::rc::Rc;
use alloc::string::ToString;
use core::cell::Cell;
use core::pin::pin;
use core::time::Duration;

use fata_events::Handle;
use fata_events::select::{Either, select};
use fata_hypercall::{Hypervisor, ShutdownReason};
use fata_xenstore::decimal;

#[cfg(feature = "balloon")]
use super::balloon;
use super::port::XenPort;
#[cfg(feature = "sysrq")]
use super::sysrq;
use super::{Application, End, control};
use crate::Env;
use crate::args;
use crate::exit::{ExitCode, Outcome, Termination};
use crate::port::Port;
use crate::shutdown::{Shutdown, ShutdownRequest};

/// How long a program that waits for a shutdown request may take to end after one.
const GRACE: Duration = Duration::from_secs(10);

/// How long each part of the end may take: leave of store and backends, then of the console.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The first task: it brings the domain up, runs the application and ends the domain.
pub(super) struct Life<H: Hypervisor> {
    pub(super) port: Rc<XenPort<H>>,
    pub(super) handle: Handle,
    pub(super) end: Rc<Cell<Option<End>>>,
}

impl<H: Hypervisor> Life<H> {
    pub(super) async fn run(self, env: Result<Env, args::Error>, application: Application) {
        let (outcome, request) = match env {
            Err(error) => (
                Outcome {
                    code: ExitCode::USAGE,
                    error: Some(error.to_string()),
                },
                None,
            ),
            Ok(env) if env.args().help() => {
                args::HELP.iter().for_each(|text| self.port.write(text.as_bytes()));
                (ExitCode::SUCCESS.outcome(), None)
            }
            Ok(env) => (self.application(&env, application).await, env.shutdown().requested()),
        };
        self.finish(outcome, request).await;
    }

    /// Brings up what the application may want, and runs it, until it ends or has to.
    async fn application(&self, env: &Env, application: Application) -> Outcome {
        log::info!("fata {} on {}", env!("CARGO_PKG_VERSION"), self.port.machine());
        self.port.open_store(&self.handle);
        // First, since drivers take memory, and there may be less than it seems.
        #[cfg(feature = "balloon")]
        let balloon = match self.port.store() {
            Some(store) => balloon::start(store, &self.handle, self.port.ram()).await,
            None => None,
        };
        self.port.start_devices(&self.handle).await;
        let watcher = self.port.store().map(|store| {
            self.handle
                .spawn(control::watch(Rc::clone(&self.port), store.clone(), env.clone()))
        });
        #[cfg(feature = "sysrq")]
        let letters = self.port.store().map(|store| {
            self.handle
                .spawn(sysrq::obey(Rc::clone(&self.port), store.client().clone(), env.clone()))
        });
        let ended = select(application(env.clone()), pin!(stop(env.shutdown(), &self.handle))).await;
        drop(watcher);
        #[cfg(feature = "sysrq")]
        drop(letters);
        #[cfg(feature = "balloon")]
        drop(balloon);
        self.port.stop_following();
        #[cfg(feature = "net")]
        crate::network::leave(env).await;
        match ended {
            Either::First(outcome) => outcome,
            Either::Second(()) => ExitCode::SUCCESS.outcome(),
        }
    }

    /// Says how it ended, to whom it may concern, and ends the domain.
    async fn finish(self, outcome: Outcome, request: Option<ShutdownRequest>) {
        let status = decimal::string(outcome.code.0.into());
        if let Some(error) = &outcome.error {
            self.port.write(["error: ", error, "\n"].concat().as_bytes());
        }
        self.port
            .write(["fata: exit status ", &status, "\n"].concat().as_bytes());
        let words = async {
            if let Some(store) = self.port.store() {
                // Best effort: the line on the console is what counts.
                let _ = store.write("data/fata/exit-status", &status).await;
            }
            self.port.disconnect().await;
        };
        let _ = self.handle.timeout(LAST_WORDS, words).await;
        self.port.console().flush(self.port.clock(), LAST_WORDS);
        let reason = match request {
            Some(ShutdownRequest::Reboot) => ShutdownReason::Reboot,
            _ => ShutdownReason::PowerOff,
        };
        self.end.set(Some(End {
            code: outcome.code,
            reason,
        }));
        self.port.hypervisor().shutdown(reason);
    }
}

/// Ready when the program has to end, whether it wants to or not.
async fn stop(shutdown: &Shutdown, handle: &Handle) {
    let request = shutdown.wait().await;
    log::info!("{request} requested");
    if shutdown.heeded() {
        handle.sleep(GRACE).await;
        log::warn!("the program is still running after {} s; it is ended", GRACE.as_secs());
    }
}
