//! The Debian package: that its metadata fits what it names, and that the package which is made of it is what the metadata
//! says.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use onespend_testnet::progress::say;

use crate::{UNIT, assert_none, read, root};

const CRATE: &str = "coordinator/node";
const SCRIPTS: &str = "docs/deploy/debian";
const UNITS: &str = "docs/deploy/systemd";
const MAKER: &str = "docs/deploy/debian/package.sh";
/// What gets the maker its cargo-deb.
const CARGO_DEB: &str = "testnet/cargo-deb.sh";
const USERS: &str = "docs/deploy/systemd/onespend.sysusers";
const FOLDERS: &str = "docs/deploy/systemd/onespend.tmpfile";
const SAMPLE: &str = "/etc/onespend/onespend.sample.toml";
/// How cargo-deb names the folder of what was built.
const BUILT: &str = "target/release/";
/// What package.sh makes lies there.
const EXTRAS: &str = "package/";
/// What the unit is told to do by installing, upgrading or removing the package: nothing but to stop when it goes.
const LEFT_ALONE: [&str; 4] = ["enable", "start", "restart-after-upgrade", "stop-on-upgrade"];
/// Files of the package, and their modes.
const CONTENTS: [(&str, &str); 12] = [
    ("/usr/bin/onespend", "-rwxr-xr-x"),
    (SAMPLE, "-rw-r--r--"),
    ("/usr/lib/systemd/system/onespend.service", "-rw-r--r--"),
    ("/usr/lib/sysusers.d/onespend.conf", "-rw-r--r--"),
    ("/usr/lib/tmpfiles.d/onespend.conf", "-rw-r--r--"),
    ("/usr/share/man/man1/onespend.1.gz", "-rw-r--r--"),
    ("/usr/share/man/man1/onespend-serve.1.gz", "-rw-r--r--"),
    ("/usr/share/bash-completion/completions/onespend", "-rw-r--r--"),
    ("/usr/share/zsh/vendor-completions/_onespend", "-rw-r--r--"),
    ("/usr/share/fish/vendor_completions.d/onespend.fish", "-rw-r--r--"),
    ("/usr/share/doc/onespend/copyright", "-rw-r--r--"),
    ("/usr/share/doc/onespend/operations.md", "-rw-r--r--"),
];

fn metadata() -> toml::Table {
    let manifest: toml::Table = read("coordinator/node/Cargo.toml").parse().unwrap();
    manifest["package"]["metadata"]["deb"].as_table().unwrap().clone()
}

/// A path of the metadata, from the root of the project.
fn from_root(path: &str) -> String {
    path.strip_prefix("../../").map_or_else(|| format!("{CRATE}/{path}"), str::to_owned)
}

/// What is wrong with the metadata. `maker` is the text of package.sh.
fn metadata_faults(metadata: &toml::Table, maker: &str, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for asset in metadata["assets"].as_array().unwrap() {
        let [source, place, mode] = [0, 1, 2].map(|at| asset[at].as_str().unwrap());
        let made = match source.strip_prefix(BUILT) {
            Some("onespend") => true,
            Some(built) => built.strip_prefix(EXTRAS).is_some_and(|extra| is_made(extra, maker)),
            None => is_there(&from_root(source)),
        };
        if !made {
            faults.push(format!("nobody makes {source}"));
        }
        if (place == "usr/bin/") != (mode == "755") || !["755", "644"].contains(&mode) {
            faults.push(format!("{place}{source} has mode {mode}"));
        }
        if place.starts_with('/') || !place.ends_with('/') {
            faults.push(format!("{place} is no folder below the root"));
        }
    }
    let units = metadata["systemd-units"].as_table().unwrap();
    for (key, folder) in [("maintainer-scripts", SCRIPTS), ("unit-scripts", UNITS)] {
        let named = metadata.get(key).or_else(|| units.get(key)).and_then(toml::Value::as_str);
        if named.map(from_root).as_deref() != Some(folder) {
            faults.push(format!("{key} is {named:?}"));
        }
    }
    let acts = LEFT_ALONE.iter().filter(|key| units.get(**key).and_then(toml::Value::as_bool) != Some(false));
    faults.extend(acts.map(|key| format!("{key} is not switched off: a node is run by whoever configured it")));
    let licence = metadata["license-file"][0].as_str().unwrap();
    if !is_there(&from_root(licence)) {
        faults.push(format!("there is no {licence}"));
    }
    faults
}

