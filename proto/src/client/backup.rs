//! Asking one node for its state.

use std::time::Duration;

use tonic::Streaming;

use super::error::Verdict;
use super::{Client, ClientError, fill_request_id, retry};
use crate::v1;
use crate::v1::cluster_service_client::ClusterServiceClient;

/// A node that makes the copy for longer than this before it says anything is given up.
const MAX_MAKING: Duration = Duration::from_mins(10);
/// The same once it has begun to send.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// A backup on its way. A stream that breaks off cannot be resumed: the copy is gone.
pub struct BackupStream {
    stream: Streaming<v1::CreateBackupResponse>,
    begun: bool,
}

impl Client {
    /// Asks one node, by its control address, for its state. An empty `request_id` is filled in with a UUID.
    ///
    /// # Errors
    /// As for a read, when the stream cannot be opened within the time of one try.
    pub async fn create_backup_on(
        &self,
        address: &str,
        mut request: v1::CreateBackupRequest,
    ) -> Result<BackupStream, ClientError> {
        fill_request_id(&mut request.request_id);
        let alone = Self::alone(&self.inner.config, address, self.inner.config.try_timeout)?;
        let limit = alone.inner.config.max_message_bytes;
        let send = move |channel, request| async move {
            let mut client = ClusterServiceClient::new(channel).max_decoding_message_size(limit);
            client.create_backup(request).await
        };
        let stream = retry::call(alone.control_plane(), alone.stream_bounds(), "", request, send).await?;
        Ok(BackupStream { stream, begun: false })
    }
}

impl BackupStream {
    /// The next message; `None` after the last. Only one that has brought the checksum was the last of a whole backup.
    ///
    /// # Errors
    /// As for a read: the backup has to be asked for again.
    pub async fn next(&mut self) -> Result<Option<v1::CreateBackupResponse>, ClientError> {
        let patience = if self.begun { MAX_SILENCE } else { MAX_MAKING };
        let silent = |last: String| ClientError::Unknown { request_id: String::new(), tries: 1, last };
        match tokio::time::timeout(patience, self.stream.message()).await {
            Ok(Ok(message)) => {
                self.begun = true;
                Ok(message)
            }
            Ok(Err(status)) => Err(match Verdict::of(&status) {
                Verdict::Refused(rejection) | Verdict::Busy(rejection) | Verdict::NotLeader(rejection) => {
                    ClientError::Rejected(Box::new(rejection))
                }
                Verdict::NotSent(why) | Verdict::NoAnswer(why) => silent(why),
            }),
            Err(_) => Err(silent(format!("the node was silent for {} s", patience.as_secs()))),
        }
    }
}
