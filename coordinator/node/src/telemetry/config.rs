//! What `[log]` and `[telemetry]` say.

use tracing_subscriber::EnvFilter;

use crate::config::{HostPort, Section};

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// Which events are written: tracing's directives, such as `info,onespend=debug`.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

impl LogConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        const FORMATS: &[(&str, LogFormat)] = &[("human", LogFormat::Human), ("json", LogFormat::Json)];
        let format = section.choice("format", FORMATS, Some("human"));
        let filter = section.text("filter", Some("info,openraft=error"));
        if let Err(error) = filter.parse::<EnvFilter>() {
            let why = format!("it must be directives such as info,onespend=debug: {error}");
            section.refuse("filter", format!("{filter:?} is not acceptable"), &why);
        }
        Self { format: format.unwrap_or(LogFormat::Human), filter }
    }
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `http://host:port` of an OTLP gRPC collector; `None` (written as "") turns traces off.
    pub otlp_endpoint: Option<String>,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        let endpoint = section.text("otlp_endpoint", Some(""));
        if !endpoint.is_empty()
            && let Err(why) = check_endpoint(&endpoint)
        {
            let what = format!("{endpoint:?} is not acceptable");
            section.refuse("otlp_endpoint", what, &why);
        }
        Self { otlp_endpoint: (!endpoint.is_empty()).then_some(endpoint) }
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let address = endpoint
        .strip_prefix("http://")
        .ok_or("it must be http://host:port; run a collector next to the node for TLS")?;
    let address = address.strip_suffix('/').unwrap_or(address);
    address.parse::<HostPort>().map(|_| ()).map_err(|why| format!("after http://, {why}"))
}
