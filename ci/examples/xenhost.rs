//! Starts the Xen host and runs commands in dom0, with times: `cargo run -p fata-ci --example xenhost -- 'xl list'`.
//! With `--instructions` first, on the instruction clock.

use std::time::{Duration, Instant};

use fata_ci::{Cache, Clock, Error, Options, Progress, Reporter, XenHost};

fn main() -> Result<(), Error> {
    let mut commands: Vec<String> = std::env::args().skip(1).collect();
    let mut options = Options::new(Cache::locate()?).reporter(Reporter::new(|stage, progress| {
        if let Progress::Ended { took } = progress {
            println!("{:.2} s  {}", took.as_secs_f32(), stage.title());
        }
    }));
    if commands.first().is_some_and(|first| first == "--instructions") {
        commands.remove(0);
        options = options.clock(Clock::Instructions);
    }
    if commands.is_empty() {
        commands.push("xl list".into());
    }
    let begin = Instant::now();
    let host = match XenHost::start(&options) {
        Ok(host) => host,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    };
    println!("{:.2} s  in all", begin.elapsed().as_secs_f32());
    for command in commands {
        let begin = Instant::now();
        let output = host.run(&command, Duration::from_secs(120))?;
        println!(
            "{:.3} s  {command}: status {}",
            begin.elapsed().as_secs_f32(),
            output.status
        );
        print!("{}{}", output.stdout, output.stderr);
    }
    Ok(())
}
