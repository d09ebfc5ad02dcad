//! The files of `docs/deploy/container`, without a container engine: what the images are made of is there, a node's
//! configuration is one, and the parts name each other rightly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use onespend::config::Config;
use onespend_testnet::programs;

use crate::{assert_none, read, root, unit};

pub const FOLDER: &str = "docs/deploy/container";
const CONTAINERFILE: &str = "docs/deploy/container/Containerfile";
const COMPOSE: &str = "docs/deploy/container/compose.yaml";
const IMAGES: &str = "docs/deploy/container/images.sh";
const SAMPLE: &str = "coordinator/node/onespend.sample.toml";
const NODES: u64 = 3;
/// Images, by the names of their stages; each has another, `…-ready`, that takes programs which are built already.
const STAGES: [&str; 3] = ["node", "pki", "bitcoind"];

/// One stage of a Containerfile.
#[derive(Debug, Clone, Default)]
struct Stage {
    base: String,
    lines: Vec<(String, String)>,
}

/// The stages by name, and the arguments before them. Lines are not continued in ours.
fn stages(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, Stage>) {
    let (mut arguments, mut stages, mut open) = (BTreeMap::new(), BTreeMap::<String, Stage>::new(), String::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (instruction, rest) = line.split_once(' ').unwrap();
        match instruction {
            "ARG" => {
                let (name, value) = rest.split_once('=').unwrap();
                arguments.insert(name.to_owned(), value.to_owned());
            }
            "FROM" => {
                let (base, name) = rest.split_once(" AS ").unwrap_or((rest, ""));
                name.clone_into(&mut open);
                stages.insert(open.clone(), Stage { base: base.to_owned(), lines: Vec::new() });
            }
            _ => stages.get_mut(&open).unwrap().lines.push((instruction.to_owned(), rest.to_owned())),
        }
    }
    (arguments, stages)
}

/// What a stage says, its bases before it.
fn said<'a>(stages: &'a BTreeMap<String, Stage>, name: &str) -> Vec<&'a (String, String)> {
    let Some(stage) = stages.get(name) else { return Vec::new() };
    said(stages, &stage.base).into_iter().chain(&stage.lines).collect()
}

/// The last word on something, which is what holds.
fn last<'a>(said: &[&'a (String, String)], instruction: &str) -> &'a str {
    said.iter().rfind(|(name, _)| name == instruction).map_or("", |(_, rest)| rest)
}

/// What a stage copies: owner, source without the folder of the build stage, destination.
fn copies(said: &[&(String, String)]) -> Vec<(String, String, String)> {
    let copies = said.iter().filter(|(name, _)| name == "COPY");
    let copy = |words: &str| {
        let (options, paths): (Vec<&str>, Vec<&str>) = words.split(' ').partition(|word| word.starts_with("--"));
        let owner = options.iter().find_map(|option| option.strip_prefix("--chown=")).unwrap_or("0:0");
        let source = paths[0].strip_prefix("/files/").unwrap_or(paths[0]);
        (owner.to_owned(), source.to_owned(), paths[1].to_owned())
    };
    copies.map(|(_, rest)| copy(rest)).collect()
}

