//! Clusters of real processes: three nodes, three bitcoinds on regtest, HAProxy. Each test is named for the property
//! that it checks. They take turns, because each needs the machine for itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod bystander;
mod custom_checks;
mod divergence;
mod drain;
mod expiry;
mod footprint;
mod forwarding;
mod goaway;
mod handover;
mod health;
mod health_watch;
mod isolation;
mod membership;
mod pause;
mod relocation;
mod reorganisation;
mod restart;
mod routing;
mod scaling;
mod scene;
mod shutdown;
mod traces;
mod transfer;
mod watch;
