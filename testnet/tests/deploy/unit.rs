//! What is wrong with the unit file for systemd.

/// What it must say, word for word.
const NEEDED: [&str; 18] = [
    "Type=notify",
    "Restart=always",
    "RestartPreventExitStatus=2",
    "StartLimitIntervalSec=0",
    "StateDirectory=onespend onespend-signer",
    "UMask=0077",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallFilter=@system-service",
    "LimitCORE=0",
];

/// `deadline_ms` is the node's own: systemd must not kill it before.
pub fn faults(unit: &str, deadline_ms: u64) -> Vec<String> {
    let lines: Vec<&str> = unit.lines().collect();
    let missing = NEEDED.iter().filter(|needed| !lines.contains(needed));
    let mut faults: Vec<String> = missing.map(|needed| format!("it does not say {needed}")).collect();
    match number(&lines, "TimeoutStopSec=") {
        Some(seconds) if seconds * 1000 > deadline_ms => {}
        other => faults.push(format!("TimeoutStopSec is {other:?}, the node's deadline {deadline_ms} ms")),
    }
    if lines.iter().any(|line| line.starts_with("Requires=")) {
        faults.push("a node without bitcoind still votes: it must not require it".to_owned());
    }
    if lines.iter().any(|line| line.starts_with("WatchdogSec=")) {
        faults.push("the node sends no watchdog messages".to_owned());
    }
    faults
}

fn number(lines: &[&str], key: &str) -> Option<u64> {
    lines.iter().find_map(|line| line.strip_prefix(key)?.parse().ok())
}

/// The value of a key of the sample configuration, which shows the defaults.
pub fn sample_number(sample: &str, key: &str) -> Option<u64> {
    number(&sample.lines().collect::<Vec<_>>(), &format!("{key} = "))
}

#[test]
fn each_fault_of_a_unit_is_caught() {
    let good = NEEDED.join("\n") + "\nTimeoutStopSec=20\n";
    assert_eq!(faults(&good, 15_000), Vec::<String>::new());
    assert_eq!(faults(&good, 20_000).len(), 1, "it would be killed at its own deadline");
    assert_eq!(faults(&good.replace("TimeoutStopSec=20\n", ""), 15_000).len(), 1);
    assert_eq!(faults(&good.replace("yes", "no"), 15_000).len(), 7);
    assert_eq!(faults(&good.replace("Type=notify", "#Type=notify"), 15_000).len(), 1);
    assert_eq!(faults(&(good.clone() + "Requires=bitcoind.service"), 15_000).len(), 1);
    assert_eq!(faults(&(good + "WatchdogSec=5"), 15_000).len(), 1);
    assert_eq!(sample_number("drain_ms = 5000\ndeadline_ms = 15000\n", "deadline_ms"), Some(15_000));
    assert_eq!(sample_number("drain_ms = 5000\n", "deadline_ms"), None);
}
