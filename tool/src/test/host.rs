//! The tests that cargo builds and this computer runs.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cargo_metadata::Artifact;

use super::Counts;
use crate::cargo;
use crate::cli::Part;
use crate::error::Error;
use crate::progress::{spinner, stage_line};
use crate::setup::TARGET;
use crate::workspace::Workspace;

/// What a test program may take; they need seconds, so that more means that one hangs.
const PROGRAM: Duration = Duration::from_secs(10 * 60);
/// What cargo may take when it compiles, too: from nothing, on a slow computer.
const CARGO: Duration = Duration::from_secs(60 * 60);

/// The crates with models in `tests/loom.rs`.
const LOOM: [&str; 2] = ["fata-events", "fata-grant"];

/// Formatting, clippy and rustdoc without a warning, for the host and for bare metal.
pub(super) fn lint(workspace: &Workspace) -> Result<Counts, Error> {
    let mut bare_metal = vec!["clippy".to_owned(), "--quiet".into(), "--target".into(), TARGET.into()];
    for name in workspace.applications() {
        bare_metal.extend(["--package".into(), name]);
    }
    bare_metal.extend(["--", "-Dwarnings"].map(String::from));
    let owned = |words: &[&str]| words.iter().copied().map(String::from).collect();
    let mut counts = Counts::default();
    for (title, arguments) in [
        ("format", owned(&["fmt", "--all", "--check"])),
        (
            "format, micro-benchmarks",
            owned(&["fmt", "--manifest-path", "bench/Cargo.toml", "--check"]),
        ),
        (
            "format, fuzz targets",
            owned(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]),
        ),
        (
            "clippy",
            owned(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-Dwarnings"]),
        ),
        ("clippy, bare metal", bare_metal),
        ("documentation", owned(&["doc", "--quiet", "--workspace", "--no-deps"])),
    ] {
        let mut command = cargo_in(workspace.root());
        command.args(arguments).env("RUSTDOCFLAGS", "-Dwarnings");
        counts += Counts::one(check(title, command, CARGO)?.0);
    }
    let consumer = super::consumer::rule_89_every_library_has_a_consumer(workspace)?;
    counts += Counts::one(check("a consumer of every library", consumer, CARGO)?.0);
    Ok(counts)
}

/// Builds every test program once, then runs those of the wanted parts.
pub(super) fn test(workspace: &Workspace, wanted: &dyn Fn(Part) -> bool, only: Option<&str>) -> Result<Counts, Error> {
    let bar = spinner("building the tests");
    let programs = programs(workspace.root())?;
    bar.done();
    let mut counts = Counts::default();
    for program in programs {
        if !wanted(part_of(&program)) {
            continue;
        }
        let (Some(executable), Some(folder)) = (&program.executable, program.manifest_path.parent()) else {
            continue;
        };
        let mut command = Command::new(executable);
        // What cargo would set: tests find their data by it.
        command.args(only).current_dir(folder).env("CARGO_MANIFEST_DIR", folder);
        let title = format!(
            "{} {}",
            folder.strip_prefix(workspace.root()).unwrap_or(folder),
            program.target.name
        );
        counts += run(&title, command, PROGRAM)?;
    }
    if wanted(Part::Unit) {
        let mut command = cargo_in(workspace.root());
        command
            .args(["test", "--quiet", "--workspace", "--doc", "--no-fail-fast", "--"])
            .args(only);
        counts += run("documentation examples", command, CARGO)?;
    }
    Ok(counts)
}

/// The models of what is lock-free. They compile the crates in another way, so they have a target folder of their own.
pub(super) fn loom(workspace: &Workspace, only: Option<&str>) -> Result<Counts, Error> {
    let mut command = cargo_in(workspace.root());
    command
        .args(["test", "--quiet", "--release", "--test", "loom", "--target-dir"])
        .arg(workspace.target_dir().join("loom"))
        .args(LOOM.iter().flat_map(|package| ["--package", package]))
        .args(["--no-fail-fast", "--"])
        .args(only)
        .env("RUSTFLAGS", "--cfg loom");
    run("loom models", command, CARGO)
}

/// Test programs that run whole guests in the simulator have names that begin with `sim`; and there are its own.
fn part_of(program: &Artifact) -> Part {
    let its_own = program
        .manifest_path
        .parent()
        .is_some_and(|folder| folder.ends_with("sim"));
    if its_own || program.target.name.starts_with("sim") {
        Part::Sim
    } else {
        Part::Unit
    }
}