/// Whether package.sh makes what it calls `$extras/…`. Of a pattern, the folder counts.
fn is_made(extra: &str, maker: &str) -> bool {
    let extra = extra.strip_suffix("/*.1.gz").unwrap_or(extra);
    maker.contains(&format!("\"$extras/{extra}\""))
}

/// What of the unit, its user and its folders does not fit together.
fn unit_faults(unit: &str, users: &str, folders: &str) -> Vec<String> {
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let mut faults = Vec::new();
    if !value("ExecStart=").starts_with("/usr/bin/onespend serve ") {
        faults.push("it runs another program than the package brings".to_owned());
    }
    let user = value("User=");
    if user.is_empty() || user != value("Group=") || !users.contains(&format!("\nu {user} - ")) {
        faults.push(format!("nobody makes the user {user:?} with its group"));
    }
    for (parent, key) in [("/var/lib", "StateDirectory"), ("/var/log", "LogsDirectory")] {
        let mode = value(&format!("{key}Mode="));
        for name in value(&format!("{key}=")).split(' ') {
            let line = format!("\nd {parent}/{name} {mode} {user} {user} -\n");
            if !folders.contains(&line) {
                faults.push(format!("the folders lack{}", line.trim_end()));
            }
        }
    }
    faults
}

#[test]
fn the_package_names_what_is_there_and_leaves_the_node_alone() {
    let (metadata, maker) = (metadata(), read(MAKER));
    let is_there = |path: &str| root().join(path).is_file();
    assert_none(&metadata_faults(&metadata, &maker, is_there));
    assert_none(&unit_faults(&read(UNIT), &read(USERS), &read(FOLDERS)));

    let faults = |change: &dyn Fn(&mut toml::Table)| {
        let mut spoilt = metadata.clone();
        change(&mut spoilt);
        metadata_faults(&spoilt, &maker, is_there).len()
    };
    let asset = |spoilt: &mut toml::Table, at: usize, part: usize, text: &str| {
        spoilt["assets"].as_array_mut().unwrap()[at][part] = text.into();
    };
    assert_eq!(faults(&|spoilt| asset(spoilt, 1, 0, "gone.toml")), 1);
    assert_eq!(faults(&|spoilt| asset(spoilt, 0, 0, "target/release/onespend-sabotage")), 1);
    assert_eq!(faults(&|spoilt| asset(spoilt, 3, 0, "target/release/package/completions/gone")), 1);
    assert_eq!(faults(&|spoilt| asset(spoilt, 0, 2, "4755")), 1);
    assert_eq!(faults(&|spoilt| asset(spoilt, 1, 2, "755")), 1);
    assert_eq!(faults(&|spoilt| asset(spoilt, 1, 1, "/etc/onespend/")), 1);
    assert_eq!(faults(&|spoilt| spoilt["systemd-units"]["start"] = true.into()), 1);
    assert_eq!(faults(&|spoilt| spoilt["maintainer-scripts"] = "debian".into()), 1);
}

#[test]
fn a_unit_that_does_not_fit_its_user_or_folders_is_caught() {
    let (unit, users, folders) = (read(UNIT), read(USERS), read(FOLDERS));
    assert_eq!(unit_faults(&unit.replace("/usr/bin/", "/usr/local/bin/"), &users, &folders).len(), 1);
    assert!(!unit_faults(&unit.replace("User=onespend", "User=root"), &users, &folders).is_empty());
    assert_eq!(unit_faults(&unit, "", &folders).len(), 1);
    assert_eq!(unit_faults(&unit, &users, &folders.replace("0700", "0755")).len(), 3);
    assert_eq!(unit_faults(&unit, &users, &folders.replace("/var/log/", "/var/tmp/")).len(), 1);
}

