//! What the parser must do, by example and by property.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use log::LevelFilter;
use proptest::prelude::*;

use super::*;

fn message(line: &str) -> String {
    Args::parse(line).expect_err(line).to_string()
}

#[test]
fn an_empty_line_means_the_defaults() {
    let args = Args::parse(" \t\n").unwrap();
    assert_eq!(args.interface(0), InterfaceArgs::default());
    assert_eq!(args.interface(0).ipv4, Ipv4::Dhcp);
    assert_eq!(args.interface(0).ipv6, Ipv6::Auto);
    assert_eq!(args.log().level("anything"), LevelFilter::Info);
    assert!(args.application().is_empty() && !args.help() && args.hostname().is_none());
}

/// Solo5 0.7.2 lost the first word where the loader passes no program name (rule 83).
#[test]
fn s5_0_7_2_the_first_word_is_an_argument_rule_83() {
    let args = Args::parse("hostname=first log=off").unwrap();
    assert_eq!(args.hostname(), Some("first"));
    assert!(message("bogus ipv4=dhcp").starts_with("boot argument bogus: there is no such argument"));
    assert_eq!(Args::parse("-- a b").unwrap().application(), ["a", "b"]);
}

#[test]
fn everything_at_once() {
    let args = Args::parse(
        "ipv4=10.0.0.2/24 gateway=10.0.0.1 ipv6=fd00::2/64 gateway6=fd00::1 dns=10.0.0.1,fd00::53 \
         hostname=web-1.example log=net=debug,warn net2.ipv4=none -- x",
    )
    .unwrap();
    let net0 = args.interface(0);
    assert_eq!(
        net0.ipv4,
        Ipv4::Static {
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 24
        }
    );
    assert_eq!(net0.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(
        net0.ipv6,
        Ipv6::Static {
            address: "fd00::2".parse().unwrap(),
            prefix: 64
        }
    );
    assert_eq!(net0.gateway6, Some("fd00::1".parse::<Ipv6Addr>().unwrap()));
    assert_eq!(net0.dns, ["10.0.0.1", "fd00::53"].map(|a| a.parse::<IpAddr>().unwrap()));
    assert_eq!(args.interface(1), InterfaceArgs::default());
    assert_eq!(args.interface(2).ipv4, Ipv4::Off);
    assert_eq!(args.last_interface(), Some(2));
    assert_eq!(args.hostname(), Some("web-1.example"));
    assert_eq!(args.log().max_level(), LevelFilter::Debug);
}

#[test]
fn a_wrong_argument_is_named_with_what_was_expected() {
    let cases = [
        (
            "ipv4=10.0.0.2",
            "ipv4=10.0.0.2: expected ADDRESS/PREFIX such as 10.0.0.2/24",
        ),
        ("ipv4=10.0.0.2/33", "ipv4=10.0.0.2/33: expected"),
        ("ipv4=10.0.0.2/+8", "ipv4=10.0.0.2/+8: expected"),
        ("ipv4=10.0.0.2/", "ipv4=10.0.0.2/: expected"),
        ("ipv4=224.0.0.1/4", "ipv4=224.0.0.1/4: expected"),
        ("ipv4=", "ipv4=: expected"),
        (
            "ipv6=fd00::2/129",
            "ipv6=fd00::2/129: expected ADDRESS/PREFIX such as fd00::2/64",
        ),
        ("gateway=fd00::1", "gateway=fd00::1: expected an IPv4 address"),
        ("gateway=10.0.0.1", "gateway: it needs a static ipv4="),
        ("net3.gateway6=fd00::1", "net3.gateway6: it needs a static ipv6="),
        ("dns=10.0.0.1,", "dns=10.0.0.1,: expected addresses"),
        (
            "dns=10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4",
            ": expected three name servers at most",
        ),
        ("hostname=a_b", "hostname=a_b: expected a name"),
        ("hostname=", "hostname=: expected a name"),
        ("log=loud", "log=loud: expected off, error"),
        ("log==debug", "log==debug: expected off, error"),
        ("net16.ipv4=dhcp", "net16.ipv4=dhcp: there is no such argument"),
        ("net+1.ipv4=dhcp", "there is no such argument"),
        ("net.ipv4=dhcp", "there is no such argument"),
        ("net99999999999999999999.ipv4=dhcp", "there is no such argument"),
        ("net1.hostname=x", "there is no such argument"),
        ("ipv4", "ipv4: there is no such argument"),
        ("ipv4=dhcp ipv4=none", "ipv4=none: it is given twice"),
        ("hostname='a", "the line ends after an opening '"),
        ("hostname=\"a", "the line ends after an opening \""),
        ("hostname=\"a\\", "the line ends after an opening \""),
        ("hostname=a\\", "hostname=a: the line ends after a backslash"),
    ];
    for (line, expected) in cases {
        let message = message(line);
        assert!(
            message.starts_with("boot argument ") && message.contains(expected),
            "{line}: {message}"
        );
    }
}

#[test]
fn control_characters_do_not_reach_the_console() {
    assert!(message("evil\u{1b}[2J").contains("evil\\u{1b}[2J"));
}

#[test]
fn what_is_shown_and_taken_is_bounded() {
    assert!(message(&"x".repeat(8000)).len() < 400);
    assert_eq!(message(&"x".repeat(8193)), "boot arguments: more than 8192 bytes");
}

#[test]
fn quotes_as_in_a_shell() {
    let cases: [(&str, &[&str]); 8] = [
        ("a  b\tc\nd", &["a", "b", "c", "d"]),
        ("'a b' \"c d\"", &["a b", "c d"]),
        ("a'b c'd", &["ab cd"]),
        ("a\\ b \\'", &["a b", "'"]),
        ("'a\\b' \"a\\b\\\"\\\\\"", &["a\\b", "a\\b\"\\"]),
        ("'' \"\" x", &["", "", "x"]),
        ("key='a \"b\" c'", &["key=a \"b\" c"]),
        ("ä 'ö ü'", &["ä", "ö ü"]),
    ];
    for (line, words) in cases {
        assert_eq!(words::split(line).unwrap(), words, "{line}");
    }
}

#[test]
fn the_applications_words_are_its_own() {
    let args = Args::parse("log=off -- help ipv4=nonsense -- 'a b' k=1 k=2 kk=3").unwrap();
    assert_eq!(
        args.application(),
        ["help", "ipv4=nonsense", "--", "a b", "k=1", "k=2", "kk=3"]
    );
    assert!(!args.help());
    assert_eq!(args.value("k"), Some("2"));
    assert_eq!(args.value("help"), None);
}

/// Found by fuzzing: the line lost the space that its last backslash keeps, and with it its meaning.
#[test]
fn the_line_stays_as_it_came() {
    let line = " -- a\\ ";
    let args = Args::parse(line).unwrap();
    assert_eq!(args.application(), ["a "]);
    assert_eq!(args.line(), line);
}

#[test]
fn help_is_heard_everywhere_and_complete() {
    for line in ["help", "--help", "-h", "log=off help"] {
        assert!(Args::parse(line).unwrap().help(), "{line}");
    }
    for key in [
        "ipv4=",
        "gateway=",
        "ipv6=",
        "gateway6=",
        "dns=",
        "hostname=",
        "log=",
        "help",
        "--",
    ] {
        assert!(
            HELP.concat().lines().any(|line| line.trim_start().starts_with(key)),
            "{key}"
        );
    }
}

#[test]
fn the_longest_log_target_decides() {
    let args = Args::parse("log=error,net=debug,net::tcp=off").unwrap();
    let level = |target| args.log().level(target);
    assert_eq!(level("fata_net"), LevelFilter::Debug);
    assert_eq!(level("net::udp"), LevelFilter::Debug);
    assert_eq!(level("fata_net::tcp::listener"), LevelFilter::Off);
    assert_eq!(level("network"), LevelFilter::Error);
    assert_eq!(level(""), LevelFilter::Error);
}

/// A word quoted in one of the three ways.
fn quoted(word: &str, how: u8) -> String {
    match how % 3 {
        0 if !word.contains('\'') => format!("'{word}'"),
        1 => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
        _ if word.is_empty() => "''".to_string(),
        _ => word.chars().flat_map(|c| ['\\', c]).collect(),
    }
}

proptest! {
    #[test]
    fn quoting_is_undone(words in prop::collection::vec((".{0,12}", 0..3_u8), 0..8), gap in "[ \t\n]{1,3}") {
        let line = words.iter().map(|(word, how)| quoted(word, *how)).collect::<Vec<_>>().join(&gap);
        let expected: Vec<_> = words.into_iter().map(|(word, _)| word).collect();
        prop_assert_eq!(words::split(&line).unwrap(), expected.clone());
        let args = Args::parse(&format!("-- {line}")).unwrap();
        prop_assert_eq!(args.application(), expected);
    }

    #[test]
    fn nothing_panics_and_words_are_no_longer_than_the_line(line in "\\PC{0,200}") {
        let _ = Args::parse(&line);
        if let Ok(words) = words::split(&line) {
            prop_assert!(words.iter().map(String::len).sum::<usize>() <= line.len());
        }
    }

    #[test]
    fn near_misses_do_not_panic(
        line in prop::collection::vec("(net[0-9+]{0,3}\\.)?(ipv[46]|gateway6?|dns|log|hostname|--)?=?[0-9a-f.:/,]{0,20}", 0..6)
    ) {
        let _ = Args::parse(&line.join(" "));
    }

    #[test]
    fn a_static_address_survives(bits: u32, prefix in 0..=32_u8) {
        let address = Ipv4Addr::from_bits(bits);
        prop_assume!(!address.is_unspecified() && !address.is_multicast() && !address.is_loopback() && !address.is_broadcast());
        let args = Args::parse(&format!("net1.ipv4={address}/{prefix}")).unwrap();
        prop_assert_eq!(args.interface(1).ipv4, Ipv4::Static { address, prefix });
        prop_assert_eq!(args.interface(0), InterfaceArgs::default());
    }
}

#[test]
fn interfaces_are_as_many_as_named() {
    assert_eq!(Args::parse("net15.ipv4=none").unwrap().last_interface(), Some(15));
    assert_eq!(Args::parse("").unwrap().last_interface(), None);
    assert_eq!(
        Args::parse("dns=1.1.1.1").unwrap().interface(0).dns,
        vec![IpAddr::from([1, 1, 1, 1])]
    );
}

#[test]
fn a_router_is_in_its_interfaces_network() {
    for good in [
        "ipv4=10.0.0.2/24 gateway=10.0.0.1",
        "ipv4=10.0.0.2/0 gateway=192.168.1.1",
        "ipv6=fd00::2/64 gateway6=fd00::1",
        "net1.ipv4=10.0.0.2/31 net1.gateway=10.0.0.3",
    ] {
        assert!(Args::parse(good).is_ok(), "{good}");
    }
    let error = |line| Args::parse(line).unwrap_err().to_string();
    assert_eq!(
        error("ipv4=10.0.0.2/24 gateway=10.0.1.1"),
        "boot argument gateway: it needs an address in the network of ipv4="
    );
    assert!(error("ipv6=fd00::2/64 gateway6=fd01::1").contains("gateway6"));
}
