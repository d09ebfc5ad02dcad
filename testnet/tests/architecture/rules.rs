//! The rules: functions from text to faults, and proof that each of them can fail.

use std::collections::BTreeMap;

use crate::rust_text::{code_of, without_tests, words};

/// Lines of a file without its tests.
pub const MAX_FILE_LINES: usize = 500;
pub const BANNED_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"];
/// Package, its folder, the packages of this workspace that it may depend on.
pub const ARROWS: [(&str, &str, &[&str]); 6] = [
    ("onespend-core", "coordinator/core", &[]),
    ("onespend-adapters", "adapters", &["onespend-core"]),
    ("onespend-policies", "policies", &["onespend-core"]),
    ("onespend-proto", "proto", &[]),
    ("onespend", "coordinator/node", &["onespend-adapters", "onespend-policies", "onespend-proto", "onespend-core"]),
    ("onespend-testnet", "testnet", &["onespend", "onespend-proto", "onespend-core"]),
];
/// Everything that core may use; its manifest proves that it cannot block, wait or fail.
pub const CORE_DEPENDENCIES: [&str; 4] = ["bitcoin", "miniscript", "minicbor", "thiserror"];
/// Words that core's code may not contain, outside its tests.
pub const IMPURE: [&str; 15] = [
    "async",
    "await",
    "tokio",
    "rand",
    "thread_rng",
    "HashMap",
    "HashSet",
    "SystemTime",
    "Instant",
    "UNIX_EPOCH",
    "Mutex",
    "tracing",
    "println",
    "eprintln",
    "OsRng",
];
/// Modules of std that core may not name.
pub const IMPURE_STD: [&str; 7] = ["time", "fs", "net", "env", "io", "process", "thread"];

/// The crates that only the raft folder may name.
pub const OPENRAFT: [&str; 4] = ["openraft", "openraft_macros", "openraft_rt", "openraft_rt_tokio"];

/// What reads the wall clock, or gives it another name, as code without blanks.
pub const WALL_CLOCKS: [&str; 8] = [
    "SystemTime::now",
    "SystemTimeas",
    "UNIX_EPOCH.elapsed",
    "OffsetDateTime::now",
    "Utc::now",
    "Local::now",
    "clock::wall",
    "wall_ms()",
];
/// The files and folders that may ask the wall clock, and what for. Nothing in them decides about money (safety 16); a
/// new one has to say here why it does not.
pub const MAY_ASK_THE_WALL_CLOCK: [(&str, &str); 17] = [
    ("coordinator/node/src/clock.rs", "the node's only way to it"),
    ("coordinator/node/src/cli/", "for people to read"),
    ("coordinator/node/src/backup/", "when a backup was made, for people and for the wait until the next"),
    ("coordinator/node/src/bitcoind/probe.rs", "how old the tip is, by which a bitcoind may be out of sync"),
    ("coordinator/node/src/grpc/expiry.rs", "how long it is until a time that a caller names"),
    ("coordinator/node/src/grpc/reservation_view.rs", "logical times, for people to read"),
    ("coordinator/node/src/history.rs", "since when a leader leads, for people to read"),
    ("coordinator/node/src/raft/propose.rs", "a note in each entry, for people to read"),
    ("coordinator/node/src/survivor.rs", "a note in the audit, for people to read"),
    ("coordinator/node/src/pki.rs", "how long a new certificate is good"),
    ("adapters/src/failpoints.rs", "a clock that is wrong on demand"),
    ("adapters/src/signer/audit.rs", "when something was signed, for people to read"),
    ("adapters/src/signer/memory/operator.rs", "when something was noted, for people to read"),
    ("adapters/src/chain/fake/ledger.rs", "the time of a block that a test makes up"),
    ("testnet/src/chaos/caller/expiry.rs", "what a caller asks for who names a time"),
    ("testnet/src/seed.rs", "a seed that nobody has named"),
    ("testnet/src/ports.rs", "where the search for a free port begins"),
];

pub fn arrow_faults(dependencies: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (package, found) in dependencies {
        let Some((_, _, allowed)) = ARROWS.iter().find(|(name, _, _)| name == package) else {
            faults.push(format!("{package} is not a crate of the design"));
            continue;
        };
        for dependency in found {
            if dependency.starts_with("onespend") && !allowed.contains(&dependency.as_str()) {
                faults.push(format!("{package} → {dependency} is not an arrow of the design"));
            }
            if package == "onespend-core" && !CORE_DEPENDENCIES.contains(&dependency.as_str()) {
                faults.push(format!("core depends on {dependency}"));
            }
            if dependency.starts_with("openraft") && package != "onespend" {
                faults.push(format!("{package} depends on {dependency}"));
            }
        }
    }
    faults
}

/// Features that only the harness may switch on.
pub const HARNESS_FEATURES: [&str; 2] = ["failpoints", "sabotage"];

