//! What callers are told where no coins could be chosen for them.

use onespend_core::outcome::Rejection;
use tonic::Status;
use tonic_types::ErrorDetails;

use super::details::{build, per_vb};
use super::status;
use crate::selection::Order;

/// Coins may be there and be too young for the order, or too small for its feerate: so it is said what was counted.
pub(super) fn unselected(rejection: &Rejection, order: &Order<'_>) -> Status {
    let Rejection::InsufficientFunds { needed_sat, available_sat } = rejection else {
        return status::rejected(rejection);
    };
    let depth = order.min_depth.max(1);
    let confirmations = if depth == 1 { "confirmation" } else { "confirmations" };
    let message = format!(
        "{needed_sat} sat are needed, {available_sat} sat can be spent now: by one transaction, of free coins with at \
         least {depth} {confirmations} that bring more than they cost at {} sat/vB",
        per_vb(order.feerate_sat_kvb)
    );
    let (code, reason) = status::code(rejection);
    build(code, reason, &message, status::metadata(rejection), ErrorDetails::new())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_core::command::Recipient;
    use onespend_core::wallet::Keychain;
    use onespend_proto::v1::ErrorReason;
    use tonic_types::StatusExt;

    use super::*;
    use crate::selection::{Busy, Strategy, select};
    use crate::specimen::{Coin, accept, register, script, started, wallet};

    /// What an order is told for which the coins do not suffice.
    fn told(coins: &[Coin], feerate_sat_kvb: u64, min_depth: u32) -> Status {
        let view = started();
        accept(&view, register("w", coins));
        let wallet = wallet("w");
        let recipients = [Recipient { script: script("x", Keychain::External, 0), amount_sat: 500_000 }];
        let strategy = Strategy::LowestFee;
        let order = Order { wallet: &wallet, recipients: &recipients, feerate_sat_kvb, min_depth, strategy };
        unselected(&select(&view, &Busy::default(), &order).err().unwrap(), &order)
    }

    #[test]
    fn coins_that_do_not_count_are_not_said_to_be_missing() {
        // 68 vB at 100 000 sat/vB are 6 800 000 sat.
        let small = told(&[Coin::of(1_000_000)], 100_000_000, 0);
        let message = small.message();
        assert!(message.contains(" 0 sat can be spent now") && message.contains("1 confirmation that"), "{message}");
        assert!(message.contains("cost at 100000.000 sat/vB"), "{message}");
        assert!(status::is_for(&small, ErrorReason::InsufficientFunds), "{small:?}");
        let info = small.get_details_error_info().unwrap();
        assert_eq!(info.metadata.get("available_sat").map(String::as_str), Some("0"));

        let young = told(&[Coin { depth: 2, ..Coin::of(1_000_000) }], 2_000, 3);
        assert!(young.message().contains("at least 3 confirmations"), "{young:?}");
        let poor = told(&[Coin::of(400_000)], 2_000, 1);
        assert!(poor.message().contains(" 400000 sat can be spent now"), "{poor:?}");
    }

    #[test]
    fn another_refusal_is_told_as_ever() {
        let (wallet, strategy) = (wallet("w"), Strategy::LowestFee);
        let order = Order { wallet: &wallet, recipients: &[], feerate_sat_kvb: 1_000, min_depth: 1, strategy };
        let refused = unselected(&Rejection::WalletUnknown { wallet: Some("w".to_owned()) }, &order);
        assert!(status::is_for(&refused, ErrorReason::WalletUnknown), "{refused:?}");
    }
}
