//! One application on a real Xen host, from the source to its answer.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use fata_ci::XenHost;

use crate::build::{self, Image};
use crate::cli::RunArgs;
use crate::error::Error;
use crate::progress::{self, spinner, stage_line};
use crate::setup;
use crate::workspace::{Application, Workspace};
use crate::xl;

/// The guest's address on the host's bridge, whose own address is 10.0.0.1.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The bridge that the Xen host has.
const BRIDGE: &str = "xenbr0";
/// The least memory of a PV guest, in MiB: Xen's builder begins with a mapping of so much.
const PV_MIB: u32 = 4;
/// As much of a page as is shown.
const SHOWN: usize = 4096;

/// Builds, starts, asks, shows.
pub(crate) fn run(workspace: &Workspace, args: &RunArgs) -> Result<ExitCode, Error> {
    let began = Instant::now();
    let address = address(&workspace.application(&args.application)?, &args.arguments)?;
    setup::bare_metal_target(workspace)?;
    let image = build::image(workspace, &args.application)?;
    let host = progress::host()?;
    let bar = spinner("xl create");
    let elf = fs::read(&image.elf).map_err(Error::file(&image.elf))?;
    host.create_from_config(&image.name, &elf, &configuration(&image, args))?;
    bar.done();

    let code = match &image.application {
        Application { http: Some(port), .. } => ask(&host, &image, address, *port, args)?,
        Application { tcp: Some(port), .. } => knock(&host, &image, address, *port, args)?,
        _ if args.keep => ExitCode::SUCCESS,
        _ => watch(&host, &image, args)?,
    };
    stage_line("in all", began.elapsed());
    if args.keep {
        attach(&host, &image.name)?;
    }
    Ok(code)
}

/// The guest's address: what the boot arguments say, else the usual one.
///
/// What is to be reached from here needs a fixed address on the host's bridge: nobody tells us which one DHCP gave.
fn address(application: &Application, arguments: &[String]) -> Result<Ipv4Addr, Error> {
    let given = arguments
        .iter()
        .find_map(|word| word.strip_prefix("ipv4=").or_else(|| word.strip_prefix("net0.ipv4=")));
    let (Some(text), true) = (given, application.port().is_some()) else {
        return Ok(GUEST);
    };
    let fits = |address: &Ipv4Addr| {
        let [network @ .., last] = address.octets();
        network == [10, 0, 0] && matches!(last, 2..=250)
    };
    text.split_once('/')
        .and_then(|(address, _)| address.parse().ok())
        .filter(fits)
        .ok_or_else(|| Error::BadAddress { text: text.into() })
}

fn configuration(image: &Image, args: &RunArgs) -> String {
    let mut arguments = Vec::new();
    let has_own = |word: &String| word.starts_with("ipv4=") || word.starts_with("net0.ipv4=");
    if image.application.network && !args.arguments.iter().any(has_own) {
        // DHCP works too, but a fixed address saves its round trips.
        arguments.extend([
            format!("ipv4={GUEST}/24"),
            "gateway=10.0.0.1".into(),
            "dns=10.0.0.1".into(),
        ]);
    }
    arguments.extend(args.arguments.iter().cloned());
    if !args.words.is_empty() {
        arguments.push("--".into());
        arguments.extend(args.words.iter().cloned());
    }
    let config = xl::Config {
        name: &image.name,
        pv: args.pv,
        kernel: &image.elf.to_string_lossy(),
        memory: args.memory.unwrap_or(if args.pv {
            image.application.memory.max(PV_MIB)
        } else {
            image.application.memory
        }),
        vcpus: args.vcpus,
        bridge: image.application.network.then_some(BRIDGE),
        arguments: &arguments,
    };
    config.text()
}

