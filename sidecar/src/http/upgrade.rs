//! After `101 Switching Protocols`: bytes both ways until one side ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::exchange::Exchange;

/// Joins the two connections. The exchange keeps the backend's connection, and the backend's count, until the end.
pub(super) async fn tunnel(client: OnUpgrade, backend: OnUpgrade, exchange: Exchange) {
    let (client, backend) = match futures::try_join!(client, backend) {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "an upgrade failed"),
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if let Err(error) = copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!(%error, "an upgraded connection ended");
    }
    drop(exchange);
}
