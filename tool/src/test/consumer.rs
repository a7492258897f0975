//! A package outside of the workspace that depends on every library in it, as a user's would.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::cargo;
use crate::error::Error;
use crate::workspace::Workspace;

/// Writes the package, and gives the command that compiles it: what only works because the workspace's other members
/// ask for a feature does not work there (rule 89).
pub(super) fn rule_89_every_library_has_a_consumer(workspace: &Workspace) -> Result<Command, Error> {
    let folder = workspace.target_dir().join("consumer");
    let mut manifest =
        String::from("[package]\nname = \"consumer\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n");
    let mut source = String::new();
    for (name, path) in workspace.libraries() {
        // Writing to a string cannot fail.
        let _ = writeln!(manifest, "{name} = {{ path = {:?} }}", path.as_os_str());
        let _ = writeln!(source, "pub use {};", name.replace('-', "_"));
    }
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::file(&path))
    };
    fs::create_dir_all(folder.join("src")).map_err(Error::file(&folder))?;
    file("Cargo.toml", manifest)?;
    file("src/lib.rs", source)?;
    // The versions that everything else is tested with.
    let lock = workspace.root().join("Cargo.lock");
    file("Cargo.lock", fs::read_to_string(&lock).map_err(Error::file(&lock))?)?;
    let mut command = Command::new(cargo::program());
    command
        .args(["check", "--quiet", "--offline", "--target-dir"])
        .arg(workspace.target_dir())
        .current_dir(&folder);
    Ok(command)
}