/// What of a package, as `cargo metadata` has it, would put a feature of the harness into an ordinary build.
pub fn feature_faults(package: &serde_json::Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let is_harness = |feature: &serde_json::Value| {
        let feature = feature.as_str().unwrap_or_default();
        HARNESS_FEATURES.iter().any(|known| feature.split('/').any(|part| part == *known))
    };
    let array = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let mut faults = Vec::new();
    if array(&package["features"]["default"]).iter().any(|feature| !feature.is_null()) {
        faults.push(format!("{name} has default features"));
    }
    for dependency in array(&package["dependencies"]) {
        if array(&dependency["features"]).iter().any(is_harness) {
            faults.push(format!("{name} switches a feature of the harness on in {}", dependency["name"]));
        }
    }
    for target in array(&package["targets"]) {
        let target_name = target["name"].as_str().unwrap_or_default();
        let is_harness_bin = HARNESS_FEATURES.iter().any(|feature| target_name.ends_with(feature));
        if is_harness_bin && !array(&target["required-features"]).iter().any(is_harness) {
            faults.push(format!("{name} builds {target_name} without being asked to"));
        }
    }
    faults
}

pub fn name_faults(path: &str) -> Vec<String> {
    path.split('/')
        .map(|part| part.strip_suffix(".rs").unwrap_or(part))
        .filter(|part| BANNED_NAMES.contains(part))
        .map(|part| format!("{path}: {part} says nothing; name it by its domain noun"))
        .collect()
}

/// Whether a file holds nothing but tests: in a tests folder, or `tests.rs` or `…_tests.rs` beside what it tests.
pub fn is_tests(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
}

pub fn size_faults(path: &str, text: &str) -> Vec<String> {
    let lines = without_tests(text).lines().count();
    if lines > MAX_FILE_LINES { vec![format!("{path}: {lines} lines without its tests")] } else { Vec::new() }
}

pub fn word_faults(path: &str, text: &str, banned: &[&str]) -> Vec<String> {
    let code = code_of(text);
    words(&code).filter(|word| banned.contains(word)).map(|word| format!("{path} names {word}")).collect()
}

pub fn purity_faults(path: &str, text: &str) -> Vec<String> {
    let code = without_tests(text);
    let mut faults: Vec<String> =
        words(&code).filter(|word| IMPURE.contains(word)).map(|word| format!("{path} names {word}")).collect();
    let flat: String = code.split_whitespace().collect();
    for module in IMPURE_STD {
        let imports = [
            format!("std::{module}::"),
            format!("std::{module};"),
            format!("std::{{{module}"),
            format!("core::{module}::"),
        ];
        if imports.iter().any(|import| flat.contains(import.as_str())) {
            faults.push(format!("{path} names std::{module}"));
        }
    }
    faults
}

pub fn openraft_faults(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("coordinator/node/src/raft/") {
        return Vec::new();
    }
    let code = code_of(text);
    words(&code).filter(|word| OPENRAFT.contains(word)).map(|word| format!("{path} names {word}")).collect()
}

pub fn asks_the_wall_clock(text: &str) -> Option<&'static str> {
    let flat: String = without_tests(text).split_whitespace().collect();
    WALL_CLOCKS.into_iter().find(|clock| flat.contains(clock))
}

pub fn wall_clock_faults(path: &str, text: &str) -> Vec<String> {
    if is_tests(path) || MAY_ASK_THE_WALL_CLOCK.iter().any(|(place, _)| path.starts_with(place)) {
        return Vec::new();
    }
    asks_the_wall_clock(text).map(|clock| format!("{path} has {clock}")).into_iter().collect()
}

pub fn wildcard_arm_faults(path: &str, text: &str) -> Vec<String> {
    let code = without_tests(text);
    let flat = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let wild = [" _ => ", " _ if ", "(_) => "].iter().filter(|arm| flat.contains(*arm));
    let wild = wild.map(|arm| format!("{path} has the arm `{}`", arm.trim()));
    wild.chain(named_catch_alls(&flat).map(|name| format!("{path} has the arm `{name} =>`"))).collect()
}

/// Code that switches clippy's ceiling for functions off.
pub fn ceiling_faults(path: &str, text: &str) -> Vec<String> {
    let off = without_tests(text).contains("allow(clippy::too_many_lines");
    if off { vec![format!("{path} switches the ceiling for functions off")] } else { Vec::new() }
}

/// Names that stand alone before an arrow: they take whatever is left, as `_` does.
fn named_catch_alls(flat: &str) -> impl Iterator<Item = &str> {
    flat.split(" => ").filter_map(|before| {
        let (rest, name) = before.rsplit_once(' ')?;
        let begins_arm = rest.ends_with(['{', ',', '}']);
        let is_binding = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        (begins_arm && is_binding && !["true", "false"].contains(&name)).then_some(name)
    })
}

