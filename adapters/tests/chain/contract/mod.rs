//! Cases that hold for every implementation. Each gets a fresh regtest chain of its own.

mod blocks;
mod broadcast;
mod coins;
mod fees;
mod reorg;

use crate::driver::Driver;
use crate::regtest::{INDEXES, Regtest};
use onespend_adapters::chain::fake::FakeChain;

fn with_bitcoind(case: fn(&dyn Driver)) {
    if let Some(node) = Regtest::start(&INDEXES) {
        case(&node);
    }
}

fn with_fake(case: fn(&dyn Driver)) {
    case(&FakeChain::new());
}

/// Makes one test per case and implementation, named `CASE::bitcoind` and `CASE::fake`.
macro_rules! contract {
    ($($(#[$note:meta])* fn $case:ident($driver:ident: &dyn Driver) $body:block)*) => {
        $(
            $(#[$note])*
            mod $case {
                use super::*;

                fn case($driver: &dyn Driver) $body

                #[test]
                fn bitcoind() {
                    crate::contract::with_bitcoind(case);
                }

                #[test]
                fn fake() {
                    crate::contract::with_fake(case);
                }
            }
        )*
    };
}
use contract;
