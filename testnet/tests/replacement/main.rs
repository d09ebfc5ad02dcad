//! Payments that are replaced, cancelled, helped by a child, or signed for outside, on one cluster of real processes:
//! three nodes, three bitcoinds on regtest. What bitcoind's mempools and blocks hold decides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod change;
mod lost;
mod outside;
mod permits;
mod recovery;
mod replace;
mod scene;

use scene::Scene;
use tokio::runtime::Runtime;

#[test]
fn payments_are_replaced_cancelled_and_signed_outside_and_paid_at_most_once() {
    let runtime = Runtime::new().unwrap();
    let scene = runtime.block_on(async {
        let mut scene = Scene::start("replacement").await;
        replace::a_bump_replaces_the_payment_in_every_mempool(&mut scene).await;
        replace::an_older_attempt_that_is_mined_settles_the_payment(&mut scene).await;
        replace::a_cancelled_payment_gives_its_coins_back(&mut scene).await;
        replace::a_psbt_replaces_an_attempt_without_a_reservation(&mut scene).await;
        replace::what_cannot_be_replaced_is_refused(&mut scene).await;
        change::a_child_pays_for_its_parent(&mut scene).await;
        change::unconfirmed_change_is_spent_where_the_wallet_opted_in(&mut scene).await;
        outside::a_permit_is_signed_outside_and_submitted(&mut scene).await;
        outside::a_permit_is_submitted_later_by_whoever_may_pay_and_another_leader_records_it(&mut scene).await;
        outside::a_quorum_of_keys_signs_a_permit(&mut scene).await;
        outside::a_fenced_attempt_is_aborted_and_its_coins_are_free(&mut scene).await;
        permits::a_callers_own_transaction_is_permitted_signed_outside_and_submitted(&mut scene).await;
        permits::an_older_permit_that_is_signed_pays_and_the_newer_is_given_up(&mut scene).await;
        permits::a_cancellation_is_permitted_and_signed_outside(&mut scene).await;
        outside::single_coins_are_followed_without_a_descriptor(&mut scene).await;
        lost::a_payment_whose_deposit_was_double_spent_ends_when_an_operator_declares_it_lost(&mut scene).await;
        recovery::a_restored_folder_signs_nothing_until_an_operator_confirms(&mut scene).await;
        recovery::folders_put_back_without_a_mark_are_noticed_by_what_a_signer_remembers(&mut scene).await;
        scene
    });
    scene.finish();
}
