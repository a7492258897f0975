//! Configuration files for xl, Xen's toolstack.

use std::fmt::Write;

use fata_ci::quoted;

/// What goes into a guest's configuration (xl.cfg(5)).
#[derive(Clone, Debug)]
pub(crate) struct Config<'a> {
    /// The guest's name.
    pub(crate) name: &'a str,
    /// Whether it shall be a PV guest and not a PVH guest.
    pub(crate) pv: bool,
    /// The ELF file, as dom0 sees it; a relative path begins at the folder in which xl is started, but at a
    /// reboot at the root: there xl's background process waits.
    pub(crate) kernel: &'a str,
    /// MiB.
    pub(crate) memory: u32,
    /// Virtual CPUs.
    pub(crate) vcpus: u32,
    /// The bridge of its network interface, if it has one.
    pub(crate) bridge: Option<&'a str>,
    /// Boot arguments, word by word, as the guest shall see them.
    pub(crate) arguments: &'a [String],
}

impl Config<'_> {
    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{args}");
        };
        line(format_args!(
            "# Copy {name} and {name}.cfg to the Xen host, and in their folder run: xl create -c {name}.cfg",
            name = self.name
        ));
        line(format_args!("name = {}", quoted(self.name)));
        if !self.pv {
            line(format_args!("# \"pv\" works as well, with the same image."));
        }
        line(format_args!("type = {}", quoted(if self.pv { "pv" } else { "pvh" })));
        line(format_args!(
            "# xl looks for it in the current folder. Write the whole path if the guest shall reboot: then xl is in /."
        ));
        line(format_args!("kernel = {}", quoted(self.kernel)));
        line(format_args!("memory = {}", self.memory));
        line(format_args!("vcpus = {}", self.vcpus));
        if let Some(bridge) = self.bridge {
            line(format_args!(
                "# The bridge's name differs between hosts: `brctl show` or `ip link show type bridge` lists them."
            ));
            line(format_args!("vif = [ {} ]", quoted(&format!("bridge={bridge}"))));
        }
        if self.bridge.is_some() {
            line(format_args!(
                "# No ipv4= means DHCP. For a fixed address: \"ipv4=10.0.0.2/24 gateway=10.0.0.1\"."
            ));
        }
        let words: Vec<String> = self.arguments.iter().map(|text| word(text)).collect();
        line(format_args!("cmdline = {}", quoted(&words.join(" "))));
        line(format_args!("on_poweroff = \"destroy\""));
        line(format_args!("on_reboot = \"restart\""));
        line(format_args!(
            "# \"preserve\" keeps a crashed guest for a look: xl dump-core, xl console."
        ));
        line(format_args!("on_crash = \"destroy\""));
        text
    }
}

/// A boot argument as Fata's parser reads it back (the module `args` of the crate `fata`): '...' keeps everything, "..."
/// keeps everything but a backslash before a quote or another backslash.
fn word(text: &str) -> String {
    let special = |c: char| c.is_ascii_whitespace() || matches!(c, '\'' | '"' | '\\');
    if !text.is_empty() && !text.contains(special) {
        text.to_owned()
    } else if !text.contains('\'') {
        format!("'{text}'")
    } else {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_bounds() {
        for (text, expected) in [
            ("hostname=x", "hostname=x"),
            ("--", "--"),
            ("", "''"),
            ("two words", "'two words'"),
            (r#"say "hi" \"#, r#"'say "hi" \'"#),
            ("it's", r#""it's""#),
            (r#"it's "\" here"#, r#""it's \"\\\" here""#),
        ] {
            assert_eq!(word(text), expected);
        }
    }

    #[test]
    fn says_what_xl_needs_and_no_more() {
        let arguments = ["a=b c".to_owned(), "it's".to_owned()];
        let config = Config {
            name: "u",
            pv: false,
            kernel: "/k",
            memory: 8,
            vcpus: 2,
            bridge: None,
            arguments: &arguments,
        };
        let text = config.text();
        assert!(text.contains("cmdline = \"'a=b c' \\\"it's\\\"\"\n"), "{text}");
        assert!(text.contains("type = \"pvh\"\n"), "{text}");
        assert!(!text.contains("vif"), "{text}");
        let text = Config {
            pv: true,
            bridge: Some("xenbr0"),
            ..config
        }
        .text();
        assert!(text.contains("type = \"pv\"\n"), "{text}");
        assert!(text.contains("vif = [ \"bridge=xenbr0\" ]\n"), "{text}");
    }
}
