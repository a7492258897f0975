//! The innermost operations beside the same in C (bench/): instructions, counted by valgrind, and time, measured by criterion.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cargo;
use crate::error::Error;
use crate::progress::spinner;
use crate::workspace::Workspace;

/// What is counted is the difference of two runs, so that the start of the program is not.
const COUNTS: [u64; 2] = [1000, 2000];

/// Ours and theirs, as `fata-bench` calls them.
const SIDES: [&str; 2] = ["rust", "c"];

/// Builds, counts, measures and prints.
pub(super) fn run(workspace: &Workspace) -> Result<(), Error> {
    let bar = spinner("building the operations, ours and C's");
    let target = workspace.target_dir().join("bench");
    let mut build = Command::new(cargo::program());
    build
        .args(["build", "--quiet", "--release", "--manifest-path", "bench/Cargo.toml"])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(&target)
        .current_dir(workspace.root());
    let program = cargo::executable(build, "fata-bench")?;
    bar.done();
    let bar = spinner("measuring how long they take");
    let measured = target.join("criterion");
    output(Command::new(&program).arg("time").arg(&measured))?;
    bar.done();
    let valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    if !valgrind {
        eprintln!("there is no valgrind, so instructions are not counted\n  next: apt-get install valgrind");
    }
    println!("| Operation | instructions | in C | C / Fata | ns, median | in C | C / Fata |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (number, name) in output(&mut Command::new(&program))?.lines().enumerate() {
        let bar = spinner(name);
        let counted = match valgrind {
            true => SIDES.map(|side| instructions(&program, number, side).map(Some)),
            false => SIDES.map(|_| Ok(None)),
        };
        let [ours, theirs] = counted;
        let counted = columns([ours?, theirs?], 0);
        let [ours, theirs] = SIDES.map(|side| nanoseconds(&measured.join(format!("{number}/{side}"))));
        bar.done();
        println!("| {name} {counted} {} |", columns([Some(ours?), Some(theirs?)], 1));
    }
    Ok(())
}

/// Ours, theirs, and theirs over ours.
fn columns(figures: [Option<f64>; 2], digits: usize) -> String {
    match figures {
        [Some(ours), Some(theirs)] => format!("| {ours:.digits$} | {theirs:.digits$} | {:.2}", theirs / ours),
        _ => "| | |".into(),
    }
}

/// The median of what criterion found, as it left it in the folder.
fn nanoseconds(folder: &Path) -> Result<f64, Error> {
    let path = folder.join("new/estimates.json");
    let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
    median(&text).ok_or_else(|| Error::Program {
        program: "fata-bench".into(),
        why: format!("there is no median in {}", path.display()),
    })
}

fn median(estimates: &str) -> Option<f64> {
    let estimates: Value = serde_json::from_str(estimates).ok()?;
    estimates.pointer("/median/point_estimate")?.as_f64()
}

/// Instructions of one operation.
fn instructions(program: &Path, case: usize, side: &str) -> Result<f64, Error> {
    let mut counted = [0; 2];
    for (counted, count) in counted.iter_mut().zip(COUNTS) {
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args(["count", &case.to_string(), side, &count.to_string()]);
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

    #[test]
    fn reads_criterions_median() {
        let text = r#"{"mean":{"point_estimate":5.0},"median":{"confidence_interval":{},"point_estimate":3.5}}"#;
        assert_eq!(median(text), Some(3.5));
        assert_eq!(median("{}"), None);
    }
}
