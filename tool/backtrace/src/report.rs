//! Crash reports in a text: what `boot/src/crash.rs` prints, on a console or through Xen's log, and what Xen itself
//! prints of a PV guest that it ends.

/// What begins a report.
const HEADLINES: [&str; 4] = ["fata: panic", "fata: fault: ", "fata: NMI", "fata: sysrq: crash"];
/// What stands before code addresses.
const BACKTRACE: &str = "fata: backtrace:";
/// What Xen prints before the address at which a guest stood, which is followed by `>]`.
const XEN_RIP: (&str, &str) = ("RIP: ", ":[<");

/// A report.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report<'a> {
    /// What it says before the backtrace.
    pub(crate) lines: Vec<&'a str>,
    /// Code addresses, innermost first.
    pub(crate) addresses: Vec<u64>,
}

/// The reports in a text, in its order.
pub(crate) fn parse(text: &str) -> Vec<Report<'_>> {
    let mut reports: Vec<Report<'_>> = Vec::new();
    // Whether lines belong to the last report still.
    let mut open = false;
    for line in text.lines().map(str::trim_end) {
        if let Some((_, addresses)) = line.split_once(BACKTRACE) {
            let continues = reports.last().is_some_and(|last| open || !last.addresses.is_empty());
            if !continues || reports.is_empty() {
                reports.push(Report::default());
            }
            if let Some(report) = reports.last_mut() {
                report.addresses.extend(addresses.split_whitespace().map_while(hex));
            }
            open = false;
        } else if HEADLINES.iter().any(|headline| line.contains(headline)) {
            if !open {
                reports.push(Report::default());
                open = true;
            }
            keep(&mut reports, line);
        } else if let Some(address) = xen_rip(line) {
            reports.push(Report {
                lines: vec![line],
                addresses: vec![address],
            });
            open = false;
        } else if open {
            keep(&mut reports, line);
        }
    }
    reports
}

fn keep<'a>(reports: &mut [Report<'a>], line: &'a str) {
    if let Some(report) = reports.last_mut() {
        report.lines.push(line);
    }
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// The address in `RIP:    e033:[<000000000010a123>]`.
fn xen_rip(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(XEN_RIP.0)?;
    let (_, rest) = rest.split_once(XEN_RIP.1)?;
    u64::from_str_radix(rest.split_once(">]")?.0, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_found_among_other_lines() {
        let text = "hello\r\nfata: panic at a/b.rs:7: two\r\nlines\r\nfata: backtrace: 0x10 0x20\r\nfata: backtrace: 0x30\r\n\
                    bye\r\n(d3) fata: fault: page fault, vector 14, error 0x0\n(d3) rip=0x1\n(d3) fata: backtrace: 0x40\n";
        let reports = parse(text);
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[0].lines, ["fata: panic at a/b.rs:7: two", "lines"]);
        assert_eq!(reports[0].addresses, [0x10, 0x20, 0x30]);
        assert_eq!(reports[1].lines.len(), 2);
        assert_eq!(reports[1].addresses, [0x40]);
    }

    #[test]
    fn a_report_on_a_report_is_one() {
        let text = "fata: panic at a:1: first\nfata: and while that was being reported:\nfata: panic at a:2: second\n\
                    fata: backtrace: 0x10\n";
        let reports = parse(text);
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].lines.len(), 3);
    }

    #[test]
    fn what_was_cut_off_is_kept_as_far_as_it_goes() {
        assert_eq!(parse("fata: panic at a:1: x\nrip=0x").len(), 1);
        assert_eq!(parse("fata: backtrace: 0x10 0x2z 0x30")[0].addresses, [0x10]);
        assert_eq!(parse("fata: backtrace:")[0].addresses, []);
        assert_eq!(parse("fata: backtrace: 0x10000000000000000")[0].addresses, []);
        assert_eq!(parse("no report\n"), []);
    }

    #[test]
    fn xens_own_report_of_a_pv_guest_has_an_address() {
        let text = "(XEN) CPU:    0\n(XEN) RIP:    e033:[<000000000010eb3e>]\n(XEN) RFLAGS: 0\n";
        assert_eq!(parse(text)[0].addresses, [0x10_eb3e]);
        assert_eq!(parse("(XEN) RIP:    e033:[<"), []);
    }
}
