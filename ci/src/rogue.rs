//! A network interface whose backend is ourselves: a process in dom0 that may do to the guest's event channel what it likes.

use std::time::Duration;

use crate::{Error, XenHost};

/// For a guest to come so far that it takes up its interfaces.
const PATIENCE: Duration = Duration::from_secs(120);

impl XenHost {
    /// Starts a guest that was [placed](XenHost::place) with one interface more than its configuration says, `device/vif/1`.
    /// Its backend answers the handshake and is silent then. Gives the guest's event channel, to which nobody is bound yet.
    ///
    /// # Errors
    /// [`Error::Command`] if the guest does not take the interface up.
    pub fn start_with_rogue_vif(&self, name: &str) -> Result<u32, Error> {
        crate::domain::check_name(name)?;
        // Kinds of backends are folders; Linux's netback looks into the one named `vif` only. States: 1 Initialising,
        // 2 InitWait, 4 Connected (xen/include/public/io/xenbus.h).
        let script = format!(
            "set -e; : >/var/log/xen/console/guest-{name}.log; xl create -p /guests/{name}.cfg >/dev/null\n\
             id=$(xl domid {name}); front=/local/domain/$id/device/vif/1; back=/local/domain/0/backend/rogue/$id/1\n\
             xenstore-write $back/frontend $front $back/frontend-id $id $back/state 2 $back/mac 00:16:3e:00:00:f1 \\\n\
             $back/feature-rx-copy 1\n\
             xenstore-write $front/backend $back $front/backend-id 0 $front/state 1 $front/handle 1 \\\n\
             $front/mac 00:16:3e:00:00:f1\n\
             xenstore-chmod -r $back n0 r$id; xenstore-chmod -r $front n$id r0\n\
             xl unpause {name}; n=0\n\
             until xenstore-read $front/event-channel 2>/dev/null; do n=$((n+1)); test $n -lt 500; usleep 100000; done\n\
             xenstore-write $back/state 4"
        );
        let port = self.check(&script, PATIENCE)?;
        port.trim().parse().map_err(|_| Error::Argument {
            what: format!("`{}` is no event channel", port.trim()),
        })
    }
}
