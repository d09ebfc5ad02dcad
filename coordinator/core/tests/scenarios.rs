//! The scenarios in `tests/scenarios/`, one test each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod scenario;
mod world;

use scenario::Scenario;

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                Scenario::run(include_str!(concat!("scenarios/", stringify!($name), ".txt")));
            }
        )*

        /// A file that no test reads would look like a test.
        #[test]
        fn every_scenario_is_run() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .filter_map(|file| file.strip_suffix(".txt").map(str::to_owned))
                .collect();
            files.sort();
            let mut run = vec![$(stringify!($name).to_owned()),*];
            run.sort();
            assert_eq!(files, run);
        }
    };
}

scenarios! {
    a_cancelled_payment_is_one_whose_coins_came_back,
    a_child_pays_for_its_parent_and_dies_with_it,
    a_foreign_spend_makes_an_attempt_dead_only_at_depth_k,
    a_lost_deposit_ends_what_spends_it_only_at_depth_k,
    a_new_anchor_only_when_every_attempt_is_dead,
    a_payment_id_binds_its_content_for_ever,
    a_payment_of_another_wallet_takes_one_along_only_at_its_own_depth,
    a_payment_replaced_after_the_backup_is_not_paid_again,
    a_payment_settles_at_depth_k,
    a_payment_that_ended_before_the_backup_is_not_ordered_again,
    a_reorg_below_k_frees_nothing,
    a_reorg_of_k_blocks_freezes_the_wallet,
    a_reservation_takes_all_or_none,
    a_restored_state_signs_nothing_until_it_is_confirmed,
    a_second_transaction_for_one_payment_is_refused,
    a_stale_fence_is_refused,
    a_transaction_spends_what_is_reserved_and_pays_what_is_owed,
    address_indices_are_never_reused,
    an_end_that_is_undone_is_no_end,
    an_external_signer_may_fence_and_nobody_else,
    an_undone_end_allows_no_new_anchor,
    change_from_before_the_opt_in_is_spent_after_it,
    coinbases_mature_at_100,
    coins_of_one_address_have_owners_of_their_own,
    coins_of_undone_foreign_spends_are_held_back,
    dust_is_refused,
    expiry_frees_reserved_but_never_exposed,
    fees_have_caps,
    only_plain_signatures_are_recorded,
    only_the_owner_may_renew_release_and_pay,
    own_unconfirmed_change_is_spent_where_the_wallet_opted_in,
    replacements_spend_the_anchor_and_pay_more,
    requests_are_answered_once,
    reserved_coins_may_be_spent_by_others,
    velocity_and_reserved_share_are_limited,
    wallets_without_a_signer_are_only_reserved_from,
}
