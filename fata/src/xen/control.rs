//! `control/shutdown`: how the toolstack asks a domain to end (xen/docs/misc/xenstore-paths.pandoc).

use fata_xenstore::Client;

use crate::Env;
use crate::shutdown::ShutdownRequest;

/// Says what we obey, and passes requests on, as long as the store lives.
pub(super) async fn watch(store: Client, env: Env) {
    if let Err(error) = serve(&store, &env).await {
        log::warn!("shutdown requests are not heard: {error}");
    }
}

async fn serve(store: &Client, env: &Env) -> Result<(), fata_xenstore::Error> {
    // The toolstack makes the nodes for us to write; an older one may not have.
    for feature in ["control/feature-poweroff", "control/feature-reboot"] {
        let _ = store.write(feature, "1").await;
    }
    let mut watch = store.watch("control/shutdown").await?;
    loop {
        // A watch fires once when it is set, so a request from before is seen, too.
        watch.changed().await?;
        let request = match store.read("control/shutdown").await {
            Ok(request) => request,
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(error),
        };
        let wanted = match request.as_slice() {
            b"poweroff" | b"halt" => ShutdownRequest::PowerOff,
            b"reboot" => ShutdownRequest::Reboot,
            b"" => continue,
            other => {
                log::warn!("a request for \"{}\" is not obeyed", other.escape_ascii());
                continue;
            }
        };
        // The empty string says that we have heard.
        store.write("control/shutdown", "").await?;
        env.shutdown().ask(wanted);
    }
}
