//! `grants`: shares pages until the grant table is full, gives them back, and goes on.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt::Write;

use fata::Env;
use fata::vchan::{DomId, Sizes, Vchan, Vchans};

/// Room for the largest vchan, of 513 pages.
const LARGEST: usize = 1 << 20;
/// For less, everything of a vchan is in one page.
const SMALLEST_RINGS: usize = 4096;

pub(crate) async fn run(env: &Env) -> Result<(), Box<dyn Error>> {
    let vchans = env.vchans().ok_or("no vchans")?;
    let mut console = env.console();
    let (shared, why) = until_full(&vchans).await;
    writeln!(console, "{why}")?;
    writeln!(console, "full with {} in use", env.stats().grants.active)?;
    drop(shared);
    writeln!(console, "empty with {} in use", env.stats().grants.active)?;
    let _again = listen(&vchans, "again", LARGEST).await?;
    writeln!(console, "again with {} in use", env.stats().grants.active)?;
    Ok(())
}

/// Vchans of all sizes, so that not one entry is left, and why there are no more.
async fn until_full(vchans: &Vchans) -> (Vec<Vchan>, fata::vchan::Error) {
    let mut shared = Vec::new();
    let mut size = LARGEST;
    loop {
        match listen(vchans, &format!("{}", shared.len()), size).await {
            Ok(vchan) => shared.push(vchan),
            Err(_) if size > SMALLEST_RINGS => size /= 2,
            Err(_) if size > 0 => size = 0,
            Err(error) => return (shared, error),
        }
    }
}

async fn listen(vchans: &Vchans, name: &str, size: usize) -> Result<Vchan, fata::vchan::Error> {
    let sizes = Sizes {
        read: size,
        write: size,
    };
    vchans.listen(DomId::DOM0, &format!("data/vchan/{name}"), sizes).await
}