/// What is wrong with the Containerfile, beside the files that it copies.
fn containerfile_faults(text: &str, sample: &str, rust_version: &str) -> Vec<String> {
    let (arguments, stages) = stages(text);
    let mut faults = Vec::new();
    for name in STAGES {
        let image = said(&stages, name);
        if copies(&image).is_empty() || copies(&image) != copies(&said(&stages, &format!("{name}-ready"))) {
            faults.push(format!("{name} is not the same as {name}-ready: {:?}", copies(&image)));
        }
        let user = last(&image, "USER").split(':').next().and_then(|id| id.parse::<u32>().ok());
        if user.is_none_or(|id| id == 0) {
            faults.push(format!("{name} has user {user:?}: the system must see that it is not root, without names"));
        }
        let outside = |stage: &Stage| !stages.contains_key(&stage.base) && stage.base != "scratch";
        if stages.get(&format!("{name}-ready")).is_none_or(outside) {
            faults.push(format!("{name}-ready is made from what must be pulled"));
        }
    }
    let node = said(&stages, "node");
    let listen: toml::Table = sample.parse().unwrap();
    let ports = listen["listen"].as_table().unwrap().values().map(|address| address.as_str().unwrap());
    let ports: BTreeSet<u16> = ports.map(|address| address.parse::<SocketAddr>().unwrap().port()).collect();
    let exposed: BTreeSet<u16> = last(&node, "EXPOSE").split(' ').filter_map(|port| port.parse().ok()).collect();
    if exposed != ports {
        faults.push(format!("it exposes {exposed:?}, a node listens on {ports:?}"));
    }
    if !last(&node, "HEALTHCHECK").ends_with("CMD [\"/usr/bin/onespend\", \"health\", \"/livez\"]") {
        faults.push("the node's health is asked in another way".to_owned());
    }
    if stages.get("").is_none_or(|stage| stage.base != "node") {
        faults.push("without a target, something else than a node is built".to_owned());
    }
    if !arguments.get("RUST").is_some_and(|image| image.contains(&format!("rust:{rust_version}-"))) {
        faults.push(format!("{arguments:?} is not Rust {rust_version}"));
    }
    faults
}

#[test]
fn the_images_are_small_and_alike_and_no_root() {
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let rust_version = workspace["workspace"]["package"]["rust-version"].as_str().unwrap();
    let (text, sample) = (read(CONTAINERFILE), read(SAMPLE));
    let faults = |text: &str| containerfile_faults(text, &sample, rust_version);
    assert_none(&faults(&text));
    for (from, to) in [
        ("COPY --from=build /files/node/ /", "COPY --from=build /files/bitcoind/ /"),
        ("USER 10002:10001", "USER root"),
        ("FROM scratch AS bitcoind-settings\nUSER 10002:10001", "FROM scratch AS bitcoind-settings"),
        ("EXPOSE 7800 7801 7802", "EXPOSE 7800 7801"),
        ("\"health\", \"/livez\"", "\"status\""),
        ("rust:1.", "rust:2."),
        ("\nFROM node\n", "\nFROM pki\n"),
        ("FROM node-settings AS node-ready", "FROM debian AS node-ready"),
    ] {
        assert!(text.contains(from), "it does not say {from} any more");
        assert!(!faults(&text.replace(from, to)).is_empty(), "{to} is not caught");
    }
    let (_, stages) = stages(&text);
    let place = |name: &str| text.find(&format!(" AS {name}\n")).unwrap();
    let ready = STAGES.map(|name| place(&format!("{name}-ready")));
    assert!(
        stages.contains_key("build") && ready.iter().all(|at| *at < place("build")),
        "an old builder would compile"
    );
}

/// files.sh is run on the programs that are there; with them lie their libraries and nothing that could be a shell.
#[test]
fn what_the_images_copy_is_laid_out() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("files");
    let (onespend, bitcoind) = (programs::onespend().unwrap(), programs::bitcoind().unwrap());
    let lay_out = || {
        let script = root().join(FOLDER).join("files.sh");
        Command::new(script).arg(&onespend).arg(&bitcoind).arg(&files).output().unwrap()
    };
    let output = lay_out();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!lay_out().status.success(), "it would mix two layouts");

    let (_, stages) = stages(&read(CONTAINERFILE));
    let ready = STAGES.map(|name| format!("{name}-ready"));
    let copied: BTreeSet<String> =
        ready.iter().flat_map(|name| copies(&said(&stages, name))).map(|(_, source, _)| source).collect();
    let made: BTreeSet<String> =
        fs::read_dir(&files).unwrap().map(|entry| format!("{}/", entry.unwrap().file_name().display())).collect();
    assert_eq!(made, copied);

    let libraries = Command::new("ldd").arg(&onespend).output().unwrap();
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    let libraries: Vec<&str> = libraries.split_whitespace().filter(|word| word.starts_with('/')).collect();
    let inside = |path: &str| files.join("node").join(path.trim_start_matches('/'));
    for file in libraries.iter().chain(&[
        "/usr/bin/onespend",
        "/etc/nsswitch.conf",
        "/etc/passwd",
        "/etc/ssl/certs/ca-certificates.crt",
    ]) {
        assert!(inside(file).is_file(), "a node has no {file}");
    }
    for root in ["node", "bitcoind"] {
        let shells = ["bin/sh", "usr/bin/sh", "bin/bash"].map(|shell| files.join(root).join(shell));
        assert!(!shells.iter().any(|shell| shell.exists()), "{root} has a shell");
    }
    assert!(files.join("pki/bin/sh").is_file() && files.join("pki/usr/bin/pki.sh").is_file());
}

