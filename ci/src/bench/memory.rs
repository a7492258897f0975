//! How little memory is enough.

use super::{WAIT, read};
use crate::suite::Images;
use crate::{Error, Guest, Options, XenHost};

/// The smallest `memory=`, in MiB, with which `hello` ends well and `http` answers.
///
/// # Errors
/// [`Error`] if none up to 16 MiB does.
pub fn smallest_memory(options: &Options, images: &Images) -> Result<[(&'static str, u32); 2], Error> {
    let host = XenHost::start(options)?;
    host.put_program("/tmp/peer", &read(&images.peer)?)?;
    let smallest = |name: &'static str| -> Result<(&'static str, u32), Error> {
        let elf = read(&images.folder.join(name))?;
        for memory in 1..=16 {
            let guest = Guest::new(format!("{name}-{memory}"), elf.clone()).memory_mib(memory);
            let guest = match name {
                "http" => guest.vif("00:16:3e:00:00:02").arguments("ipv4=10.0.0.2/24"),
                _ => guest,
            };
            let works = host.create(&guest).is_ok()
                && match name {
                    "http" => host
                        .run("/tmp/peer http 10.0.0.2:80 / --requests 200 --parallel 8", WAIT)?
                        .success(),
                    _ => host.wait_for_log(guest.name(), "fata: exit status 0", WAIT).is_ok(),
                };
            // Gone already, if it has ended.
            let _ = host.destroy(guest.name());
            if works {
                return Ok((name, memory));
            }
        }
        Err(Error::Argument {
            what: format!("`{name}` does not work with 16 MiB either"),
        })
    };
    Ok([smallest("hello")?, smallest("http")?])
}
