//! TEMPORARY main until the command line is merged.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::expect_used)]
use onespend::{app, config::Config, pki};
fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| args.iter().position(|a| a == name).map(|i| args[i + 1].clone());
    match args[0].as_str() {
        "serve" => {
            let config = match Config::load(std::path::Path::new(&flag("--config").unwrap())) { Ok(c) => c, Err(e) => { eprintln!("{e}"); std::process::exit(2) } };
            if let Err(e) = app::serve(config) { eprintln!("error: {e:#}"); std::process::exit(1) }
        }
        "pki" => {
            let dir = flag("--dir").unwrap(); let dir = std::path::Path::new(&dir);
            if args[1] == "init" { pki::init(dir, &flag("--cluster").unwrap()).unwrap(); } else {
                let n = args.len();
                let kind = match args[n-2].as_str() { "node" => pki::Kind::Node, "client" => pki::Kind::Client, _ => pki::Kind::Operator };
                let hosts = flag("--host").into_iter().collect::<Vec<_>>();
                pki::issue(dir, kind, &args[n-1], &hosts, 365).unwrap();
            }
        }
        _ => std::process::exit(2),
    }
}