#[test]
fn the_scripts_are_sound() {
    for name in ["files.sh", "images.sh", "pki.sh"] {
        let output = Command::new("bash").arg("-n").arg(root().join(FOLDER).join(name)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The part of compose.yaml that is one service's.
fn service<'a>(compose: &'a str, name: &str) -> &'a str {
    let begin = compose.find(&format!("\n  {name}:\n")).unwrap_or_else(|| panic!("no service {name}"));
    let rest = &compose[begin + 1..];
    let mut lines = rest.match_indices("\n  ").map(|(at, _)| at);
    let end = lines.find(|at| rest[at + 3..].starts_with(|c: char| c.is_ascii_lowercase()));
    &rest[..end.unwrap_or(rest.len())]
}

#[test]
fn each_node_of_the_compose_file_has_a_configuration_that_a_node_takes() {
    let (compose, text) = (read(COMPOSE), read(&format!("{FOLDER}/node.toml")));
    for id in 1..=NODES {
        let service = service(&compose, &format!("node-{id}"));
        let url = format!("http://bitcoind-{id}:18443");
        let variables = [("ONESPEND_NODE__ID", id.to_string()), ("ONESPEND_BITCOIND__URL", url)];
        for (name, value) in &variables {
            assert!(service.contains(&format!("{name}: \"{value}\"")), "node-{id} does not set {name}: {service}");
        }
        for volume in ["tls", "data", "signer", "cookie"] {
            assert!(service.contains(&format!("- {volume}-{id}:/")), "node-{id} has no {volume} of its own");
            assert_eq!(service.matches(&format!("- {volume}-")).count(), 1, "node-{id} sees another's {volume}");
        }
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let config = Config::parse(&text, Path::new("/etc/onespend/node.toml"), &variables);
        let config = config.unwrap_or_else(|faults| panic!("node-{id}: {faults:?}"));
        assert_eq!(config.peers.len(), 3);
        let peer = config.this_peer().unwrap();
        assert_eq!(
            (peer.control.to_string(), peer.data.to_string()),
            (format!("node-{id}:7801"), format!("node-{id}:7800"))
        );
    }
}

#[test]
fn the_compose_file_names_what_is_there() {
    let (compose, script) = (read(COMPOSE), read(IMAGES));
    let (_, stages) = stages(&read(CONTAINERFILE));
    for name in STAGES {
        assert!(compose.contains(&format!("target: {name} }}")), "nobody builds {name}");
        assert!(stages.contains_key(name) && script.contains(&format!("build {name}-ready ")), "{name}");
    }
    let defaults = |text: &str| -> BTreeSet<String> {
        let words = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
        words.map(|(word, _)| word.to_owned()).filter(|word| word.contains("IMAGE:-")).collect()
    };
    assert_eq!(defaults(&compose), defaults(&script), "the images have other names");
    assert_eq!(defaults(&compose).len(), STAGES.len());
    let mounted: Vec<&str> = compose.split([' ', '"', '\n']).filter(|word| word.starts_with("./")).collect();
    assert_eq!(mounted.len(), 6, "{mounted:?}");
    for file in mounted.into_iter().map(|word| word.split(':').next().unwrap()) {
        assert!(root().join(FOLDER).join(file).is_file(), "there is no {file} to mount");
    }
    let deadline_ms = unit::sample_number(&read(SAMPLE), "deadline_ms").unwrap();
    let grace = compose.split("# More than [shutdown] deadline_ms, 15 s.\n  stop_grace_period: ").nth(1).unwrap();
    let grace_s: u64 = grace.split('s').next().unwrap().parse().unwrap();
    assert!(grace_s * 1000 > deadline_ms, "a node is killed after {grace_s} s, its own deadline is {deadline_ms} ms");
}