fn programs(root: &Path) -> Result<Vec<Artifact>, Error> {
    let mut command = cargo_in(root);
    command
        .args(["test", "--quiet", "--workspace", "--all-targets", "--no-run"])
        .args(["--message-format", "json-render-diagnostics"]);
    Ok(cargo::artifacts(command)?
        .into_iter()
        // The models are empty in this build.
        .filter(|artifact| artifact.profile.test && artifact.target.name != "loom")
        .collect())
}

/// Runs a program of libtest's, or several, and adds up what it counted.
fn run(title: &str, command: Command, limit: Duration) -> Result<Counts, Error> {
    let (success, output) = check(title, command, limit)?;
    let mut counts = Counts::default();
    output
        .lines()
        .filter_map(result_line)
        .for_each(|result| counts += result);
    if !success && counts.failed == 0 {
        // It did not come as far as its closing line.
        counts.failed = 1;
    }
    Ok(counts)
}

/// Runs a command, but not for longer than `limit`. Says whether it succeeded and what it printed, which is shown only when
/// it failed.
fn check(title: &str, command: Command, limit: Duration) -> Result<(bool, String), Error> {
    let bar = spinner(title);
    let began = Instant::now();
    let outcome = captured(command, limit)?;
    if outcome.success() {
        bar.done();
    } else {
        drop(bar);
        report(title, &outcome, limit, began.elapsed());
    }
    Ok((outcome.success(), String::from_utf8_lossy(&outcome.output).into_owned()))
}

/// What became of a program.
pub(super) struct Outcome {
    /// `None`: it was killed.
    status: Option<ExitStatus>,
    output: Vec<u8>,
    errors: Vec<u8>,
}

impl Outcome {
    pub(super) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Says that a program has failed, and shows what it printed.
pub(super) fn report(title: &str, outcome: &Outcome, limit: Duration, took: Duration) {
    let how = outcome.status.map_or_else(
        || format!("killed after {} s", limit.as_secs_f32()),
        |status| status.to_string(),
    );
    stage_line(&format!("{title}: FAILED ({how})"), took);
    // Nobody reads it if this fails.
    let printed = [&outcome.output, &outcome.errors];
    let _ = printed.iter().try_for_each(|bytes| io::stderr().write_all(bytes));
}

/// Runs a command, but not for longer than `limit`, and keeps what it prints.
pub(super) fn captured(mut command: Command, limit: Duration) -> Result<Outcome, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| Error::Program {
        program: program.clone(),
        why: error.to_string(),
    };
    // Files without a name instead of pipes, which somebody would have to empty meanwhile.
    let [mut output, mut errors] = [
        tempfile::tempfile().map_err(failed)?,
        tempfile::tempfile().map_err(failed)?,
    ];
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(errors.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let status = wait(&mut child, limit).map_err(failed)?;
    Ok(Outcome {
        status,
        output: content(&mut output).map_err(failed)?,
        errors: content(&mut errors).map_err(failed)?,
    })
}

/// Waits for the end of a program. `None`: there was none within `limit`, so it was killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait().map(|_| None)
}

/// All that was written to a file, by whomever.
fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What libtest's closing line counted.
fn result_line(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let count = |what: &str| -> Option<u32> {
        let (before, _) = rest.split_once(what)?;
        before.trim_end().rsplit([' ', ';']).next()?.parse().ok()
    };
    Some(Counts {
        passed: count(" passed")?,
        failed: count(" failed")?,
        skipped: count(" ignored")?,
    })
}

fn cargo_in(root: &Path) -> Command {
    let mut command = Command::new(cargo::program());
    command.current_dir(root);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_closing_line_of_libtest() {
        let line = "test result: ok. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s";
        assert_eq!(
            result_line(line),
            Some(Counts {
                passed: 12,
                failed: 3,
                skipped: 1
            })
        );
        assert_eq!(result_line("test page::tests::nothing ... ok"), None);
        assert_eq!(result_line("test result: what?"), None);
    }

    #[test]
    fn a_command_that_fails_is_not_a_success() {
        let run = |program: &str| run(program, Command::new(program), PROGRAM);
        assert_eq!(run("true").unwrap(), Counts::default());
        assert_eq!(run("false").unwrap(), Counts::one(false));
        assert!(run("/nonexistent/program").is_err());
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_has_failed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo before; exec sleep 60"]);
        let began = Instant::now();
        let (success, output) = check("hangs", command, Duration::from_millis(500)).unwrap();
        assert_eq!((success, output.as_str()), (false, "before\n"));
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
