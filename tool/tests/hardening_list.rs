//! The list of rules is true: every test that it names exists, and every rule has one or says why not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a file of the repository")
}

/// The names of all functions in the repository's Rust files.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).expect("text");
                // Examples that must not compile are tests, too.
                let code = text.lines().filter(|line| {
                    let line = line.trim_start();
                    !line.starts_with("//") || line.starts_with("///")
                });
                names.extend(code.collect::<Vec<_>>().join("\n").split("fn ").skip(1).map(|rest| {
                    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    rest[..end.unwrap_or(rest.len())].to_owned()
                }));
            }
        }
    }
    names
}

/// What a cell quotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The files that a cell names: whole paths, and names of files that lie beside the one before.
fn files(cell: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for name in quoted(cell) {
        let folder = files.last().and_then(|file| file.parent());
        files.push(match folder {
            Some(folder) if !root().join(name).exists() => folder.join(name),
            _ => PathBuf::from(name),
        });
    }
    files
}

/// The rows of a section's table whose first cell is not empty, as cells; without the heading.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = text.split_once(heading).expect("the section");
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    section
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| !cells[0].is_empty())
        .collect()
}

/// Whether a test's name says that it holds the rule: by number, or by where the rule was learnt.
fn is_named_after(test: &str, rule: usize) -> bool {
    let parts: Vec<&str> = test.split('_').collect();
    let by_number = parts.iter().enumerate().any(|(at, part)| {
        let after_rule = parts[..at].iter().rev().take(3).any(|part| part.starts_with("rule"));
        after_rule && part.parse() == Ok(rule)
    });
    let sources = ["xsa", "msa", "linux", "smr", "nx", "mx", "xs", "s5"];
    by_number || sources.contains(&parts[0])
}

#[test]
fn rule_90_every_advisory_has_a_test() {
    let text = read("docs/hardening.md");
    let functions = functions();
    let rules = rows(&text, "## The rules");
    let numbers: Vec<usize> = rules.iter().map(|cells| cells[0].parse().expect("a number")).collect();
    assert_eq!(numbers, (1..=90).collect::<Vec<_>>());
    for (rule, cells) in numbers.iter().zip(&rules) {
        let [_, _, places, tests] = cells[..] else {
            panic!("rule {rule}: {cells:?}")
        };
        if tests.starts_with("open: ") {
            continue;
        }
        assert!(!places.is_empty(), "rule {rule} is held somewhere");
        for file in files(places) {
            assert!(root().join(&file).exists(), "rule {rule}: there is no {file:?}");
        }
        assert!(
            quoted(tests).any(|test| is_named_after(test, *rule)),
            "rule {rule}: {tests}"
        );
        for test in quoted(tests) {
            assert!(functions.contains(test), "rule {rule}: there is no `{test}`");
        }
    }
    let advisories = rows(&text, "## Advisories");
    assert!(advisories.len() > 15);
    for cells in &advisories {
        let [advisory, tests] = cells[..] else {
            panic!("{cells:?}")
        };
        assert!(
            tests.contains('`') || tests.starts_with("open: ") || tests.starts_with("see rule"),
            "{advisory}"
        );
        for test in quoted(tests) {
            assert!(functions.contains(test), "{advisory}: there is no `{test}`");
        }
    }
}

#[test]
fn names_are_understood() {
    for (test, rule, named) in [
        ("rule_08_two_threads", 8, true),
        ("a_list_rules_59_and_63", 63, true),
        ("a_list_rules_59_and_63", 59, true),
        ("a_list_rule_65", 6, false),
        ("xsa_396_revoke_race", 20, true),
        ("any_page_is_survived", 88, false),
    ] {
        assert_eq!(is_named_after(test, rule), named, "{test} {rule}");
    }
}

/// The lints that keep panics out are on in every crate that sees what a peer wrote.
#[test]
fn rule_88_the_protocol_crates_are_linted_against_panics() {
    for name in [
        "hypercall",
        "grant",
        "events",
        "xenstore",
        "console",
        "netfront",
        "vchan",
        "9pfront",
    ] {
        let text = read(&format!("{name}/src/lib.rs"));
        for lint in [
            "unwrap_used",
            "expect_used",
            "panic",
            "unreachable",
            "indexing_slicing",
            "string_slice",
        ] {
            assert!(text.contains(&format!("clippy::{lint}")), "{name}: {lint}");
        }
    }
}
