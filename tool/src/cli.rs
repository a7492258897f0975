//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::Error;
use crate::workspace::Workspace;
use crate::{backtrace, bench, build, fuzz, run, setup, test};

/// Build, run and test library operating systems for Xen.
#[derive(Parser)]
#[command(name = "cargo fata", bin_name = "cargo fata", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up what building, running and testing need, and nothing else. The other commands do it by themselves.
    Setup,
    /// Build an application into dist/: the stripped ELF, the same with symbols, and an xl configuration.
    Build(BuildArgs),
    /// Build an application, start it with `xl create` on a real Xen host in QEMU, and show what it does.
    Run(RunArgs),
    /// Run the tests: all of them, or a part.
    Test(TestArgs),
    /// Feed a fuzz target inputs until one makes it fail or the time is over. Needs a nightly compiler.
    Fuzz(FuzzArgs),
    /// Say where in the source a guest was: functions and lines for the addresses of a crash report or a core.
    Backtrace(BacktraceArgs),
    /// Measure beside Linux, on the same host in turns: size and time to the first answer, and the network.
    Bench(BenchArgs),
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// The part to measure; all parts if none is named.
    pub(crate) part: Option<BenchPart>,
    /// How often each is measured.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Of the part `net`, only the rows whose name contains this.
    #[arg(long, value_name = "ROW")]
    pub(crate) only: Option<String>,
    /// Of the part `net`, only by this clock. Both take twice as long.
    #[arg(long)]
    pub(crate) clock: Option<BenchClock>,
    /// Write the figures of the part `net`, every round of them, to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// A clock to measure by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchClock {
    /// The wall's.
    Wall,
    /// That counts instructions.
    Instructions,
}

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPart {
    /// The innermost operations beside the same in C: instructions and time.
    Micro,
    /// Image sizes, smallest memory, and the time to the first answer.
    Boot,
    /// Throughput, latency, rates and what they cost.
    Net,
}

#[derive(Args)]
pub(crate) struct BuildArgs {
    /// The application's package, such as `http`.
    pub(crate) application: String,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// The application's package, such as `http`.
    pub(crate) application: String,
    /// Boot arguments for the guest, such as `ipv4=10.0.0.9/24 hostname=web`. Without `ipv4=` it gets 10.0.0.2.
    pub(crate) arguments: Vec<String>,
    /// Words for the application itself, behind `--`: `cargo fata run hello hostname=x -- one 'two words'`.
    #[arg(last = true)]
    pub(crate) words: Vec<String>,
    /// Leave it running: its port is reachable on the loopback interface, its console is attached. End with Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Start it as a PV guest. Default: as a PVH guest. The image is the same.
    #[arg(long)]
    pub(crate) pv: bool,
    /// The guest's memory in MiB. Default: the application's own `[package.metadata.fata] memory`.
    #[arg(long, value_name = "MIB")]
    pub(crate) memory: Option<u32>,
    /// Virtual CPUs. Fata uses the first.
    #[arg(long, default_value_t = 1)]
    pub(crate) vcpus: u32,
    /// Seconds that the guest may take until it answers, or until it ends if it has no port.
    #[arg(long, default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Args)]
pub(crate) struct TestArgs {
    /// The part to run; all parts if none is named.
    pub(crate) part: Option<Part>,
    /// Run only the tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
}

#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// The target; without one, all are listed.
    pub(crate) target: Option<String>,
    /// How long.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub(crate) seconds: u64,
    /// How many processes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) jobs: u32,
    /// Have the target read this file, once, and nothing else.
    #[arg(long, value_name = "FILE", requires = "target")]
    pub(crate) replay: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct BacktraceArgs {
    /// The application's package, such as `http`, or a path such as `dist/http.debug`. It must be the build that ran.
    pub(crate) image: PathBuf,
    /// What the guest left: its console log (xenconsoled keeps /var/log/xen/console/guest-NAME.log), what `xl dmesg` prints,
    /// or a core from `xl dump-core NAME FILE` or from `on_crash = "coredump-destroy"`. `-` is the standard input.
    #[arg(default_value = "-", value_name = "LOG_OR_CORE")]
    pub(crate) from: PathBuf,
}

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Formatting, clippy and rustdoc, on the host and for bare metal.
    Lint,
    /// Unit, property and documentation tests.
    Unit,
    /// The drivers, the facade and the applications in the simulator.
    Sim,
    /// What is lock-free, in every order that the memory model allows.
    Loom,
    /// Ten seconds of each fuzz target, if there is a nightly compiler.
    Fuzz,
    /// Images on a real Xen host.
    Xen,
}

impl Cli {
    pub(crate) fn run(self) -> Result<ExitCode, Error> {
        let workspace = Workspace::find;
        match self.command {
            Command::Setup => setup::all(&workspace()?).map(|()| ExitCode::SUCCESS),
            Command::Build(args) => {
                let workspace = workspace()?;
                setup::bare_metal_target(&workspace)?;
                let image = build::image(&workspace, &args.application)?;
                build::describe(&image)?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Run(args) => run::run(&workspace()?, &args),
            Command::Test(args) => test::run(&workspace()?, &args),
            Command::Fuzz(args) => fuzz::run(&workspace()?, &args).map(|()| ExitCode::SUCCESS),
            // Works anywhere, with files that were copied there.
            Command::Backtrace(args) => backtrace::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Bench(args) => bench::run(&workspace()?, &args).map(|()| ExitCode::SUCCESS),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(n @ 1..=86_400) => Ok(Duration::from_secs(n)),
        _ => Err("expected a whole number of seconds from 1 to 86400".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_behind_two_dashes_are_the_applications() {
        let line = [
            "cargo fata",
            "run",
            "hello",
            "hostname=x",
            "--keep",
            "--",
            "one",
            "two words",
            "--keep",
        ];
        let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(args.arguments, ["hostname=x"]);
        assert_eq!(args.words, ["one", "two words", "--keep"]);
        assert!(args.keep);
    }

    #[test]
    fn a_time_limit_is_a_sane_number_of_seconds() {
        assert_eq!(seconds("5"), Ok(Duration::from_secs(5)));
        for bad in ["0", "-1", "x", "86401", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
