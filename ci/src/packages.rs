//! Debian packages without root: fetched by apt into private folders and unpacked by dpkg-deb, nothing installed.
//!
//! apt does the work that is easy to get wrong: it resolves dependencies, checks the archive's signatures and every
//! package's checksum, resumes interrupted downloads and gives a file its final name only when it is whole. It is told that
//! nothing is installed, so the set is complete and consistent by itself, whatever this computer has and from which suite.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::cache::{self, Lock};
use crate::error::{Error, tail};
use crate::progress::Step;
use crate::recipe::SUITE;

/// A package index younger than this is not fetched again.
const INDEX_AGE: Duration = Duration::from_secs(24 * 3600);

const NEEDS_DEBIAN: &str =
    "run this on Debian (a container will do) with the main archive in apt's sources and `apt-get update` run once";

/// apt with its state in the cache.
pub(crate) struct Apt {
    state: PathBuf,
}

impl Apt {
    /// Prepares the private state; nothing is fetched yet.
    pub(crate) fn new(lock: &Lock) -> Result<Self, Error> {
        let state = lock.folder("apt")?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            lock.folder(&format!("apt/{folder}"))?;
        }
        let status = state.join("status");
        fs::write(&status, "").map_err(Error::io("write", &status))?;
        let sources = state.join("sources.list");
        fs::write(&sources, Archive::of_this_system()?.sources()).map_err(Error::io("write", &sources))?;
        Ok(Self { state })
    }

    /// Fetches the package index unless it is fresh.
    pub(crate) fn update(&self, step: &Step<'_>) -> Result<(), Error> {
        let mark = self.state.join("updated");
        let age = |time: SystemTime| time.elapsed().unwrap_or(Duration::MAX);
        if fs::metadata(&mark)
            .and_then(|meta| meta.modified())
            .is_ok_and(|time| age(time) < INDEX_AGE)
        {
            return Ok(());
        }
        self.run(&["update", "-o", "APT::Update::Error-Mode=any"], step)?;
        fs::write(&mark, "").map_err(Error::io("write", &mark))
    }

    /// Downloads `packages` and all they depend on, and returns the paths of the package files.
    pub(crate) fn download(&self, packages: &[&str], step: &Step<'_>) -> Result<Vec<PathBuf>, Error> {
        let mut arguments = vec!["install", "--download-only", "--no-install-recommends", "--yes"];
        arguments.extend(packages);
        // What cannot be had may have been replaced in the archive by a newer version: then the next run needs a new index.
        self.run(&arguments, step)
            .inspect_err(|_| drop(cache::remove(&self.state.join("updated"))))?;
        let mut arguments = vec!["install", "--print-uris", "--no-install-recommends", "--quiet=2"];
        arguments.extend(packages);
        // The same question as above, with what is already here left in the answer.
        let empty = self.state.join("nothing");
        fs::create_dir_all(empty.join("partial")).map_err(Error::io("create", &empty))?;
        let output = output(
            self.command(&arguments)
                .arg("-o")
                .arg(assign("Dir::Cache::archives", &empty)),
        )?;
        let archives = self.state.join("cache/archives");
        Ok(file_names(&output).map(|name| archives.join(name)).collect())
    }

    /// Forgets downloaded packages; they have been unpacked.
    pub(crate) fn clean(&self) -> Result<(), Error> {
        cache::remove(&self.state.join("cache"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        for (option, path) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::Etc::Preferences", "none"),
            ("Dir::Etc::PreferencesParts", "none"),
            ("Dir::State", ""),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(assign(option, &self.state.join(path)));
        }
        for option in [
            "APT::Architecture=amd64",
            "APT::Architectures=amd64",
            "APT::Default-Release=",
            // Only translations and application data, which nobody reads here.
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "Acquire::Retries=3",
            // dpkg's own lock belongs to root; it guards installation, which does not happen.
            "Debug::NoLocking=true",
            "APT::Sandbox::User=root",
            // Hooks of this system are about what it has installed.
            "APT::Update::Post-Invoke-Success::=",
        ] {
            command.args(["-o", option]);
        }
        command
    }

    fn run(&self, arguments: &[&str], step: &Step<'_>) -> Result<(), Error> {
        let mut command = self.command(arguments);
        command
            .args(["-o", "APT::Status-Fd=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let log = self.state.join("log");
        let log_file = fs::File::create(&log).map_err(Error::io("write", &log))?;
        let mut child = command
            .stderr(log_file)
            .spawn()
            .map_err(|error| absent("apt-get", &error))?;
        for line in BufReader::new(child.stdout.take().into_iter().next().ok_or_else(no_pipe)?).lines() {
            if let Some(percent) = line.ok().as_deref().and_then(download_percent) {
                step.advance(percent, 100.0);
            }
        }
        let status = child.wait().map_err(Error::io("run", Path::new("apt-get")))?;
        if status.success() {
            return Ok(());
        }
        let printed = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        Err(Error::Program {
            command: format!("apt-get {}", arguments.first().unwrap_or(&"")),
            why: format!("{status}\n{}", tail(&printed, 12)),
            next: "check the network (and apt's proxy settings), then run the same command again: it goes on where it stopped",
        })
    }
}

/// Unpacks package files into the folder `to`, without their documentation.
pub(crate) fn unpack(files: &[PathBuf], to: &Path, step: &Step<'_>) -> Result<(), Error> {
    for (n, file) in files.iter().enumerate() {
        step.advance(n as f32, files.len() as f32);
        output(Command::new("dpkg-deb").arg("-x").arg(file).arg(to)).map_err(|error| {
            // A damaged file must not be found again by the next run.
            if matches!(error, Error::Program { .. }) {
                drop(cache::remove(file));
            }
            error
        })?;
        for useless in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
            cache::remove(&to.join(useless))?;
        }
    }
    Ok(())
}

/// Where this system gets Debian's packages from.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    main: String,
    security: Option<String>,
}

