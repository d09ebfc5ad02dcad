//! Messages that are too large, are none, or go nowhere.

use anyhow::{Context, Result};
use onespend_proto::v1;
use onespend_testnet::grpc::channel;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::door::{Clients, Who};
use crate::draft::{Draft, PAYEE};
use crate::refusal::refusal;
use crate::stage::{HOT, Stage, id, recipient};

const MIB: usize = 1024 * 1024;

fn order(recipients: usize, script_bytes: usize) -> v1::CreatePaymentRequest {
    let script = v1::recipient::Destination::Script(vec![0x51; script_bytes].into());
    let one = v1::Recipient { destination: Some(script), amount_sat: 10_000 };
    v1::CreatePaymentRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        payment_id: "large".to_owned(),
        recipients: vec![one; recipients],
        ..Default::default()
    }
}

/// Above 4 MiB a message is not read at all, and the caller is told the bound; below, it is an answer like any other.
pub async fn oversize(stage: &mut Stage) -> Result<()> {
    let too_large = refusal("MESSAGE_TOO_LARGE").with("max_bytes", 4 * MIB);
    for (what, request) in [("5 MB", order(500, 10_000)), ("100 MB", order(10_000, 10_000))] {
        let ask = async |mut to: Clients| to.payment.create_payment(request.clone()).await;
        stage.refuses(Who::Client, what, &too_large, ask).await;
    }
    for door in [0, 1] {
        let mut clients = stage.doors()[door].clients(Who::Client);
        let goes_on = clients.chain.get_tip(v1::GetTipRequest::default()).await;
        stage.check("the node goes on", goes_on.is_ok(), || format!("{goes_on:?}"));
    }
    let fits = refusal("OUTPUT_INVALID");
    let ask = async |mut to: Clients| to.payment.create_payment(order(400, 10_000)).await;
    stage.refuses(Who::Client, "just below 4 MiB", &fits, ask).await;
    let draft = Draft::new(stage, HOT, "large").await?;
    let large = vec![b'A'; 3 * MIB];
    let ask = async |mut to: Clients| to.payment.sign_psbt(draft.request_with(&large)).await;
    stage.refuses(Who::Client, "a PSBT of 3 MiB", &refusal("PSBT_INVALID").saying("at most"), ask).await;
    stage.release(&draft.reservation).await
}

/// Bytes that are another message, rpcs that are not there.
pub async fn strange(stage: &mut Stage) -> Result<()> {
    let before = stage.ledger().await;
    for door in stage.doors().each_ref().map(|door| door.addresses.data) {
        // A number where GetWallet has a message: not to be decoded. What tonic answers is INTERNAL.
        let number = v1::CreatePaymentResponse { applied_index: 7, ..Default::default() };
        let told = call(stage, door, "/onespend.v1.WalletService/GetWallet", number.clone()).await?;
        let refused = matches!(told.code(), Code::Internal | Code::InvalidArgument);
        stage.check("a number where a message is", refused, || format!("{told:?}"));
        for path in ["/onespend.v1.WalletService/Steal", "/onespend.v9.WalletService/GetWallet", "/x/y"] {
            let told = call(stage, door, path, number.clone()).await?;
            stage.check(path, told.code() == Code::Unimplemented, || format!("{told:?}"));
        }
    }
    stage.unchanged("strange messages", before).await;
    Ok(())
}

async fn call(
    stage: &Stage,
    address: std::net::SocketAddr,
    path: &'static str,
    message: v1::CreatePaymentResponse,
) -> Result<Status> {
    let mut raw = tonic::client::Grpc::new(channel(address, stage.cluster.client())?);
    raw.ready().await?;
    let codec = ProstCodec::<v1::CreatePaymentResponse, v1::GetWalletResponse>::default();
    let told = raw.unary(Request::new(message), PathAndQuery::from_static(path), codec).await;
    told.err().with_context(|| format!("{path} was answered"))
}

/// A deadline that is over before anything can be done never looks like a refusal.
pub async fn impatient(stage: &mut Stage) -> Result<()> {
    for timeout in [std::time::Duration::ZERO, std::time::Duration::from_nanos(1)] {
        let mut request =
            Request::new(v1::CreatePaymentRequest { recipients: vec![recipient(PAYEE, 0)], ..order(1, 22) });
        request.set_timeout(timeout);
        let told = stage.leader(Who::Client).payment.create_payment(request).await;
        let code = told.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let unknown =
            matches!(code, Code::DeadlineExceeded | Code::Cancelled | Code::Unavailable | Code::InvalidArgument);
        stage.check("no time at all", unknown, || format!("{told:?}"));
    }
    Ok(())
}
