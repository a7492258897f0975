//! Guests that are saved, restored, migrated and copied.

use super::bench::Running;
use super::{Bench, Failure, Test};

pub(super) const TESTS: &[Test] = &[("suspend::save_and_restore", save_and_restore)];

/// Saves the guest and restores it.
fn cycle(bench: &Bench<'_>, guest: &Running<'_>) -> Result<(), Failure> {
    let name = &guest.name;
    bench.dom0(&format!("xl save {name} /tmp/{name}.save 2>&1"))?;
    bench.dom0(&format!("xl restore /tmp/{name}.save 2>&1; rm /tmp/{name}.save"))?;
    Ok(())
}

pub(super) fn save_and_restore(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    cycle(bench, &http)?;
    http.says("resumed in a new domain")?;
    bench.peer(&format!("http {}:80 / --expect Fata", http.v4))?;
    Ok(())
}