impl Archive {
    fn of_this_system() -> Result<Self, Error> {
        let mut command = Command::new("apt-get");
        command.args([
            "indextargets",
            "--format",
            "$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)",
            "Created-By: Packages",
        ]);
        let targets = output(&mut command)?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name| os_release(&release, name);
        if field("ID") != Some("debian") {
            return Err(Error::Unsupported {
                what: format!(
                    "the Xen host is made of Debian's packages, and this system is {}",
                    field("PRETTY_NAME").unwrap_or("of an unknown kind")
                ),
                next: NEEDS_DEBIAN,
            });
        }
        Self::choose(&targets, field("VERSION_CODENAME").unwrap_or(SUITE)).ok_or(Error::Unsupported {
            what: "apt's configuration names no archive with Debian's main component".into(),
            next: NEEDS_DEBIAN,
        })
    }

    /// Picks from lines of `ORIGIN|RELEASE|COMPONENT|URI`. The origin is empty before the first `apt-get update`; then the
    /// release's name must do, and third parties that use it as well are recognised by their address.
    fn choose(targets: &str, codename: &str) -> Option<Self> {
        let main = |line: &str| {
            let mut fields = line.splitn(4, '|').map(str::to_owned);
            let (origin, release, component, uri) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            (component == "main").then_some((origin, release, uri))
        };
        let find = |accept: &dyn Fn(&str) -> bool| {
            let fitting = || {
                targets
                    .lines()
                    .filter_map(main)
                    .filter(|(_, release, _)| accept(release))
            };
            let by_origin = fitting().find(|(origin, ..)| origin == "Debian");
            let by_name = || fitting().find(|(origin, _, uri)| origin.is_empty() && uri.contains("debian"));
            by_origin.or_else(by_name).map(|(.., uri)| uri)
        };
        let names = [codename, "stable", "oldstable", "oldoldstable", "testing"];
        Some(Self {
            main: find(&|release| names.contains(&release))?,
            security: find(&|release| {
                release
                    .strip_suffix("-security")
                    .is_some_and(|name| names.contains(&name))
            }),
        })
    }

    /// The lines of a sources.list for the suite that the recipe is written for.
    fn sources(&self) -> String {
        let Self { main, security } = self;
        let mut lines = format!("deb [arch=amd64] {main} {SUITE} main\n");
        if let Some(security) = security {
            lines += &format!("deb [arch=amd64] {security} {SUITE}-security main\n");
        }
        lines
    }
}

