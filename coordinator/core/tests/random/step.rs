//! The steps that a stream is made of, and how often each comes.

use proptest::prelude::*;

use crate::world::wallets::{SINGLE, fixtures};

pub const CALLERS: [&str; 3] = ["client/payouts", "client/sweeps", "operator/alice"];
/// Those of the first wallets that this service signs for.
pub const SIGNED_FOR: usize = 2;

/// One step. Numbers choose among what is there at that moment.
#[derive(Debug, Clone)]
pub enum Step {
    Wait(u64),
    Fund { wallet: usize, address: u32, sat: u64 },
    SpendOutside(usize),
    Mine { wanted: u32, coinbase_to: Option<usize> },
    Reorganise { depth: usize, mined: usize, wanted: u32 },
    DoubleSpend { at: usize, mined: usize, wanted: u32 },
    DeclareLost { at: usize, lie: u8, undo: bool },
    WrongFacts { kind: u8, wanted: u32 },
    Register { wallet: usize, depth: u32 },
    Limit { wallet: usize, depth: u32 },
    Freeze(usize),
    Unfreeze(usize),
    GiveAddresses { wallet: usize, internal: bool, count: u32 },
    Follow { coins: Vec<usize>, fault: u8 },
    Reserve { wallet: usize, caller: usize, coins: Coins, ttl: u64, payment: Option<u8>, selected: bool },
    Renew { at: usize, caller: usize, ttl: u64 },
    Release { at: usize, caller: usize, others: bool },
    Expire(Vec<usize>),
    Create { wallet: usize, caller: usize, payment: u8, other_content: bool, coins: Coins, fee: u64 },
    Pay { at: usize, caller: usize, payment: u8, fee: u64, fault: u8 },
    Sign { at: usize, spoilt: bool },
    Relay { at: usize, refused: bool },
    Broadcast(usize),
    Replace { at: usize, caller: usize, cancel: bool, fee: u64, more: usize },
    Child { at: usize, caller: usize, fee: u64 },
    Abort { at: usize, honest: bool },
    Recover(u8),
    ReleaseHeld(usize),
    AskAgain { at: usize, how: Again },
    Nobody(usize),
    Skip,
    Reload,
}

#[derive(Debug, Clone)]
pub enum Coins {
    Free(usize, usize),
    Any(Vec<usize>),
    Change(usize),
}

#[derive(Debug, Clone, Copy)]
pub enum Again {
    Same,
    OtherContent,
    OtherCaller,
    OldIndex,
}

