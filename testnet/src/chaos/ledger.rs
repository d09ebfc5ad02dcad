//! What was ordered, for the judge of the chain, and how many operations came to what.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use bitcoin::{Amount, ScriptBuf};
use tonic::Status;

use super::calls::Reply;
use crate::grpc::{self, Meaning};
use crate::oracle::chain::Orders;

/// Shared by all callers.
#[derive(Debug, Default)]
pub struct Ledger {
    closed: AtomicBool,
    operations: AtomicU64,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    resolved: AtomicU64,
    orders: Mutex<Vec<(ScriptBuf, String, Amount)>>,
}

/// How many operations came to what. A try more is not an operation more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of callers.
    pub operations: u64,
    /// With a good answer in the end.
    pub acknowledged: u64,
    /// Nobody knows what came of them, to the last.
    pub unknown: u64,
    /// Unknown for a while, until asking again told.
    pub resolved: u64,
}

impl Ledger {
    /// No more operations: callers end with the one they are at.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether callers should end.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// A recipient will be ordered to be paid; nobody else has this script.
    pub fn order(&self, script: &ScriptBuf, payment_id: &str, amount_sat: u64) {
        let order = (script.clone(), payment_id.to_owned(), Amount::from_sat(amount_sat));
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
    }

    /// For the judge of the chain.
    ///
    /// # Errors
    /// A script was ordered twice, which no seed has been seen to do.
    pub fn orders(&self) -> Result<Orders> {
        let mut orders = Orders::default();
        for (script, payment_id, amount) in &*self.orders.lock().unwrap_or_else(PoisonError::into_inner) {
            orders.add(script.clone(), payment_id, *amount)?;
        }
        Ok(orders)
    }

    /// An operation begins.
    pub fn count_operation(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// And ends.
    pub fn count_answer(&self, reply: &Result<Reply, Status>, was_unknown: bool) {
        let (acknowledged, unknown) = match reply {
            Ok(_) => (1, 0),
            Err(status) => (0, u64::from(grpc::meaning(status) == Meaning::Unknown)),
        };
        self.acknowledged.fetch_add(acknowledged, Ordering::Relaxed);
        self.unknown.fetch_add(unknown, Ordering::Relaxed);
        self.resolved.fetch_add(u64::from(was_unknown && unknown == 0), Ordering::Relaxed);
    }

    /// Until now.
    pub fn counts(&self) -> Counts {
        Counts {
            operations: self.operations.load(Ordering::Relaxed),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            resolved: self.resolved.load(Ordering::Relaxed),
        }
    }
}
