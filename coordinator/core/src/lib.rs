//! The rules of onespend: one deterministic state machine.
//!
//! This crate does no IO, reads no clock, draws no random number and logs nothing, and so cannot block, wait or
//! fail; its manifest proves it. A request that changes something is a [`command::Entry`] in the replicated log, and
//! [`apply::apply`] is the one function that decides what becomes of it, on every node alike.
//!
//! | module | holds |
//! |---|---|
//! | [`ids`] | newtypes for names and numbers |
//! | [`command`] | every possible change, with its facts and its time pinned |
//! | [`state`] | what all replicas agree on; [`table`] is one table of it, `index` what is derived |
//! | [`apply`] | one match; returns an [`outcome::Outcome`] |
//! | [`wallet`], [`utxo`] | descriptors and addresses; coins and who has a claim on them |
//! | [`reservation`] | reserve, renew, release, expire; `recent`: which entry changed one, for followers |
//! | [`payment`], [`transaction`] | payments and attempts; building and checking unsigned transactions |
//! | [`replacement`] | fee bumps, by replacement and by child, and cancellation |
//! | [`settlement`] | how attempts end, and whose coins are free then |
//! | [`lost`] | coins that were reorganised away and cannot come back |
//! | [`unconfirmed`] | change that is in no block yet, and how much of it may hang together |
//! | [`signing`] | intents, and the permits that signers demand |
//! | [`chain`] | blocks connected and disconnected, with undo; `facts` checks what they are said to bring |
//! | [`limits`], [`spending`] | bounds, fee caps, and what left a wallet within a time |
//! | [`recovery`], [`restored`], [`audit`] | a restored state, and how it begins; what an operator did, or must see |
//! | [`dedup`] | request id → earlier outcome |
//! | [`invariant`] | what must always hold |

pub mod apply;
pub mod audit;
pub mod chain;
mod codec;
pub mod command;
pub mod dedup;
mod facts;
pub mod feature;
pub mod ids;
mod index;
pub mod invariant;
pub mod limits;
pub mod lost;
pub mod outcome;
pub mod payment;
mod recent;
pub mod recovery;
pub mod replacement;
pub mod reservation;
pub mod restored;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod settlement;
pub mod signing;
pub mod spending;
pub mod state;
pub mod table;
pub mod transaction;
pub mod unconfirmed;
pub mod utxo;
pub mod wallet;
