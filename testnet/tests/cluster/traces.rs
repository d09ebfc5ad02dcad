//! A caller's trace across the nodes, as a collector beside the cluster is told of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bitcoin::hex::DisplayHex;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_testnet::cluster::CLUSTER_ID;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::scene::{Scene, eventually, need};

/// The caller's trace and its span in there (W3C Trace Context).
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// An OTLP collector that keeps what it gets.
#[derive(Clone, Default)]
pub struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Begins to listen, and does until the test ends. What a node's environment has to have, for it to be told.
    pub async fn serve(&self) -> (String, String) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        ("ONESPEND_TELEMETRY__OTLP_ENDPOINT".to_owned(), format!("http://{address}"))
    }

    /// What nodes have told of a trace so far.
    fn told_of(&self, trace: &str) -> Vec<Told> {
        let told = self.0.lock().unwrap();
        let spans = told.iter().flat_map(|told| {
            let node = told.resource.as_ref().and_then(|resource| text(&resource.attributes, "service.instance.id"));
            let node = node.unwrap_or_default();
            let spans = told.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(move |span| Told { node: node.clone(), span: span.clone() })
        });
        spans.filter(|told| told.span.trace_id.to_lower_hex_string() == trace).collect()
    }
}

/// A span, and the node that told of it.
#[derive(Debug)]
struct Told {
    node: String,
    span: Span,
}

impl Told {
    /// Whether it is a step of that name inside the other span, at the same node.
    fn is_step(&self, name: &str, of: &Self) -> bool {
        self.node == of.node && self.span.name == name && self.span.parent_span_id == of.span.span_id
    }

    /// That it names the caller, the request and what that was for, and has the one line of the log about its end.
    fn must_say(&self, asked: &[(&str, String)]) {
        for (key, value) in asked {
            assert_eq!(text(&self.span.attributes, key).as_ref(), Some(value), "{key}: {self:#?}");
        }
        let lines: Vec<_> = self.span.events.iter().filter(|event| event.name == "request ended").collect();
        assert_eq!(lines.len(), 1, "{self:#?}");
        assert_eq!(text(&lines[0].attributes, "code").as_deref(), Some("Ok"), "{self:#?}");
    }

    fn proposes(&self, command: &str) -> bool {
        text(&self.span.attributes, "command").as_deref() == Some(command)
    }
}

/// From the caller to the replica that it asked, from there to the leader, which commits, signs and broadcasts, and from
/// there to bitcoind: one trace, told of by both nodes.
pub async fn one_trace_leads_from_a_replica_over_the_leader_to_bitcoind(
    scene: &mut Scene,
    collector: &Collector,
    replica: usize,
    leader: usize,
) {
    let order = scene.order("traced");
    let asked = [
        ("caller", "client/payouts".to_owned()),
        ("request_id", order.request_id.clone()),
        ("wallet_id", order.wallet_id.clone()),
        ("payment_id", order.payment_id.clone()),
    ];
    let mut request = Request::new(order);
    request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{PARENT}-01").parse().unwrap());
    let mut client = PaymentServiceClient::new(scene.direct(replica));
    let paid = client.create_payment(request).await.unwrap().into_inner().payment.unwrap();
    scene.in_every_mempool(&[paid.txid]).await;

    let name = |index: usize| format!("{CLUSTER_ID}/node/{}", index + 1);
    let names = [name(replica), name(leader)];
    let [replica, leader] = [names[0].as_str(), names[1].as_str()];
    // A node tells of its spans once they have ended, and in batches.
    eventually("both nodes tell of the trace", async || {
        let told = collector.told_of(TRACE);
        let sent = told.iter().find(|told| {
            told.span.name == "bitcoind"
                && text(&told.span.attributes, "rpc.method").as_deref() == Some("sendrawtransaction")
        });
        let way = way_up(&told, sent.ok_or_else(|| format!("bitcoind is not in the trace: {told:#?}"))?);
        let names: Vec<_> = way.iter().map(|told| (told.node.as_str(), told.span.name.as_str())).collect();
        let wanted = [
            (leader, "bitcoind"),
            (leader, "broadcast"),
            (leader, "sign"),
            (leader, "CreatePayment"),
            (replica, "CreatePayment"),
        ];
        need(names == wanted, || format!("{names:?} of {told:#?}"))?;
        assert_eq!(
            way[4].span.parent_span_id.to_lower_hex_string(),
            PARENT,
            "the caller's own span is above all: {told:#?}"
        );
        // Also at the leader: the caller, not the node that passed its request on.
        way[3].must_say(&asked);
        way[4].must_say(&asked);

        let (signing, deciding) = (way[2], way[3]);
        let committed = told.iter().find(|told| told.is_step("propose", deciding) && told.proposes("create_payment"));
        let index = committed.and_then(|told| told.span.attributes.iter().find(|pair| pair.key == "log_index"));
        need(index.is_some(), || format!("the intent's entry is not in the trace: {told:#?}"))?;
        need(told.iter().any(|told| told.is_step("signer", signing)), || format!("no signer: {told:#?}"))?;
        let recorded = told.iter().any(|told| told.is_step("propose", signing) && told.proposes("record_signature"));
        need(recorded, || format!("the signature's entry is not in the trace: {told:#?}"))
    })
    .await;
}

/// The span and those around it, from the inside out.
fn way_up<'a>(told: &'a [Told], from: &'a Told) -> Vec<&'a Told> {
    let above = |inner: &&'a Told| told.iter().find(|outer| outer.span.span_id == inner.span.parent_span_id);
    std::iter::successors(Some(from), above).collect()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}
