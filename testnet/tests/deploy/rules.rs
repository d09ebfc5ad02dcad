//! The alerts of a rule file, and which of them its tests raise and do not raise. promtool has judged the YAML before;
//! this reads the shape that our two files keep.

use std::collections::BTreeSet;

/// One alert.
#[derive(Debug, PartialEq, Eq)]
pub struct Alert {
    pub name: String,
    pub expression: String,
    pub severity: String,
    /// The code of `alarms` in `/status`, where the alert says the same.
    pub alarm: Option<String>,
    pub runbook: String,
}

pub fn alerts(text: &str) -> Vec<Alert> {
    let blocks = text.split("\n      - alert: ").skip(1);
    let alert = |block: &str| {
        let name = block.lines().next().unwrap().to_owned();
        let need = |key: &str| value(block, key).unwrap_or_else(|| panic!("{name} has no {key}"));
        for key in ["for", "summary", "description"] {
            assert!(!need(key).is_empty(), "{name}: {key} is empty");
        }
        Alert {
            expression: need("expr"),
            severity: need("severity"),
            alarm: value(block, "alarm"),
            runbook: need("runbook_url"),
            name,
        }
    };
    blocks.map(alert).collect()
}

/// What follows a key, on its line or, as a block, below it.
fn value(block: &str, key: &str) -> Option<String> {
    let mut lines = block.lines().skip_while(|line| !line.trim_start().starts_with(&format!("{key}: ")));
    let first = lines.next()?;
    let inline = first.split_once(": ")?.1;
    if !["|", ">-"].contains(&inline) {
        return Some(inline.to_owned());
    }
    let indent = |line: &str| line.len() - line.trim_start().len();
    let below: Vec<&str> = lines.take_while(|line| indent(line) > indent(first)).map(str::trim).collect();
    Some(below.join("\n"))
}

/// The names of the alerts that the tests raise, and of those that they want quiet.
pub fn tested(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut raised, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for check in text.split("alertname: ").skip(1) {
        let mut lines = check.lines();
        let name = lines.next().unwrap().to_owned();
        let is_quiet = lines.next().unwrap().trim() == "exp_alerts: []";
        if is_quiet {
            quiet.insert(name)
        } else {
            raised.insert(name)
        };
    }
    (raised, quiet)
}

#[test]
fn alerts_and_their_tests_are_read() {
    let text = "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: |\n          a\n          > 1\n        \
                for: 1m\n        labels:\n          severity: warning\n          alarm: X\n        annotations:\n          \
                summary: \"s\"\n          description: >-\n            d\n            e\n          runbook_url: u#v\n      \
                - alert: B\n        expr: b\n        for: 0m\n        labels:\n          severity: critical\n        \
                annotations:\n          summary: \"s\"\n          description: d\n          runbook_url: w\n";
    let found = alerts(text);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].expression.as_str(), found[0].alarm.as_deref()), ("a\n> 1", Some("X")));
    assert_eq!((found[1].expression.as_str(), found[1].runbook.as_str()), ("b", "w"));
    assert_eq!((found[1].name.as_str(), found[1].alarm.as_ref()), ("B", None));
    let (raised, quiet) =
        tested("- alertname: A\n  exp_alerts: []\n- alertname: B\n  exp_alerts:\n    - exp_labels:\n");
    assert_eq!((raised, quiet), (BTreeSet::from(["B".to_owned()]), BTreeSet::from(["A".to_owned()])));
}
