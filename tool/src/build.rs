//! From a package to an image in dist/.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::cargo;
use crate::error::Error;
use crate::progress;
use crate::setup::TARGET;
use crate::workspace::{Application, Workspace};
use crate::xl;

/// A finished image.
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) application: Application,
    /// The stripped ELF: what a hypervisor starts.
    pub(crate) elf: PathBuf,
    /// The same with symbols and line tables.
    pub(crate) debug: PathBuf,
    /// An xl configuration.
    pub(crate) config: PathBuf,
}

/// Builds the application `name`.
pub(crate) fn image(workspace: &Workspace, name: &str) -> Result<Image, Error> {
    let application = workspace.application(name)?;
    let bar = progress::spinner(&format!("building {name}"));
    let linked = cargo_build(workspace, name)?;
    let dist = workspace.dist();
    fs::create_dir_all(&dist).map_err(Error::file(&dist))?;
    let image = Image {
        name: name.into(),
        application,
        elf: dist.join(name),
        debug: dist.join(format!("{name}.debug")),
        config: dist.join(format!("{name}.cfg")),
    };
    replace(&image.debug, |new| {
        fs::copy(&linked, new).map(drop).map_err(Error::file(new))
    })?;
    replace(&image.elf, |new| strip(workspace.root(), &image.debug, new))?;
    let config = xl::Config {
        name,
        pv: false,
        // Beside it, so that the two files can be copied anywhere.
        kernel: name,
        memory: image.application.memory,
        vcpus: 1,
        bridge: image.application.network.then_some("xenbr0"),
        arguments: &[],
    };
    replace(&image.config, |new| {
        fs::write(new, config.text()).map_err(Error::file(new))
    })?;
    bar.done();
    Ok(image)
}

/// Has `write` make a file, and puts it in place of `path` when it is whole: whoever builds or starts the same image at this
/// moment sees the old one or the new one.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(name);
    let written = write(&new).and_then(|()| fs::rename(&new, path).map_err(Error::file(path)));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Says what was built.
pub(crate) fn describe(image: &Image) -> Result<(), Error> {
    for path in [&image.elf, &image.debug, &image.config] {
        let bytes = fs::metadata(path).map_err(Error::file(path))?.len();
        println!("{bytes:>10} bytes  {}", path.display());
    }
    Ok(())
}

/// Runs cargo, and gives the path of the linked program.
fn cargo_build(workspace: &Workspace, name: &str) -> Result<PathBuf, Error> {
    let mut command = Command::new(cargo::program());
    command
        .args([
            "build",
            "--quiet",
            "--package",
            name,
            "--bin",
            name,
            "--profile",
            "image",
            "--target",
            TARGET,
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--config", &format!("target.{TARGET}.rustflags={:?}", remapped())])
        .current_dir(workspace.root());
    cargo::executable(command, name)
}

/// Flags that cut the folders of downloaded crates off the paths in panic messages and line tables: an image is the same
/// whoever builds it, and a few kilobytes smaller.
fn remapped() -> Vec<String> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registries = cargo_home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let mut flags: Vec<_> = registries
        .into_iter()
        .flatten()
        .flatten()
        .map(|registry| format!("--remap-path-prefix={}/=", registry.path().display()))
        .collect();
    // Other flags are another build to cargo, and so is another order.
    flags.sort();
    flags
}

/// Takes out what no loader looks at: symbols, debugging information, section headers. With the objcopy that comes with
/// the compiler.
fn strip(root: &Path, from: &Path, to: &Path) -> Result<(), Error> {
    let query = |what: &str| {
        let output = Command::new("rustc").args(["--print", what]).current_dir(root).output();
        output
            .map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
            .map_err(|error| Error::Program {
                program: format!("rustc --print {what}"),
                why: error.to_string(),
            })
    };
    let objcopy = query("target-libdir")?.join("../bin/rust-objcopy");
    let output = Command::new(&objcopy)
        .args(["--strip-all", "--strip-sections"])
        .args([from, to])
        .env("LD_LIBRARY_PATH", query("sysroot")?.join("lib"))
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Program {
        program: objcopy.display().to_string(),
        why,
    })
}
