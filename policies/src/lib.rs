//! Who may do what: from a caller's role to a permit.
//!
//! [`Policy::authorize`] yields an [`Authorized`], which nothing outside this crate can make. The
//! step after authorization demands one, so no handler can forget to ask.
//!
//! This crate does no IO and reads no clock; a decision depends on its arguments alone. The first
//! policy is the [`RoleTable`]; an engine with written policies takes the same place later.

mod action;
mod decision;
mod subject;
mod table;

pub use action::{Action, Class};
pub use decision::{Authorized, Denied, Policy};
pub use subject::{CallerId, Resource, Role, Subject, WalletName};
pub use table::RoleTable;
