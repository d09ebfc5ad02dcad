//! The gRPC servers: the data plane for wallet back ends, the control plane for nodes and operators.
//!
//! A request goes down these files once and comes up once:
//!
//! | step | file |
//! |---|---|
//! | which rpc, and where it runs | `services.rs` |
//! | who calls; may they; does this node lead, else pass it on | `api.rs`, `caller.rs`, `about.rs`, `forward.rs`, `reads.rs` |
//! | wire to domain types, every fault named | `fields.rs`, then the rpc's own file |
//! | the decision, by the log | `decide.rs`, `turns.rs` |
//! | domain types to wire | `*_view.rs`, `page.rs`; `watch.rs` for streams |
//! | what fuzzers call | `intake.rs` |
//! | what the data port says about itself | `reflection.rs`, `health_check.rs` |
//! | refusals to status codes | `status.rs`, `psbt_status.rs`, `alarm_status.rs`, `selection_status.rs`, `details.rs`; `oversize.rs` for messages that are not read |

mod abort_attempt;
mod about;
mod alarm_status;
pub(crate) mod api;
mod bump_fee;
mod bump_fee_cpfp;
mod caller;
mod cancel_payment;
mod chain_view;
mod change_wallet;
mod confirm_recovery;
mod create_backup;
mod create_payment;
pub(crate) mod decide;
mod declare_lost;
mod details;
mod drain_node;
mod expiry;
mod fee_rule;
pub(crate) mod fields;
pub(crate) mod forward;
mod get_balance;
mod get_history;
mod get_payment;
mod get_recovery;
mod get_reservation;
mod get_status;
mod get_wallet;
mod health_check;
pub(crate) mod intake;
mod list_audit_events;
mod list_payments;
mod list_reservations;
mod list_utxos;
mod list_wallets;
mod membership;
mod new_address;
mod observe;
mod oversize;
mod page;
pub(crate) mod payment_view;
mod psbt_status;
mod reads;
mod reflection;
mod register_outpoints;
mod register_wallet;
mod release_quarantined;
mod release_reservation;
mod renew_reservation;
mod reservation_view;
mod reserve_utxos;
mod selection_status;
pub(crate) mod server;
mod services;
mod sign_payment;
mod sign_psbt;
mod status;
mod submit_signed_transaction;
mod transfer_leadership;
pub(crate) mod turns;
mod utxo_view;
mod wallet_view;
mod watch;
mod watch_payments;
mod watch_reservations;

pub(crate) use chain_view::own_view;
pub(crate) use observe::{Answered, answered};
