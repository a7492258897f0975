//! Puts `fata.ld` on the linker's search path, for every program that has this crate among its dependencies: such a
//! program needs nothing but the linker argument `-Tfata.ld`.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=fata.ld");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    fs::copy("fata.ld", out.join("fata.ld")).expect("fata.ld can be copied to the build folder");
    println!("cargo:rustc-link-search={}", out.display());
}
