//! Runs those tests of the suite that need no image: `cargo run -p fata-ci --example suite -- host::`.

use fata_ci::suite::{self, Images};
use fata_ci::{Cache, Error, Options};

fn main() -> Result<(), Error> {
    let only = std::env::args().nth(1).unwrap_or_else(|| "host::".into());
    let images = Images {
        folder: "dist".into(),
        peer: "peer".into(),
    };
    suite::run(
        &Options::new(Cache::locate()?),
        &images,
        Some(&only),
        |name, took, result| {
            let result = result.err().map_or("ok".to_owned(), |error| error.to_string());
            println!("{:5.1} s {name}: {result}", took.as_secs_f32());
        },
    )
}