/// Fetches the guest's page and shows it.
fn ask(host: &XenHost, image: &Image, address: Ipv4Addr, port: u16, args: &RunArgs) -> Result<ExitCode, Error> {
    let bar = spinner("first answer");
    // QEMU's user network would ask a guest that does not listen yet again only after six seconds.
    listening(host, image, address, port, args)?;
    let local = host.forward(0, address, port)?;
    let url = format!("http://127.0.0.1:{local}/");
    let page = retry(host, image, &url, args, || Ok(get(&url, args.timeout)?))?;
    bar.done();
    println!("{}", page.get(..SHOWN).unwrap_or(&page).trim_end());
    if args.keep {
        println!("\n{} serves at {url}", image.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says how long it takes until the guest's port answers.
fn knock(host: &XenHost, image: &Image, address: Ipv4Addr, port: u16, args: &RunArgs) -> Result<ExitCode, Error> {
    let bar = spinner(&format!("TCP port {port} answers"));
    listening(host, image, address, port, args)?;
    bar.done();
    if args.keep {
        println!(
            "{} listens at 127.0.0.1:{}",
            image.name,
            host.forward(0, address, port)?
        );
    } else {
        print!("{}", host.console(&image.name)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until the guest accepts a connection to its port.
///
/// dom0 connects, for it sees the guest's own answer: a forwarded port accepts before the guest is asked.
fn listening(host: &XenHost, image: &Image, address: Ipv4Addr, port: u16, args: &RunArgs) -> Result<(), Error> {
    let connect = format!("nc -w 2 {address} {port} -e true");
    retry(host, image, &format!("{address}:{port}"), args, || {
        Ok(host.check(&connect, args.timeout).map(drop)?)
    })
}

/// Tries until it works, as long as the guest lives and the time is not over. `whom` is for the error.
fn retry<T>(
    host: &XenHost,
    image: &Image,
    whom: &str,
    args: &RunArgs,
    attempt: impl Fn() -> Result<T, Box<dyn std::error::Error>>,
) -> Result<T, Error> {
    let began = Instant::now();
    loop {
        let why = match attempt() {
            Ok(answer) => return Ok(answer),
            Err(why) => why,
        };
        let state = host.state(&image.name)?;
        if !state.is_alive() || began.elapsed() > args.timeout {
            return Err(Error::NoAnswer {
                whom: whom.into(),
                why: format!("{why} (the guest is {state})"),
                console: host.console(&image.name).unwrap_or_default(),
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn get(url: &str, limit: Duration) -> Result<String, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(limit)).build().into();
    agent.get(url).call()?.body_mut().read_to_string()
}

/// Waits until the guest ends, and shows what it said. Its exit status becomes ours.
fn watch(host: &XenHost, image: &Image, args: &RunArgs) -> Result<ExitCode, Error> {
    let bar = spinner("the guest's life");
    let began = Instant::now();
    let state = loop {
        let state = host.state(&image.name)?;
        if !state.is_alive() || began.elapsed() > args.timeout {
            break state;
        }
        thread::sleep(Duration::from_millis(50));
    };
    bar.done();
    let console = host.console(&image.name)?;
    print!("{console}");
    if state.is_alive() {
        eprintln!(
            "{} still runs after {:?}; --keep leaves it running, --timeout waits longer",
            image.name, args.timeout
        );
        return Ok(ExitCode::SUCCESS);
    }
    Ok(exit_status(&console).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The status in the guest's last words. A guest that crashed has none.
fn exit_status(console: &str) -> Option<u8> {
    console
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("fata: exit status ")?.parse().ok())
}

/// Connects the terminal with the guest's console until the guest ends.
fn attach(host: &XenHost, name: &str) -> Result<(), Error> {
    println!("console of {name} (Ctrl-C ends the Xen host):");
    let failed = |error: io::Error| Error::Program {
        program: format!("xl console {name}"),
        why: error.to_string(),
    };
    let mut output = host.attach(name)?;
    let mut input = output.try_clone().map_err(failed)?;
    if progress::interactive() {
        // Ends with the process: there is no portable way to wake a thread that reads a terminal.
        thread::spawn(move || io::copy(&mut io::stdin(), &mut input));
    }
    let mut buffer = [0; 1024];
    loop {
        match output.read(&mut buffer).map_err(failed)? {
            0 => return Ok(()),
            n => {
                let mut terminal = io::stdout();
                terminal
                    .write_all(&buffer[..n])
                    .and_then(|()| terminal.flush())
                    .map_err(failed)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_one_that_was_given() {
        let served = Application {
            network: true,
            http: Some(80),
            ..Application::default()
        };
        let of = |application: &Application, words: &[&str]| {
            address(
                application,
                &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(),
            )
            .ok()
        };
        assert_eq!(of(&served, &["hostname=x"]), Some(GUEST));
        assert_eq!(
            of(&served, &["hostname=x", "ipv4=10.0.0.9/24"]),
            Some(Ipv4Addr::new(10, 0, 0, 9))
        );
        for unreachable in ["dhcp", "none", "10.0.0.9", "10.0.0.1/24", "192.168.0.2/24", ""] {
            assert_eq!(of(&served, &[&format!("ipv4={unreachable}")]), None, "{unreachable}");
        }
        // Nobody connects to it.
        assert_eq!(of(&Application::default(), &["ipv4=dhcp"]), Some(GUEST));
    }

    #[test]
    fn the_exit_status_is_the_last_one() {
        assert_eq!(
            exit_status("fata: exit status 1\r\nhello\r\nfata: exit status 3\r\n"),
            Some(3)
        );
        assert_eq!(exit_status("panicked at ..."), None);
        assert_eq!(exit_status("fata: exit status 300"), None);
    }
}
