//! From the first task to the last.

use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::Cell;
use core::pin::pin;
use core::time::Duration;

use fata_events::Handle;
use fata_events::select::{Either, select};
use fata_hypercall::{Hypervisor, ShutdownReason};

use super::port::XenPort;
use super::{Application, End, control};
use crate::Env;
use crate::args::{self, Args};
use crate::exit::{ExitCode, Outcome};
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
    pub(super) async fn run(self, args: Result<Args, args::Error>, entropy: Vec<u8>, application: Application) {
        let (outcome, request) = match args {
            Err(error) => (
                Outcome {
                    code: ExitCode::USAGE,
                    error: Some(error.to_string()),
                },
                None,
            ),
            Ok(args) if args.help() => {
                self.port.write(b"boot arguments:\n");
                #[cfg(feature = "net")]
                self.port.write(args::NETWORK_HELP.as_bytes());
                self.port.write(args::HELP.as_bytes());
                (
                    Outcome {
                        code: ExitCode::SUCCESS,
                        error: None,
                    },
                    None,
                )
            }
            Ok(args) => self.application(args, entropy, application).await,
        };
        self.finish(outcome, request).await;
    }

    /// Brings up what the application may want, and runs it, until it ends or has to.
    async fn application(
        &self,
        args: Args,
        entropy: Vec<u8>,
        application: Application,
    ) -> (Outcome, Option<ShutdownRequest>) {
        log::info!("fata {} on {}", env!("CARGO_PKG_VERSION"), self.port.machine());
        self.port.connect(&self.handle).await;
        let env = Env::new(self.port.clone(), self.handle.clone(), args, entropy);
        let watcher = self
            .port
            .store()
            .map(|store| self.handle.spawn(control::watch(store.client().clone(), env.clone())));
        let program = pin!(application(env.clone()));
        let ended = select(program, stop(env.shutdown(), &self.handle)).await;
        drop(watcher);
        #[cfg(feature = "net")]
        crate::network::leave(&env).await;
        let outcome = match ended {
            Either::First(outcome) => outcome,
            Either::Second(()) => Outcome {
                code: ExitCode::SUCCESS,
                error: None,
            },
        };
        (outcome, env.shutdown().requested())
    }

    /// Says how it ended, to whom it may concern, and ends the domain.
    async fn finish(self, outcome: Outcome, request: Option<ShutdownRequest>) {
        let status = outcome.code.0.to_string();
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
