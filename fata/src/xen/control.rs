//! The toolstack's wishes: that the domain end, or be saved.

use alloc::rc::Rc;

use fata_hypercall::Hypervisor;
use fata_xenstore::Store;
use fata_xenstore::control::{Control, Request};

use super::port::XenPort;
#[cfg(feature = "suspend")]
use super::suspend::suspend;
use crate::Env;
use crate::shutdown::ShutdownRequest;

/// Follows the wishes as long as the store lives.
#[cfg_attr(
    not(feature = "suspend"),
    expect(unused_variables, reason = "the port is what is suspended")
)]
pub(super) async fn watch<H: Hypervisor>(port: Rc<XenPort<H>>, store: Store<H>, env: Env) {
    let error = match Control::new(&store, cfg!(feature = "suspend")) {
        Ok(mut control) => loop {
            match control.next().await {
                Ok(Request::PowerOff | Request::Halt) => env.shutdown().ask(ShutdownRequest::PowerOff),
                Ok(Request::Reboot) => env.shutdown().ask(ShutdownRequest::Reboot),
                #[cfg(feature = "suspend")]
                Ok(Request::Suspend) => {
                    suspend(&port, &store, &env).await;
                    control.announce();
                }
                Ok(_) => log::warn!("a request of the toolstack's is not obeyed: it is unknown here"),
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    log::warn!("shutdown requests are not heard: {error}");
}
