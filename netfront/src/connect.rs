//! The handshake with the backend (the diagrams in xen/include/public/io/netif.h and xenbus.h).

use alloc::vec::Vec;

use fata_events::xen::{Channel, Ports};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
use fata_xenstore::decimal;
use fata_xenstore::xenbus::{Frontend, State};

use crate::rx::Rx;
use crate::tx::Tx;
use crate::vif::Options;
use crate::{Error, Identity, features};

/// What is shared with a backend. Dropped from the top: the port is closed before the rings go.
pub(crate) struct Connection<H: Hypervisor> {
    pub(crate) channel: Channel<H>,
    pub(crate) tx: Tx<H>,
    pub(crate) rx: Rx<H>,
}

/// Reads what the toolstack and the backend say about the interface. The backend has said all when it is InitWait.
pub(crate) async fn identify(frontend: &Frontend) -> Result<Identity, Error> {
    let ours = features::OURS.iter().map(|key| frontend.key(key));
    let theirs = features::THEIRS.iter().map(|key| frontend.backend_key(key));
    let paths: Vec<_> = ours.chain(theirs).collect();
    features::identity(&frontend.read_all(&paths).await?)
}

/// Shares rings, buffers and a port with the backend, tells it where they are, and goes to Connected, in one
/// transaction: it never sees half of it.
pub(crate) async fn connect<H: Hypervisor>(
    frontend: &mut Frontend,
    table: &Table<H>,
    ports: &Ports<H>,
    identity: Identity,
    options: Options,
) -> Result<Connection<H>, Error> {
    let backend = frontend.backend_id();
    let mut rx = Rx::new(table, backend, options.rx_buffers)?;
    let tx = Tx::new(table, backend, options.tx_buffers, identity.mtu)?;
    let channel = ports.alloc(backend)?;
    // The backend finds the receive buffers when it attaches; nobody is there yet to be notified.
    let _ = rx.publish();
    let keys = features::keys(tx.ring_reference(), rx.ring_reference(), channel.port());
    let keys = keys.map(|(key, value)| (key, decimal::string(value.into())));
    let connection = Connection { channel, tx, rx };
    frontend.switch(State::Connected, &keys).await?;
    Ok(connection)
}

/// Why a backend that was waited for has not come.
pub(crate) async fn diagnose(frontend: &Frontend) -> Result<Error, Error> {
    // libxl's script for vifs: "connected", or "error" with the reason beside it.
    let paths = ["hotplug-status", "hotplug-error"].map(|key| frontend.backend_key(key));
    let values = frontend.read_all(&paths).await?;
    Ok(match (frontend.backend_state(), &*values) {
        (_, [Some(status), _]) if status == b"error" => Error::Hotplug,
        (_, [_, Some(_)]) => Error::Hotplug,
        (State::Unknown, _) => Error::NoBackend,
        (backend, _) => Error::TimedOut {
            own: frontend.state(),
            backend,
        },
    })
}
