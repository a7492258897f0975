//! The handshake with the backend (the diagrams in xen/include/public/io/netif.h and xenbus.h).

use fata_events::xen::{Channel, Ports};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
use fata_xenstore::xenbus::{Frontend, State};

use crate::features::{self, DEFAULT_MTU, Offload};
use crate::rx::Rx;
use crate::tx::Tx;
use crate::vif::{Identity, Options};
use crate::{Error, features::parse_mac};

/// What is shared with a backend. Dropped from the top: the port is closed before the rings go.
pub(crate) struct Connection<H: Hypervisor> {
    pub(crate) channel: Channel<H>,
    pub(crate) tx: Tx<H>,
    pub(crate) rx: Rx<H>,
}

/// Reads what the toolstack and the backend say about the interface. The backend has said all when it is InitWait.
pub(crate) async fn identify(frontend: &Frontend) -> Result<Identity, Error> {
    let client = frontend.client();
    let mac = client.read_optional(&frontend.key("mac")).await?;
    let mac = mac.as_deref().and_then(parse_mac).ok_or(Error::BadKey("mac"))?;
    let mut mtu = match client.read_optional(&frontend.key("mtu")).await? {
        None => DEFAULT_MTU,
        Some(text) => features::parse_mtu(&text).ok_or(Error::BadKey("mtu"))?,
    };
    if !flag(frontend, "feature-sg").await? {
        // Packets of one slot only.
        mtu = mtu.min(DEFAULT_MTU);
    }
    let offload = Offload {
        ipv4: !flag(frontend, "feature-no-csum-offload").await?,
        ipv6: flag(frontend, "feature-ipv6-csum-offload").await?,
    };
    Ok(Identity { mac, mtu, offload })
}

async fn flag(frontend: &Frontend, key: &'static str) -> Result<bool, Error> {
    match frontend.client().read_flag(&frontend.backend_key(key)).await {
        Err(fata_xenstore::Error::BadValue) => Err(Error::BadKey(key)),
        flag => Ok(flag?),
    }
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
    let connection = Connection { channel, tx, rx };
    frontend.switch(State::Connected, &keys).await?;
    Ok(connection)
}

/// Why a backend that was waited for has not come.
pub(crate) async fn diagnose(frontend: &Frontend) -> Result<Error, Error> {
    let backend = frontend.backend_state().await?;
    let read = |key| {
        let key = frontend.backend_key(key);
        async move { frontend.client().read(&key).await.ok() }
    };
    // libxl's script for vifs: "connected", or "error" with the reason beside it.
    if read("hotplug-error").await.is_some() || read("hotplug-status").await.as_deref() == Some(b"error") {
        return Ok(Error::Hotplug);
    }
    Ok(match backend {
        State::Unknown => Error::NoBackend,
        backend => Error::TimedOut {
            own: frontend.state(),
            backend,
        },
    })
}