#[test]
fn a_feature_of_the_harness_in_an_ordinary_build_is_caught() {
    let faults = |package: serde_json::Value| feature_faults(&package).len();
    let fine = serde_json::json!({
        "name": "onespend",
        "features": {"failpoints": ["onespend-adapters/failpoints"]},
        "dependencies": [{"name": "onespend-adapters", "features": []}],
        "targets": [{"name": "onespend-failpoints", "required-features": ["failpoints"]}, {"name": "onespend"}],
    });
    assert_eq!(faults(fine), 0);
    assert_eq!(faults(serde_json::json!({"features": {"default": ["failpoints"]}})), 1);
    let dependency = serde_json::json!({"name": "onespend-adapters", "features": ["sabotage"]});
    assert_eq!(faults(serde_json::json!({"dependencies": [dependency]})), 1);
    assert_eq!(faults(serde_json::json!({"targets": [{"name": "onespend-sabotage"}]})), 1);
}

#[test]
fn a_wrong_arrow_is_caught() {
    let faults = |package: &str, dependency: &str| {
        arrow_faults(&BTreeMap::from([(package.to_owned(), vec![dependency.to_owned()])])).len()
    };
    assert_eq!(faults("onespend-adapters", "onespend"), 1);
    assert_eq!(faults("onespend-core", "tokio"), 1);
    assert_eq!(faults("onespend-adapters", "openraft"), 1);
    assert_eq!(faults("onespend-extra", "bitcoin"), 1);
    assert_eq!(faults("onespend", "onespend-core"), 0);
}

#[test]
fn a_meaningless_name_and_a_huge_file_are_caught() {
    assert_eq!(name_faults("adapters/src/utils.rs").len(), 1);
    assert_eq!(name_faults("adapters/src/helpers/mod.rs").len(), 1);
    assert_eq!(name_faults("adapters/src/store/mod.rs").len(), 0);
    assert!(is_tests("adapters/tests/chain.rs") && is_tests("coordinator/node/src/pki_tests.rs"));
    assert!(!is_tests("testnet/src/oracle/attests.rs"));
    let long = "// a line\n".repeat(MAX_FILE_LINES + 1);
    assert_eq!(size_faults("a.rs", &long).len(), 1);
    assert_eq!(size_faults("a.rs", &format!("#[cfg(test)]\n{long}")).len(), 0);
    assert_eq!(size_faults("a.rs", &format!("#[cfg(test)]\nmod tests {{\n{long}}}\n")).len(), 0);
    for below in TEST_ONLY_ITEMS {
        assert_eq!(size_faults("a.rs", &format!("{below}\n{long}")).len(), 1, "{below}");
    }
}

/// Items that only tests have, each of another form.
const TEST_ONLY_ITEMS: [&str; 10] = [
    "#[cfg(test)]\nmod tests;",
    "#[cfg(test)]\n#[path = \"a;_tests.rs\"]\nmod tests;",
    "#[cfg(test)]\n/// Says; something {\n#[allow(dead_code)]\npub(crate) mod specimen;",
    "#[cfg(test)]\npub(crate) use crate::simulation::{TaskSet, tasks::{now, sleep}};",
    "#[cfg(test)]\nconst SIZES: [u8; 2] = [1, 2];",
    "#[cfg(test)]\nconst LIMITS: u64 = Limits { bytes: 1 }.total();",
    "#[cfg(test)]\nfn peek(bytes: [u8; 2]) -> char { if bytes[0] == 1 { '{' } else { '}' } }",
    "#[cfg(test)]\nmod tests { fn one() { two(); } }",
    "// Not `#[cfg(test)]` as in \"#[cfg(test)]\".\nfn look() {}",
    "impl Look { #[cfg(test)]\nfn peek<A, B>(&self, a: A) -> Option<B> { None } fn look() {} }",
];

