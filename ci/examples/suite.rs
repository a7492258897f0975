//! Runs the suite's tests of the host alone, which need no image: `cargo run -p fata-ci --example suite -- host::`.
fn main() -> Result<(), fata_ci::Error> {
    let only = std::env::args().nth(1).unwrap_or_else(|| "host::".into());
    let images = fata_ci::suite::Images {
        folder: "dist".into(),
        peer: "peer".into(),
    };
    let options = fata_ci::Options::new(fata_ci::Cache::locate()?);
    fata_ci::suite::run(&options, &images, Some(&only), |name, took, result| {
        println!(
            "{:5.1} s {name}: {}",
            took.as_secs_f32(),
            result.err().map_or("ok".to_owned(), |e| e.to_string())
        );
    })
}
