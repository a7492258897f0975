//! The toolstack's requests that the domain end.

use fata_xenstore::Client;
use fata_xenstore::control::{Control, Request};

use crate::Env;
use crate::shutdown::ShutdownRequest;

/// Passes requests on as long as the store lives.
pub(super) async fn watch(store: Client, env: Env) {
    let error = match Control::new(&store) {
        Ok(mut control) => loop {
            match control.next().await {
                Ok(Request::PowerOff | Request::Halt) => env.shutdown().ask(ShutdownRequest::PowerOff),
                Ok(Request::Reboot) => env.shutdown().ask(ShutdownRequest::Reboot),
                Ok(_) => log::warn!("a request is not obeyed: it is neither power-off nor reboot"),
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    log::warn!("shutdown requests are not heard: {error}");
}
