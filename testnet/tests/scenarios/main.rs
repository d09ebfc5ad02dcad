//! Scenarios by name: what has gone wrong elsewhere, or could, each played by clusters of real processes with a bitcoind
//! beside each node, and judged by blocks and signers' logs. The list is in `docs/src/safety.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blocks;
mod chain;
mod disk;
mod draft;
mod full;
mod gray;
mod late;
mod lost;
mod outside;
mod prompt;
mod pruned;
mod race;
mod replaced;
mod scene;
mod slow;
mod tmpfs;
mod upgrade;

use scene::{Scene, Stage};

/// Those that leave the nodes and the chain as they were share one cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_race_are_replaced_and_reorganised_and_coins_have_one_owner() {
    let coins = lost::MANY + 48;
    let mut scene = Scene::start(Stage { name: "shared", coins, ..Stage::default() }).await;
    let mut paid = race::of_two_psbts_for_one_attempt_exactly_one_is_signed(&mut scene).await;
    replaced::a_third_attempt_that_leaves_the_anchor_out_is_refused(&mut scene).await;
    replaced::an_older_replacement_that_confirms_is_the_payment(&mut scene).await;
    paid.extend(race::a_cancellation_that_races_a_block_ends_as_the_block_says(&mut scene).await);
    replaced::a_reorganisation_that_swaps_an_attempt_for_another_frees_nothing(&mut scene).await;
    outside::a_reserved_coin_that_somebody_else_spends_is_signed_for_by_nobody(&mut scene).await;
    outside::a_reservation_ends_when_the_foreign_spend_of_its_coin_is_taken_back(&mut scene).await;
    paid.push(outside::a_coin_that_an_operator_releases_from_quarantine_pays_again(&mut scene).await);
    let after_conflicts =
        outside::a_conflict_that_only_mempools_hold_neither_ends_nor_frees_a_payment(&mut scene).await;
    lost::a_large_reservation_whose_last_coin_is_taken_holds_nothing_and_is_refused_again(&mut scene).await;
    let mut paid: Vec<&str> = paid.iter().map(String::as_str).collect();
    paid.extend(["chain", "middle", "swapped"]);
    paid.extend(after_conflicts);
    scene.settle_and_judge(&paid).await;
    scene.finish().await;
}
