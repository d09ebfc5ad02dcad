//! The host names of checks. A lookup blocks its thread and cannot be called off, and a resolver that hangs does so for
//! longer than a look may take: so each check has one lookup under way at most, and a look that comes to one which an
//! earlier look gave up takes its answer.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Mutex;
use tower::Service;

use super::blocking::Blocking;

type Found = io::Result<Vec<SocketAddr>>;
type Lookup = dyn Fn(&str) -> Found + Send + Sync;

/// Looks names up for one check, which asks for one name only. Clones share the lookup that is under way.
#[derive(Clone)]
pub(super) struct Resolver {
    lookup: Arc<Lookup>,
    under_way: Arc<Mutex<Blocking<Found>>>,
}

impl Resolver {
    /// Asks the operating system.
    pub(super) fn new() -> Self {
        Self::by(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    fn by(lookup: impl Fn(&str) -> Found + Send + Sync + 'static) -> Self {
        Self { lookup: Arc::new(lookup), under_way: Arc::default() }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { lookup, under_way } = self.clone();
        Box::pin(async move {
            let found = under_way.lock().await.run(move || lookup(name.as_str())).await;
            Ok(found.map_err(io::Error::other)??.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    async fn look(resolver: &Resolver, within: Duration) -> Option<Vec<SocketAddr>> {
        let asked = resolver.clone().call("node-2".parse().unwrap());
        timeout(within, asked).await.ok().map(|found| found.unwrap().collect())
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_is_asked_once_however_many_looks_there_are() {
        let (release, held) = mpsc::channel::<()>();
        let (held, lookups) = (std::sync::Mutex::new(held), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&lookups);
        let address: SocketAddr = "10.0.0.2:0".parse().unwrap();
        let resolver = Resolver::by(move |host| {
            assert_eq!(host, "node-2");
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().unwrap().recv();
            Ok(vec![address])
        });
        for _ in 0..5 {
            assert_eq!(look(&resolver, SHORT).await, None);
        }
        release.send(()).unwrap();
        assert_eq!(look(&resolver, LONG).await, Some(vec![address]), "the answer that nobody waited for");
        assert_eq!(lookups.load(Ordering::SeqCst), 1);
        drop(release);
        assert_eq!(look(&resolver, LONG).await, Some(vec![address]));
        assert_eq!(lookups.load(Ordering::SeqCst), 2, "and then it is asked again");
    }

    #[tokio::test]
    async fn the_operating_system_knows_the_name_of_this_machine() {
        let found = Resolver::new().call("localhost".parse().unwrap()).await.unwrap();
        assert!(found.into_iter().all(|address| address.ip().is_loopback()));
    }
}
