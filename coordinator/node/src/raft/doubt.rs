//! Whether this node's state may be wrong, so that no other node may be given it.

use std::sync::Arc;

use tokio::sync::watch;

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doubt(Arc<watch::Sender<bool>>);

impl Doubt {
    pub(crate) fn set(&self, stands: bool) {
        self.0.send_if_modified(|stood| std::mem::replace(stood, stands) != stands);
    }

    #[cfg(test)]
    pub(crate) fn stands(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it stands.
    pub(crate) async fn begins(&self) {
        let mut doubt = self.0.subscribe();
        // The sender is this one, so it does not go while it is waited for.
        let _standing = doubt.wait_for(|stands| *stands).await;
    }
}
