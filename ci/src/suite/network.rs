//! Through the real netback.

use serde_json::Value;

use super::{Bench, Failure, Test, ensure};

pub(super) const TESTS: &[Test] = &[
    (
        "network::http_in_8_mib_serves_its_page_and_statistics",
        http_in_8_mib_serves_its_page_and_statistics,
    ),
    ("network::http_in_4_mib", http_in_4_mib),
    ("network::the_built_configuration_works", the_built_configuration_works),
    (
        "network::ten_thousand_requests_on_new_connections",
        ten_thousand_requests_on_new_connections,
    ),
    (
        "network::ten_thousand_requests_on_kept_connections",
        ten_thousand_requests_on_kept_connections,
    ),
    ("network::echo_moves_64_mib_both_ways", echo_moves_64_mib_both_ways),
    ("network::discard_and_chargen", discard_and_chargen),
    ("network::udp_echo", udp_echo),
    ("network::ping_of_every_size", ping_of_every_size),
    ("network::ipv6", ipv6),
    (
        "network::what_is_for_other_groups_is_kept_back",
        what_is_for_other_groups_is_kept_back,
    ),
    ("network::dhcp_gives_an_address", dhcp_gives_an_address),
    ("network::names_are_resolved", names_are_resolved),
    ("network::two_interfaces", two_interfaces),
    (
        "network::a_storm_of_events_does_not_stop_the_serving",
        a_storm_of_events_does_not_stop_the_serving,
    ),
];

pub(super) fn http_in_8_mib_serves_its_page_and_statistics(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    let page = bench.dom0(&format!("curl -sS --fail http://{}/", http.v4))?;
    ensure!(page.contains("Fata"), "that is not the page:\n{page}");
    let text = bench.dom0(&format!("curl -sS --fail http://{}/stats", http.v4))?;
    let stats: Value = serde_json::from_str(&text).map_err(|error| Failure::Wrong(format!("{error}: {text}")))?;
    let number = |path: &str| stats.pointer(path).and_then(Value::as_f64).unwrap_or(-1.0);
    let uptime = number("/uptime_ms");
    ensure!(uptime > 0.0 && uptime < 120_000.0, "uptime is {uptime}: {text}");
    let total = number("/memory/total");
    ensure!((4e6..9e6).contains(&total), "total memory is {total}: {text}");
    ensure!(
        number("/memory/used") > 0.0 && number("/memory/used") < total,
        "memory in use: {text}"
    );
    ensure!(number("/interfaces/0/rx_packets") >= 8.0, "frames received: {text}");
    ensure!(number("/interfaces/0/tx_packets") >= 6.0, "frames sent: {text}");
    ensure!(number("/interfaces/0/accepted") == 2.0, "connections: {text}");
    ensure!(
        number("/grants/active") > 2.0 && number("/ports") >= 3.0,
        "grants and ports: {text}"
    );
    for (path, status) in [("/nothing", "404"), ("/", "200")] {
        let code = bench.dom0(&format!(
            "curl -sS -o /dev/null -w '%{{http_code}}' http://{}{path}",
            http.v4
        ))?;
        ensure!(code == status, "{path} gives {code}");
    }
    Ok(())
}

pub(super) fn http_in_4_mib(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?.memory_mib(4))?;
    http.says("listening")?;
    let (v4, requests) = (http.v4, "--requests 1000 --parallel 32 --expect Fata");
    bench.peer(&format!("http {v4}:80 / {requests}"))?;
    bench.peer(&format!("http {v4}:80 / --keep-alive {requests}")).map(drop)
}

fn the_built_configuration_works(bench: &Bench<'_>) -> Result<(), Failure> {
    // As a user would: dist/http and dist/http.cfg as they are, DHCP from the host's network.
    let config = String::from_utf8_lossy(&bench.read("http.cfg")?).into_owned();
    let server = dhcp_server(bench)?;
    bench
        .host
        .create_from_config("as-built", &bench.read("http")?, &config)?;
    let outcome = bench.host.wait_for_log("as-built", "listening", super::bench::PATIENCE);
    let page = bench.dom0("curl -sS --fail --max-time 20 http://10.0.0.240/");
    drop(server);
    bench.host.destroy("as-built")?;
    outcome?;
    ensure!(page?.contains("Fata"), "that is not the page");
    Ok(())
}

pub(super) fn ten_thousand_requests_on_new_connections(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench
        .peer(&format!(
            "http {}:80 / --requests 10000 --parallel 64 --expect Fata",
            http.v4
        ))
        .map(drop)
}