/// A field of /etc/os-release, without its quotes.
fn os_release<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']))
}

/// The percentage in a line of apt's status pipe ("dlstatus:12:34.5:text").
fn download_percent(line: &str) -> Option<f32> {
    line.strip_prefix("dlstatus:")?.split(':').nth(1)?.parse().ok()
}

/// The file names in the lines of `apt-get --print-uris`: 'URI' NAME SIZE HASH.
fn file_names(lines: &str) -> impl Iterator<Item = &str> {
    let fields = |line: &'_ str| line.starts_with('\'').then_some(line.len());
    lines
        .lines()
        .filter(move |line| fields(line).is_some())
        .filter_map(|line| line.split(' ').nth(1))
}

fn assign(option: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(option);
    text.push("=");
    text.push(path);
    text
}

fn no_pipe() -> Error {
    Error::Program {
        command: "apt-get".into(),
        why: "it has no output pipe".into(),
        next: "try again",
    }
}

fn absent(program: &str, error: &std::io::Error) -> Error {
    Error::Unsupported {
        what: format!("the program {program} cannot be started ({error})"),
        next: NEEDS_DEBIAN,
    }
}

/// Runs `command` to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| absent(&name, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let arguments: Vec<_> = command
        .get_args()
        .take(3)
        .map(|argument| argument.to_string_lossy())
        .collect();
    Err(Error::Program {
        command: format!("{name} {}", arguments.join(" ")),
        why: format!(
            "{}\n{}",
            output.status,
            tail(&String::from_utf8_lossy(&output.stderr), 8)
        ),
        next: "run the same command again; if it fails again, remove the cache folder first",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_debians_own() {
        let targets = "\
Hashi|bookworm|main|http://hashi/
Debian|bookworm|contrib|http://mirror/debian/
Debian|bookworm-updates|main|http://updates/debian/
Debian|bookworm|main|http://mirror/debian/
Debian|bookworm-security|main|http://mirror/security/";
        let archive = Archive::choose(targets, "bookworm").unwrap();
        assert_eq!(archive.main, "http://mirror/debian/");
        assert_eq!(
            archive.sources(),
            "deb [arch=amd64] http://mirror/debian/ bookworm main\ndeb [arch=amd64] http://mirror/security/ bookworm-security main\n"
        );
    }

    #[test]
    fn before_the_first_update_the_address_decides() {
        let targets =
            "|trixie|main|https://packages.example/apt\n|trixie|main|http://m/debian/\n|stable|main|http://n/debian";
        let archive = Archive::choose(targets, "trixie").unwrap();
        assert_eq!(
            archive,
            Archive {
                main: "http://m/debian/".into(),
                security: None
            }
        );
        assert_eq!(Archive::choose("|stable|contrib|http://m/debian/", "trixie"), None);
        assert_eq!(Archive::choose("garbage", "trixie"), None);
    }

    #[test]
    fn reads_what_apt_prints() {
        assert_eq!(
            download_percent("dlstatus:104:82.5345:Retrieving file 104 of 104"),
            Some(82.5345)
        );
        assert_eq!(download_percent("pmstatus:x:1:y"), None);
        assert_eq!(download_percent("dlstatus:"), None);
        let lines =
            "'http://m/a_1.deb' a_1%3a1_all.deb 10 SHA256:00\nnoise\n'http://m/b.deb' b_2_amd64.deb 7 SHA256:11\n";
        assert_eq!(
            file_names(lines).collect::<Vec<_>>(),
            ["a_1%3a1_all.deb", "b_2_amd64.deb"]
        );
        assert_eq!(os_release("A=b\nID=debian\nNAME=\"x y\"\n", "NAME"), Some("x y"));
        assert_eq!(os_release("VERSION_ID=12\n", "ID"), None);
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let error = output(Command::new("sh").args(["-c", "echo because >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("because") && error.contains("3"), "{error}");
        let error = output(&mut Command::new("fata-no-such-program")).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}