pub fn steps() -> impl Strategy<Value = Step> {
    let wallet = 0..fixtures().len();
    let first = prop_oneof![8 => 0..SIGNED_FOR, 3 => Just(2), 1 => Just(3_usize), 1 => Just(SINGLE)];
    let caller = 0..CALLERS.len();
    let some = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    let coins = prop::collection::vec(some(), 1..4);
    let chosen = prop_oneof![4 => (0..3_usize, 1..4_usize).prop_map(|(skip, take)| Coins::Free(skip, take)), 1 => coins.prop_map(Coins::Any), 1 => (0..3_usize).prop_map(Coins::Change)];
    let payment = 0..6_u8;
    let ttl = prop_oneof![8 => 1_000..60_000_u64, 1 => Just(0_u64), 1 => Just(u64::MAX)];
    let again = prop_oneof![
        4 => Just(Again::Same),
        1 => Just(Again::OtherContent),
        1 => Just(Again::OtherCaller),
        1 => Just(Again::OldIndex)
    ];
    let deep = prop_oneof![6 => Just(1_usize), 3 => Just(2_usize), 1 => 3..6_usize];
    let fault = prop_oneof![2 => Just(0_u8), 1 => 1..15_u8];
    let lie = prop_oneof![2 => Just(0_u8), 1 => 1..7_u8];
    prop_oneof![
        5 => (1..30_000_u64).prop_map(Step::Wait),
        12 => (wallet.clone(), 0..12_u32, 20_000..500_000_u64)
            .prop_map(|(wallet, address, sat)| Step::Fund { wallet, address, sat }),
        5 => some().prop_map(Step::SpendOutside),
        14 => (any::<u32>(), prop::option::weighted(0.1, wallet.clone()))
            .prop_map(|(wanted, coinbase_to)| Step::Mine { wanted, coinbase_to }),
        2 => (deep, 0..3_usize, any::<u32>())
            .prop_map(|(depth, more, wanted)| Step::Reorganise { depth, mined: depth + more - 1, wanted }),
        2 => (some(), 0..5_usize, any::<u32>()).prop_map(|(at, mined, wanted)| Step::DoubleSpend { at, mined, wanted }),
        4 => (some(), prop_oneof![3 => Just(0_u8), 1 => 1..5_u8], prop::bool::weighted(0.25))
            .prop_map(|(at, lie, undo)| Step::DeclareLost { at, lie, undo }),
        2 => (0..12_u8, any::<u32>()).prop_map(|(kind, wanted)| Step::WrongFacts { kind, wanted }),
        1 => (wallet.clone(), 1..5_u32).prop_map(|(wallet, depth)| Step::Register { wallet, depth }),
        2 => (wallet.clone(), 0..8_u32).prop_map(|(wallet, depth)| Step::Limit { wallet, depth }),
        1 => wallet.clone().prop_map(Step::Freeze),
        5 => wallet.prop_map(Step::Unfreeze),
        3 => (first.clone(), any::<bool>(), 0..4_u32)
            .prop_map(|(wallet, internal, count)| Step::GiveAddresses { wallet, internal, count }),
        16 => (first.clone(), caller.clone(), chosen.clone(), ttl.clone(), prop::option::weighted(0.2, payment.clone()), any::<bool>())
            .prop_map(|(wallet, caller, coins, ttl, payment, selected)| {
                Step::Reserve { wallet, caller, coins, ttl, payment, selected }
            }),
        4 => (prop::collection::vec(some(), 1..4), lie).prop_map(|(coins, fault)| Step::Follow { coins, fault }),
        3 => (some(), caller.clone(), ttl).prop_map(|(at, caller, ttl)| Step::Renew { at, caller, ttl }),
        4 => (some(), caller.clone(), any::<bool>())
            .prop_map(|(at, caller, others)| Step::Release { at, caller, others }),
        4 => prop::collection::vec(some(), 0..5).prop_map(Step::Expire),
        10 => (first, caller.clone(), payment.clone(), prop::bool::weighted(0.1), chosen, 0..3_000_u64)
            .prop_map(|(wallet, caller, payment, other_content, coins, fee)| {
                Step::Create { wallet, caller, payment, other_content, coins, fee }
            }),
        10 => (some(), caller, payment, 300..3_000_u64, fault)
            .prop_map(|(at, caller, payment, fee, fault)| Step::Pay { at, caller, payment, fee, fault }),
        10 => (some(), prop::bool::weighted(0.2)).prop_map(|(at, spoilt)| Step::Sign { at, spoilt }),
        3 => (some(), any::<bool>()).prop_map(|(at, refused)| Step::Relay { at, refused }),
        10 => some().prop_map(Step::Broadcast),
        12 => (some(), 0..CALLERS.len(), prop::bool::weighted(0.3), 300..2_600_u64, 0..3_usize)
            .prop_map(|(at, caller, cancel, fee, more)| Step::Replace { at, caller, cancel, fee, more }),
        6 => (some(), 0..CALLERS.len(), 300..2_600_u64).prop_map(|(at, caller, fee)| Step::Child { at, caller, fee }),
        2 => (some(), prop::bool::weighted(0.7)).prop_map(|(at, honest)| Step::Abort { at, honest }),
        2 => (0..8_u8).prop_map(Step::Recover),
        2 => some().prop_map(Step::ReleaseHeld),
        8 => (some(), again).prop_map(|(at, how)| Step::AskAgain { at, how }),
        2 => some().prop_map(Step::Nobody),
        1 => Just(Step::Skip),
        2 => Just(Step::Reload),
    ]
}