/// cargo-deb puts its own part where the scripts say, and needs the place in each of them.
#[test]
fn the_maintainer_scripts_can_be_run_and_extended() {
    let scripts = ["postinst", "postrm"].map(|name| format!("{SCRIPTS}/{name}"));
    for script in &scripts {
        let text = read(script);
        assert!(text.starts_with("#!/bin/sh\nset -e\n") && text.contains("\n#DEBHELPER#\n"), "{script}");
    }
    for script in [scripts.as_slice(), &[MAKER, CARGO_DEB].map(str::to_owned)].concat() {
        let mode = fs::metadata(root().join(&script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not for running");
        let output = Command::new("bash").arg("-n").arg(root().join(&script)).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let pinned = |line: &str| line.starts_with("readonly version=");
    assert!(read(CARGO_DEB).lines().any(pinned), "{CARGO_DEB} names no version");
}

#[test]
fn a_purge_keeps_what_stands_between_a_payment_and_a_second_one() {
    let machine = tempfile::tempdir().unwrap();
    let place = |path: &str| machine.path().join(path);
    for folder in ["var/lib/onespend/log", "var/lib/onespend-signer", "var/log/onespend", "etc/onespend"] {
        fs::create_dir_all(place(folder)).unwrap();
    }
    let memory = "var/lib/onespend/signer-cold.db";
    for file in ["var/lib/onespend/log/raft.db", "var/lib/onespend-signer/hot.db", "etc/onespend/node.key", memory] {
        fs::write(place(file), "x").unwrap();
    }
    let run = |action: &str| {
        let script = root().join(SCRIPTS).join("postrm");
        let output = Command::new("sh").arg(script).arg(action).env("DPKG_ROOT", machine.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run("remove"), "");
    assert!(place("var/lib/onespend/log/raft.db").is_file(), "removing is not purging");
    let said = run("purge");
    assert!(!place("var/lib/onespend").exists() && !place("var/log/onespend").exists());
    assert!(place("var/lib/onespend-signer/hot.db").is_file() && place("etc/onespend/node.key").is_file());
    assert!(
        place("var/lib/onespend-signer/purged-1/signer-cold.db").is_file(),
        "the default place of a memory is the data folder"
    );
    assert_eq!(said.matches("was kept").count(), 2, "{said}");
    assert!(said.contains("comes back under a new one"), "{said}");
    assert!(!run("purge").contains("data is gone"), "a second time there is none");
}

/// The package to look at, which is made now; `None` without a release of the program.
fn package(folder: &Path) -> Option<PathBuf> {
    let this = std::env::current_exe().unwrap();
    let release = this.ancestors().nth(2).unwrap();
    if !release.ends_with("release") || !release.join("onespend").is_file() {
        return None;
    }
    let mut maker = Command::new(root().join(MAKER));
    maker.arg("--output").arg(folder).arg("--fast").env("CARGO_TARGET_DIR", release.parent().unwrap());
    let output = maker.output().unwrap();
    assert!(output.status.success(), "{MAKER}: {}", String::from_utf8_lossy(&output.stderr));
    let mut found = packages(folder);
    assert_eq!(found.len(), 1, "{MAKER} made {found:?}");
    found.pop()
}

fn packages(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_package = |path: &PathBuf| {
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("onespend_"));
        is_ours && path.extension().is_some_and(|extension| extension == "deb")
    };
    entries.map(|entry| entry.path()).filter(is_package).collect()
}

/// What dpkg-deb says to `question` about a package.
fn dpkg_deb(question: &str, package: &Path, folder: Option<&Path>) -> String {
    let output = Command::new("dpkg-deb").arg(question).arg(package).args(folder).output().unwrap();
    assert!(output.status.success(), "dpkg-deb {question}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Mode and owner of everything in a package, by path.
fn contents(listing: &str) -> BTreeMap<String, (String, String)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (mode, owner) = (words.next()?, words.next()?);
        let path = words.nth(3)?.strip_prefix('.')?;
        Some((path.to_owned(), (mode.to_owned(), owner.to_owned())))
    };
    listing.lines().filter_map(line).collect()
}

#[test]
fn the_package_that_was_made_is_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let Some(package) = package(folder.path()) else {
        say("SKIPPED: this is no release build, of which packages are made (make test)");
        return;
    };
    let control: BTreeMap<String, String> = dpkg_deb("--field", &package, None)
        .lines()
        .filter_map(|line| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect();
    assert_eq!(control["Package"], "onespend");
    assert_eq!(control["Version"], concat!(env!("CARGO_PKG_VERSION"), "-1"));
    for needed in ["libc6", "systemd | systemd-standalone-sysusers", "systemd | systemd-standalone-tmpfiles"] {
        assert!(control["Depends"].contains(needed), "it depends on {} only", control["Depends"]);
    }

    let contents = contents(&dpkg_deb("--contents", &package, None));
    for (path, mode) in CONTENTS {
        let found = contents.get(path).unwrap_or_else(|| panic!("{path} is not among {:?}", contents.keys()));
        // The names are left out by some versions of cargo-deb.
        let owner = found.1.replace("0/0", "root/root");
        assert_eq!((found.0.as_str(), owner.as_str()), (mode, "root/root"), "{path}");
    }
    let programs: Vec<&String> = contents.keys().filter(|path| path.starts_with("/usr/bin/o")).collect();
    assert_eq!(programs, ["/usr/bin/onespend"], "programs of the harness are not for operators");
    assert!(!contents.keys().any(|path| path.starts_with("/var")), "the node's folders are not dpkg's to remove");

    let inside = folder.path().join("inside");
    dpkg_deb("--extract", &package, Some(&inside));
    for (place, source) in [
        ("usr/lib/systemd/system/onespend.service", UNIT),
        ("usr/lib/sysusers.d/onespend.conf", USERS),
        ("usr/lib/tmpfiles.d/onespend.conf", FOLDERS),
        ("etc/onespend/onespend.sample.toml", "coordinator/node/onespend.sample.toml"),
    ] {
        assert_eq!(fs::read_to_string(inside.join(place)).unwrap(), read(source), "{place}");
    }
    scripts_are_right(&package, &folder.path().join("control"));
}

fn scripts_are_right(package: &Path, control: &Path) {
    dpkg_deb("--control", package, Some(control));
    let text = |name: &str| fs::read_to_string(control.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(text("conffiles").lines().collect::<Vec<_>>(), [SAMPLE]);
    let postinst = text("postinst");
    let at = |words: &str| postinst.find(words).unwrap_or_else(|| panic!("postinst has no {words}:\n{postinst}"));
    let tmpfiles = at("systemd-tmpfiles --create onespend.conf");
    assert!(at("systemd-sysusers") < tmpfiles, "the user is made before what belongs to it");
    for action in ["start", "restart", "try-restart"] {
        assert!(!postinst.contains(&format!("deb-systemd-invoke {action}")), "postinst does {action}");
    }
    assert!(text("prerm").contains("deb-systemd-invoke stop onespend.service"), "it goes on without its program");
    for name in ["postinst", "prerm", "postrm"] {
        assert!(!text(name).contains("#DEBHELPER#"), "{name} is not complete");
        let output = Command::new("sh").arg("-n").arg(control.join(name)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_listing_of_a_package_is_read() {
    let listing = "drwxr-xr-x root/root         0 2026-11-30 04:00 ./usr/\n\
                   -rwxr-xr-x root/root  12345678 2026-11-30 04:00 ./usr/bin/onespend\n";
    let contents = contents(listing);
    assert_eq!(contents.len(), 2);
    assert_eq!(contents["/usr/bin/onespend"], ("-rwxr-xr-x".to_owned(), "root/root".to_owned()));
}
