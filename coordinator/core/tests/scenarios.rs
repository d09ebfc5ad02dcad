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
    a_foreign_spend_makes_an_attempt_dead_only_at_depth_k,
    a_payment_id_binds_its_content_for_ever,
    a_payment_settles_at_depth_k,
    a_reorg_below_k_frees_nothing,
    a_reorg_of_k_blocks_freezes_the_wallet,
    a_reservation_takes_all_or_none,
    a_second_transaction_for_one_payment_is_refused,
    a_stale_fence_is_refused,
    a_transaction_spends_what_is_reserved_and_pays_what_is_owed,
    address_indices_are_never_reused,
    coinbases_mature_at_100,
    coins_of_undone_foreign_spends_are_held_back,
    dust_is_refused,
    expiry_frees_reserved_but_never_exposed,
    fees_have_caps,
    only_plain_signatures_are_recorded,
    only_the_owner_may_renew_release_and_pay,
    requests_are_answered_once,
    reserved_coins_may_be_spent_by_others,
    wallets_without_a_signer_are_only_reserved_from,
}