pub(super) fn ten_thousand_requests_on_kept_connections(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench
        .peer(&format!(
            "http {}:80 / --requests 10000 --parallel 64 --keep-alive --expect Fata",
            http.v4
        ))
        .map(drop)
}

pub(super) fn echo_moves_64_mib_both_ways(bench: &Bench<'_>) -> Result<(), Failure> {
    let echo = bench.start(bench.server("echo", "")?)?;
    echo.says("listening")?;
    bench.peer(&format!("echo {}:7 --bytes {}", echo.v4, 64 << 20))?;
    // And many at once, each with bytes of its own.
    bench
        .peer(&format!("echo {}:7 --bytes {} --parallel 16", echo.v4, 1 << 20))
        .map(drop)
}

pub(super) fn discard_and_chargen(bench: &Bench<'_>) -> Result<(), Failure> {
    let echo = bench.start(bench.server("echo", "")?)?;
    echo.says("listening")?;
    bench.peer(&format!("discard {}:9 --bytes {}", echo.v4, 8 << 20))?;
    bench.peer(&format!("chargen {}:19 --bytes {}", echo.v4, 8 << 20))?;
    // Segments pass netback uncut; acknowledgements are among the frames.
    for direction in ["rx", "tx"] {
        let mean = bench.dom0(&format!(
            "cd /sys/class/net/vif$(xl domid {}).0/statistics; echo $(($(cat {direction}_bytes) / $(cat {direction}_packets)))",
            echo.name
        ))?;
        let bytes: u32 = mean.trim().parse().unwrap_or_default();
        ensure!(
            bytes > 3000,
            "frames of {bytes} bytes in the mean, netback's {direction}"
        );
    }
    Ok(())
}

pub(super) fn udp_echo(bench: &Bench<'_>) -> Result<(), Failure> {
    let echo = bench.start(bench.server("echo", "")?)?;
    echo.says("listening")?;
    for size in [1, 512, 1472] {
        bench.peer(&format!("udp {}:7 --requests 500 --bytes {size}", echo.v4))?;
    }
    Ok(())
}

pub(super) fn ping_of_every_size(bench: &Bench<'_>) -> Result<(), Failure> {
    let echo = bench.start(bench.server("echo", "")?)?;
    echo.says("listening")?;
    for size in [64, 512, 1472, 1473, 4000] {
        // Without -W a lost answer would still come in time to be counted.
        let report = bench.dom0(&format!("ping -n -q -c 50 -i 0.02 -s {size} {}", echo.v4))?;
        ensure!(report.contains(" 0% packet loss"), "{size} bytes:\n{report}");
    }
    Ok(())
}

pub(super) fn ipv6(bench: &Bench<'_>) -> Result<(), Failure> {
    let http = bench.start(bench.server("http", "")?)?;
    http.says("listening")?;
    bench.peer(&format!(
        "http [{}]:80 / --requests 200 --parallel 8 --expect Fata",
        http.v6
    ))?;
    let report = bench.dom0(&format!("ping -6 -n -q -c 20 -i 0.02 -s 1400 {}", http.v6))?;
    ensure!(report.contains(" 0% packet loss"), "{report}");
    Ok(())
}

/// Other guests' neighbour solicitations end at netback, and the guest's own neighbours find it.
pub(super) fn what_is_for_other_groups_is_kept_back(bench: &Bench<'_>) -> Result<(), Failure> {
    const ADDRESSES: u32 = 5;
    let echo = bench.start(bench.server("echo", "")?)?;
    let http = bench.start(bench.server("http", "")?)?;
    echo.says("listening")?;
    http.says("listening")?;
    let kept_back = || -> Result<u32, Failure> {
        let text = bench.dom0(&format!(
            "cat /sys/class/net/vif$(xl domid {}).0/statistics/tx_dropped",
            http.name
        ))?;
        Ok(text.trim().parse().unwrap_or_default())
    };
    bench.dom0(&format!("ping -6 -n -q -c 1 {}", echo.v6))?;
    let before = kept_back()?;
    // dom0 has as many addresses, and the first guest asks all of its bridge for each before it answers, one in a second: a ping
    // or two are lost meanwhile. What dom0 itself sends to groups does not count: Linux lets it pass.
    bench.dom0(&format!(
        "for i in $(seq {ADDRESSES}); do
            ip addr add fd00::beef:$i/128 dev xenbr0
            for try in 1 2 3 4 5 6; do
                ping -6 -n -q -c 1 -W 1 -I fd00::beef:$i {} >/dev/null && continue 2
            done
            echo fd00::beef:$i got no answer
            exit 1
        done",
        echo.v6
    ))?;
    let kept_back = kept_back()? - before;
    bench.dom0(&format!(
        "for i in $(seq {ADDRESSES}); do ip addr del fd00::beef:$i/128 dev xenbr0; done; ip -6 neigh flush dev xenbr0"
    ))?;
    ensure!(kept_back >= ADDRESSES, "only {kept_back} of {ADDRESSES} were kept back");
    for address in [http.v6, echo.v6] {
        bench.dom0(&format!("ping -6 -n -q -c 3 {address}"))?;
    }
    bench
        .peer(&format!("http [{}]:80 / --requests 20 --expect Fata", http.v6))
        .map(drop)
}

