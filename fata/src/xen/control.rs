//! The toolstack's requests that the domain end.

use fata_xenstore::control::{Control, Request};
use fata_xenstore::{Client, Error};

use crate::Env;
use crate::shutdown::ShutdownRequest;

/// Passes requests on as long as the store lives.
pub(super) async fn watch(store: Client, env: Env) {
    let Err(error) = serve(&store, &env).await;
    log::warn!("shutdown requests are not heard: {error}");
}

async fn serve(store: &Client, env: &Env) -> Result<core::convert::Infallible, Error> {
    let mut control = Control::new(store)?;
    loop {
        match control.next().await? {
            Request::PowerOff | Request::Halt => env.shutdown().ask(ShutdownRequest::PowerOff),
            Request::Reboot => env.shutdown().ask(ShutdownRequest::Reboot),
            _ => log::warn!("a request is not obeyed: it is neither power-off nor reboot"),
        }
    }
}
