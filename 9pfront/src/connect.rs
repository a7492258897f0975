//! What the store says about a share.

use alloc::string::String;

use fata_xenstore::decimal;
use fata_xenstore::xenbus::{Frontend, State};

use crate::rings::LARGEST_ORDER;
use crate::{Error, rings::Rings};
use fata_hypercall::Hypervisor;

/// A key of ours, and its value.
pub(crate) type Key = (&'static str, Option<String>);

/// What the toolstack calls the share. The toolstack wrote it with the device.
pub(crate) async fn tag(frontend: &Frontend) -> Result<String, Error> {
    let values = frontend.read_all(&[frontend.key("tag")]).await?;
    let tag = values.into_iter().next().flatten().ok_or(Error::BadKey("tag"))?;
    String::from_utf8(tag).map_err(|_| Error::BadKey("tag"))
}

/// Reads what the backend offers. Gives the order of the ring.
pub(crate) async fn negotiate(frontend: &Frontend) -> Result<u32, Error> {
    let names = ["versions", "max-rings", "max-ring-page-order"];
    let values = frontend.read_all(&names.map(|name| frontend.backend_key(name))).await?;
    let [Some(versions), Some(rings), Some(order)] = &*values else {
        return Err(Error::BadKey("versions, max-rings or max-ring-page-order"));
    };
    if !versions.split(|byte| *byte == b',').any(|version| version == b"1") {
        return Err(Error::NoVersion);
    }
    decimal::parse(rings, 1..=u32::MAX.into()).ok_or(Error::BadKey("max-rings"))?;
    let order = decimal::parse(order, 1..=u32::MAX.into()).ok_or(Error::BadKey("max-ring-page-order"))?;
    Ok(LARGEST_ORDER.min(order as u32))
}

/// The keys that name a ring.
pub(crate) fn keys<H: Hypervisor>(rings: &Rings<H>) -> [Key; 4] {
    let (reference, port) = (rings.reference().0, rings.port().0);
    [
        ("version", Some(String::from("1"))),
        ("num-rings", Some(String::from("1"))),
        ("ring-ref0", Some(decimal::string(reference.into()))),
        ("event-channel-0", Some(decimal::string(port.into()))),
    ]
}

/// Why a backend that was waited for has not come.
pub(crate) fn diagnose(own: State, backend: State) -> Error {
    match backend {
        State::Unknown => Error::NoBackend,
        backend => Error::TimedOut { own, backend },
    }
}