#[test]
fn an_item_for_tests_hides_nothing_but_itself() {
    for item in TEST_ONLY_ITEMS {
        let with = |below: &str| format!("{item}\n{below}\n");
        let faults = |below: &str| purity_faults("a.rs", &with(below)).len();
        assert_eq!((faults(""), faults("let now = SystemTime::now();")), (0, 1), "{item}");
        assert_eq!(wildcard_arm_faults("a.rs", &with("match x {\n  A => 1,\n  _ => 2,\n}")).len(), 1, "{item}");
        assert_eq!(ceiling_faults("a.rs", &with("#[allow(clippy::too_many_lines)]\nfn f() {}")).len(), 1, "{item}");
        assert_eq!(wall_clock_faults("a.rs", &with("fn f() { wall_ms(); }")).len(), 1, "{item}");
    }
    let inside = "#[cfg(test)]\nmod tests {\n  #[allow(clippy::too_many_lines)]\n  fn f() { SystemTime::now(); }\n}\n";
    assert_eq!(purity_faults("a.rs", inside), Vec::<String>::new());
    assert_eq!(wall_clock_faults("a.rs", inside), Vec::<String>::new());
    assert_eq!(ceiling_faults("a.rs", inside), Vec::<String>::new());
    for beside in [
        "mod a {\n  #[cfg(test)]\n  mod b { fn f() {} }\n  fn g() { SystemTime::now(); }\n}\n",
        "struct Look {\n  #[cfg(test)]\n  peeked: BTreeMap<u8, u8>,\n  seen: SystemTime,\n}\n",
        "struct Look {\n  seen: u8,\n  #[cfg(test)]\n  peeked: BTreeMap<u8, u8>\n}\nfn g() { SystemTime::now(); }\n",
    ] {
        assert_eq!(purity_faults("a.rs", beside).len(), 1, "{beside}");
    }
}

#[test]
fn impure_code_is_caught_and_comments_about_it_are_not() {
    for impure in [
        "use std::time::Duration;",
        "use std::{time::Duration};",
        "use std::fs;",
        "let map: HashMap<u8, u8> = x;",
        "async fn f() {}",
        "let x = rand::random();",
    ] {
        assert_eq!(purity_faults("a.rs", impure).len(), 1, "{impure}");
    }
    for pure in [
        "// std::time::Instant is not used here, nor HashMap",
        "/* rand */ use std::collections::BTreeMap;",
        "let text = \"HashMap \\\" rand\"; let raw = r#\"a \"tokio\" b\"#;",
        "let lifetime: &'static str = x; let c = '\"'; let d = 'a';",
        "#[cfg(test)]\nmod tests { use std::time::Instant; }",
    ] {
        assert_eq!(purity_faults("a.rs", pure), Vec::<String>::new(), "{pure}");
    }
}

#[test]
fn openraft_and_unsafe_in_the_wrong_place_are_caught() {
    assert_eq!(openraft_faults("coordinator/node/src/app.rs", "use openraft::Raft;").len(), 1);
    assert_eq!(openraft_faults("coordinator/node/src/raft/log.rs", "use openraft::Raft;").len(), 0);
    assert_eq!(openraft_faults("coordinator/node/src/app.rs", "// openraft is behind raft/").len(), 0);
    assert_eq!(word_faults("a.rs", "let x = unsafe { y };", &["unsafe"]).len(), 1);
    assert_eq!(word_faults("a.rs", "#![forbid(unsafe_code)]", &["unsafe"]).len(), 0);
}

#[test]
fn a_wall_clock_in_the_wrong_place_is_caught() {
    for asks in [
        "let now = SystemTime::now();",
        "let now = std::time::SystemTime\n    ::now();",
        "use std::time::SystemTime as Clock;",
        "let since = UNIX_EPOCH.elapsed();",
        "let now = OffsetDateTime::now_utc();",
        "let now = crate::clock::wall();",
        "let made = wall_ms();",
        "fn look() {}\n#[cfg(test)]\nfn peek() {}\nfn decide() { SystemTime::now(); }",
    ] {
        assert_eq!(wall_clock_faults("coordinator/node/src/raft/leadership.rs", asks).len(), 1, "{asks}");
        assert_eq!(wall_clock_faults("coordinator/node/src/clock.rs", asks), Vec::<String>::new());
        assert_eq!(wall_clock_faults("coordinator/node/src/cli/format.rs", asks), Vec::<String>::new());
        assert_eq!(wall_clock_faults("testnet/tests/chaos.rs", asks), Vec::<String>::new());
    }
    for fine in [
        "// SystemTime::now would be wrong here",
        "let now = Instant::now();",
        "let read = SystemTime::try_from(time).ok();",
        "let text = \"SystemTime::now\";",
    ] {
        assert_eq!(wall_clock_faults("coordinator/node/src/raft/leadership.rs", fine), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn a_wildcard_arm_is_caught() {
    assert_eq!(wildcard_arm_faults("a.rs", "match x {\n  A => 1,\n  _ => 2,\n}").len(), 1);
    assert_eq!(wildcard_arm_faults("a.rs", "match x {\n  A => 1,\n  _ if y => 2,\n}").len(), 1);
    assert_eq!(wildcard_arm_faults("a.rs", "match x {\n  A => { 1 }\n  rest => 2,\n}").len(), 1);
    assert_eq!(wildcard_arm_faults("a.rs", "match x {\n  A => 1,\n  rest => 2,\n}").len(), 1);
    assert_eq!(wildcard_arm_faults("a.rs", "match x { A | B => 1, C(_, y) => y }").len(), 0);
    assert_eq!(wildcard_arm_faults("a.rs", "match x { true => 1, false => 2 }").len(), 0);
}
