//! ListAuditEvents: what operators did, and what they must see, in order of the log.

use std::time::{Duration, UNIX_EPOCH};

use onespend_core::audit::AuditRecord;
use onespend_core::ids::{LogIndex, WalletId};
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::page::{self, Page};

pub(super) fn list_audit_events(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::ListAuditEventsRequest,
) -> Result<v1::ListAuditEventsResponse, Status> {
    let Parsed { size, wallet, first } = parse(message)?;
    let after = first.map_or(message.from_index, |first| first.saturating_sub(1).max(message.from_index));
    let mut page = Page::begin(Some(after.saturating_add(1)), api.page_bounds(size));
    while page.is_open() {
        api.replica.read(|state| {
            let before = page.at().map_or(after, |at| at.saturating_sub(1));
            let rows: Vec<(u64, LogIndex)> = state
                .audit_after(LogIndex(before))
                .take(page::MAX_LOOKED_AT_PER_HOLD + 1)
                .map(|(index, _)| (index.0, *index))
                .collect();
            page.look(rows.iter().map(|(key, index)| (key, *index)), |_, index| {
                let record = state.audit_record(index)?;
                wallet.as_ref().is_none_or(|wallet| record.concerns(wallet)).then(|| event(index, record))
            });
        });
    }
    let (events, next_page_token) = page.finish(u64::to_string);
    Ok(v1::ListAuditEventsResponse { events, next_page_token, read_info: Some(info) })
}

/// Which events are asked for.
pub(super) struct Parsed {
    size: usize,
    wallet: Option<WalletId>,
    /// The token names the first event of its page.
    first: Option<u64>,
}

pub(super) fn parse(message: &v1::ListAuditEventsRequest) -> Result<Parsed, Status> {
    let mut fields = Fields::default();
    let size = fields.page_size(message.page_size);
    let wallet = fields.optional_wallet_id(&message.wallet_id);
    let size = fields.finish(size)?;
    let first = page::start(&message.page_token, |text| text.parse::<u64>().ok())?;
    Ok(Parsed { size, wallet, first })
}

fn event(index: LogIndex, record: &AuditRecord) -> v1::AuditEvent {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(record.wall_ms)).unwrap_or(UNIX_EPOCH);
    v1::AuditEvent {
        index: index.0,
        caller: record.caller.as_ref().map(ToString::to_string).unwrap_or_default(),
        event: record.event.clone(),
        wallet_id: record.wallet.as_ref().map(ToString::to_string).unwrap_or_default(),
        detail: record.detail.clone(),
        time: Some(prost_types::Timestamp::from(time)),
    }
}
