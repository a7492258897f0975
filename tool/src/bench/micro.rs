//! The innermost operations beside the same in C (bench/): instructions, counted by valgrind, and time.

use std::path::Path;
use std::process::Command;

use crate::cargo;
use crate::cli::BenchArgs;
use crate::error::Error;
use crate::progress::spinner;
use crate::workspace::Workspace;

/// What is counted is the difference of two runs, so that the start of the program is not.
const COUNTS: [u64; 2] = [1000, 2000];

/// Builds, counts, measures and prints.
pub(super) fn run(workspace: &Workspace, args: &BenchArgs) -> Result<(), Error> {
    let bar = spinner("building the operations, ours and C's");
    let mut build = Command::new(cargo::program());
    build
        .args(["build", "--quiet", "--release", "--manifest-path", "bench/Cargo.toml"])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(workspace.target_dir().join("bench"))
        .current_dir(workspace.root());
    let program = cargo::executable(build, "fata-bench")?;
    bar.done();
    let names = output(&mut Command::new(&program))?;
    let valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    if !valgrind {
        eprintln!("there is no valgrind, so instructions are not counted\n  next: apt-get install valgrind");
    }
    println!(
        "| Operation | instructions | in C | C / Fata | ns, median of {} | in C | C / Fata |",
        args.rounds
    );
    println!("|---|---|---|---|---|---|---|");
    for (index, name) in names.lines().enumerate() {
        let index = index.to_string();
        let bar = spinner(name);
        let counted = if valgrind {
            columns(
                &[
                    instructions(&program, &index, "rust")?,
                    instructions(&program, &index, "c")?,
                ],
                0,
            )
        } else {
            "| | |".into()
        };
        let time = output(Command::new(&program).args([&index, "time", &args.rounds.to_string()]))?;
        let time: Vec<f64> = time
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        bar.done();
        println!("| {name} {counted} {} |", columns(&time, 1));
    }
    Ok(())
}

/// Ours, theirs, and theirs over ours.
fn columns(figures: &[f64], digits: usize) -> String {
    match figures {
        [ours, theirs] => format!("| {ours:.digits$} | {theirs:.digits$} | {:.2}", theirs / ours),
        _ => "| | |".into(),
    }
}

/// Instructions of one operation.
fn instructions(program: &Path, index: &str, side: &str) -> Result<f64, Error> {
    let mut counted = [0; 2];
    for (counted, count) in counted.iter_mut().zip(COUNTS) {
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args([index, side, &count.to_string()]);
        let printed = command.output().map_err(|error| Error::Program {
            program: "valgrind".into(),
            why: error.to_string(),
        })?;
        *counted = collected(&String::from_utf8_lossy(&printed.stderr)).ok_or_else(|| Error::Program {
            program: "valgrind".into(),
            why: String::from_utf8_lossy(&printed.stderr).into_owned(),
        })?;
    }
    Ok(counted[1].saturating_sub(counted[0]) as f64 / (COUNTS[1] - COUNTS[0]) as f64)
}

/// What callgrind says in its line `==1== Collected : 4711`.
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}

fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(Error::Program {
            program,
            why: output.status.to_string(),
        }),
        Err(error) => Err(Error::Program {
            program,
            why: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_callgrinds_sum() {
        let text = "==7== Events    : Ir\n==7== Collected : 1234567\n==7==\n";
        assert_eq!(collected(text), Some(1_234_567));
        assert_eq!(collected("==7== Killed"), None);
    }
}
