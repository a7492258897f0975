//! The tests that cargo builds and this computer runs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use cargo_metadata::Artifact;

use super::Counts;
use crate::cargo;
use crate::cli::Part;
use crate::error::Error;
use crate::progress::{spinner, stage_line};
use crate::setup::TARGET;
use crate::workspace::Workspace;

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
            "clippy",
            owned(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-Dwarnings"]),
        ),
        ("clippy, bare metal", bare_metal),
        ("documentation", owned(&["doc", "--quiet", "--workspace", "--no-deps"])),
    ] {
        let mut command = cargo_in(workspace.root());
        command.args(arguments).env("RUSTDOCFLAGS", "-Dwarnings");
        counts += Counts::one(check(title, command)?.0);
    }
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
        counts += run(&title, command)?;
    }
    if wanted(Part::Unit) {
        let mut command = cargo_in(workspace.root());
        command
            .args(["test", "--quiet", "--workspace", "--doc", "--no-fail-fast", "--"])
            .args(only);
        counts += run("documentation examples", command)?;
    }
    Ok(counts)
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
        .filter(|artifact| artifact.profile.test)
        .collect())
}

/// Runs a program of libtest's, or several, and adds up what it counted.
fn run(title: &str, command: Command) -> Result<Counts, Error> {
    let (success, output) = check(title, command)?;
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

/// Runs a command. Says whether it succeeded and what it printed, which is shown only when it failed.
fn check(title: &str, mut command: Command) -> Result<(bool, String), Error> {
    let bar = spinner(title);
    let began = Instant::now();
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| Error::Program {
        program,
        why: error.to_string(),
    })?;
    if output.status.success() {
        bar.done();
    } else {
        drop(bar);
        stage_line(&format!("{title}: FAILED ({})", output.status), began.elapsed());
        // Nobody reads it if this fails.
        let _ = std::io::stderr().write_all(&output.stdout);
        let _ = std::io::stderr().write_all(&output.stderr);
    }
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    ))
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
        assert_eq!(run("true", Command::new("true")).unwrap(), Counts::default());
        assert_eq!(run("false", Command::new("false")).unwrap(), Counts::one(false));
        assert!(run("nothing", Command::new("/nonexistent/program")).is_err());
    }
}
