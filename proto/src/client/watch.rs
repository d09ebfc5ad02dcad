//! Following payments and reservations across failovers.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Streaming;

use super::error::Verdict;
use super::{Client, ClientError, backoff, retry};
use crate::v1;
use crate::v1::payment_service_client::PaymentServiceClient;
use crate::v1::reservation_service_client::ReservationServiceClient;

/// A stream that is silent for longer is dead: nodes send a mark of progress every 10 s.
const MAX_SILENCE: Duration = Duration::from_secs(30);

macro_rules! watch {
    ($(#[$doc:meta])* $watch:ident, $(#[$how:meta])* $method:ident, $service:ident($request:ident) -> $response:ident) => {
        $(#[$doc])*
        pub struct $watch {
            client: Client,
            request: v1::$request,
            stream: Option<Streaming<v1::$response>>,
            /// When the stream broke, until a message comes again.
            broken: Option<Instant>,
        }

        impl Client {
            $(#[$how])*
            pub fn $method(&self, request: v1::$request) -> $watch {
                $watch { client: self.clone(), request, stream: None, broken: None }
            }
        }

        impl $watch {
            /// The next message; one without a resource is a mark of progress. Waits as long as it takes. May be dropped
            /// while it waits: nothing is lost.
            ///
            /// # Errors
            /// As for a read, when the stream cannot be opened again within the client's deadline.
            pub async fn next(&mut self) -> Result<v1::$response, ClientError> {
                loop {
                    let mut stream = match self.stream.take() {
                        Some(stream) => stream,
                        None => self.open().await?,
                    };
                    let why = match tokio::time::timeout(MAX_SILENCE, stream.message()).await {
                        Ok(Ok(Some(message))) => {
                            self.request.from_index = self.request.from_index.max(message.applied_index);
                            self.stream = Some(stream);
                            self.broken = None;
                            return Ok(message);
                        }
                        Ok(Ok(None)) => "the node ended the stream".to_owned(),
                        Ok(Err(status)) => why_it_broke(Verdict::of(&status))?,
                        Err(_) => "the stream was silent for 30 s".to_owned(),
                    };
                    tracing::debug!(error = %why, "watching again");
                    let broken = *self.broken.get_or_insert_with(Instant::now);
                    tokio::time::sleep(backoff::pause(broken.elapsed())).await;
                }
            }

            /// The log index up to which everything has been received: what a new watch would resume from.
            pub fn resume_index(&self) -> u64 {
                self.request.from_index
            }

            async fn open(&self) -> Result<Streaming<v1::$response>, ClientError> {
                let limit = self.client.inner.config.max_message_bytes;
                let send = move |channel, request| async move {
                    let mut client = $service::new(channel).max_decoding_message_size(limit);
                    client.$method(request).await
                };
                let (plane, bounds) = (self.client.data_plane(), self.client.stream_bounds());
                retry::call(plane, bounds, "", self.request.clone(), send).await
            }
        }
    };
}

watch!(
    /// A stream of payments that goes on at another node when one fails, from the last index received.
    PaymentWatch,
    /// Follows payments from `request.from_index`.
    watch_payments,
    PaymentServiceClient(WatchPaymentsRequest) -> WatchPaymentsResponse
);

watch!(
    /// A stream of reservations that goes on at another node when one fails, from the last index received. What it was
    /// told already, it may be told again there.
    ReservationWatch,
    /// Follows reservations from `request.from_index`.
    watch_reservations,
    ReservationServiceClient(WatchReservationsRequest) -> WatchReservationsResponse
);

/// A refusal ends the watch; anything else is a reason to open it again.
fn why_it_broke(verdict: Verdict) -> Result<String, ClientError> {
    match verdict {
        Verdict::Refused(rejection) => Err(ClientError::Rejected(Box::new(rejection))),
        Verdict::Busy(rejection) | Verdict::NotLeader(rejection) => Ok(rejection.to_string()),
        Verdict::NotSent(why) | Verdict::NoAnswer(why) => Ok(why),
    }
}
