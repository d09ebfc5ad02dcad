//! Logs and traces.

mod config;

pub use config::{Config, LogConfig, LogFormat};
