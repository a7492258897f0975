//! The machine's figures as JSON.

use alloc::string::String;
use core::fmt::Write;

use fata::stats::Stats;

/// What `/stats` shows. All values are numbers, booleans and names without special characters.
pub(crate) fn json(stats: &Stats) -> String {
    let mut json = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        json,
        "{{\"uptime_ms\":{},\"memory\":{{\"total\":{},\"used\":{},\"free\":{},\"ballooned\":{}}},\
         \"grants\":{{\"active\":{},\"quarantined\":{}}},\"ports\":{},\
         \"events\":{{\"received\":{},\"sent\":{},\"sleeps\":{}}},\"watches\":{},\"tasks\":{},\"timers\":{},\
         \"console_dropped\":{},\"interfaces\":[",
        stats.uptime.as_millis() as u64,
        stats.memory.total,
        stats.memory.used,
        stats.memory.free(),
        stats.memory.ballooned,
        stats.grants.active,
        stats.grants.quarantined,
        stats.ports,
        stats.events.received,
        stats.events.sent,
        stats.events.sleeps,
        stats.watches,
        stats.tasks,
        stats.timers,
        stats.console_dropped,
    );
    for (position, interface) in stats.interfaces.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        let net = &interface.stack;
        let _ = write!(
            json,
            "{comma}{{\"name\":\"{}\",\"link_up\":{},\"rx_packets\":{},\"rx_bytes\":{},\"tx_packets\":{},\
             \"tx_bytes\":{},\"connections\":{},\"accepted\":{}}}",
            interface.name,
            interface.link_up,
            net.rx_frames,
            net.rx_bytes,
            net.tx_frames,
            net.tx_bytes,
            net.tcp_connections,
            net.tcp_accepted,
        );
    }
    json.push_str("]}\n");
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use fata::stats::InterfaceStats;

    #[test]
    fn it_is_json() {
        let interface = InterfaceStats {
            name: "net0".into(),
            link_up: true,
            ..InterfaceStats::default()
        };
        let stats = Stats {
            ports: 3,
            interfaces: vec![interface.clone(), interface],
            ..Stats::default()
        };
        let value: serde_json::Value = serde_json::from_str(&json(&stats)).unwrap();
        assert_eq!(value["ports"], 3);
        assert_eq!(value["interfaces"][1]["name"], "net0");
        assert_eq!(value["interfaces"][1]["link_up"], true);
    }
}