/// A DHCP server in dom0 that ends with the value.
struct DhcpServer<'a>(&'a Bench<'a>);

impl Drop for DhcpServer<'_> {
    fn drop(&mut self) {
        // The host is thrown away if it cannot even do this.
        let _ = self
            .0
            .dom0("kill $(cat /run/test-udhcpd.pid); rm -f /run/test-udhcpd.leases");
    }
}

fn dhcp_server<'a>(bench: &'a Bench<'a>) -> Result<DhcpServer<'a>, Failure> {
    bench.dom0(
        "cat >/run/test-udhcpd.conf <<'END'\n\
         start 10.0.0.240\nend 10.0.0.240\ninterface xenbr0\npidfile /run/test-udhcpd.pid\n\
         lease_file /run/test-udhcpd.leases\noption subnet 255.255.255.0\noption router 10.0.0.1\n\
         option dns 10.0.0.1\noption lease 3600\nEND\n\
         : >/run/test-udhcpd.leases; busybox udhcpd /run/test-udhcpd.conf",
    )?;
    Ok(DhcpServer(bench))
}

pub(super) fn dhcp_gives_an_address(bench: &Bench<'_>) -> Result<(), Failure> {
    let _server = dhcp_server(bench)?;
    let guest = bench.guest("http")?;
    let http = bench.start(guest.vif(&bench.mac()))?;
    http.says("10.0.0.240")?;
    bench.peer("http 10.0.0.240:80 / --expect Fata").map(drop)
}

pub(super) fn names_are_resolved(bench: &Bench<'_>) -> Result<(), Failure> {
    bench.dom0(
        "dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --listen-address=10.0.0.1 --bind-interfaces \
         --pid-file=/run/test-dnsmasq.pid --address=/printer.test/10.0.0.77 --address=/printer.test/fd00::77",
    )?;
    let outcome = (|| {
        let probe = bench.start(bench.server("probe", "-- resolve printer.test")?)?;
        let console = probe.ends_with(0)?;
        ensure!(console.contains("10.0.0.77"), "no address:\n{console}");
        let probe = bench.start(bench.server("probe", "-- resolve nobody.test")?)?;
        let console = probe.ends_with(1)?;
        ensure!(console.contains("error: "), "no error:\n{console}");
        Ok(())
    })();
    bench.dom0("kill $(cat /run/test-dnsmasq.pid)")?;
    outcome
}

pub(super) fn two_interfaces(bench: &Bench<'_>) -> Result<(), Failure> {
    let guest = bench.server("probe", "net1.ipv4=10.0.0.230/24 -- interfaces")?;
    let probe = bench.start(guest.vif("00:16:3e:00:ff:01"))?;
    let console = probe.ends_with(0)?;
    for text in ["net0", "net1", "10.0.0.230"] {
        ensure!(console.contains(text), "`{text}` is missing:\n{console}");
    }
    Ok(())
}

pub(super) fn a_storm_of_events_does_not_stop_the_serving(bench: &Bench<'_>) -> Result<(), Failure> {
    let (echo, port) = bench.start_with_rogue_vif(bench.server("echo", "")?)?;
    echo.says("listening")?;
    let id = bench.host.domain(&echo.name)?.map_or(0, |domain| domain.id);
    let storm = format!("--domain {id} --storm {port}");
    bench.peer(&format!("echo {}:7 --bytes {} {storm}", echo.v4, 1 << 20))?;
    bench
        .peer(&format!("udp {}:7 --requests 100 --bytes 512", echo.v4))
        .map(drop)
}
