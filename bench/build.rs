//! Compiles the C side as a kernel's would be.

fn main() {
    println!("cargo::rerun-if-changed=src/micro.c");
    cc::Build::new()
        .file("src/micro.c")
        .opt_level(2)
        .std("gnu11")
        .compile("micro");
}
