//! Awaiting what a cluster will do: a condition and a deadline, never a pause.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(200);

/// Asks until the condition gives a value. An error is a reason to ask again, and is told when the time is up.
pub async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = None;
    loop {
        match tokio::time::timeout(limit.saturating_sub(began.elapsed()).max(POLL), condition()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
        if began.elapsed() >= limit {
            let context = format!("not within {limit:?}: {what}");
            return match last {
                Some(error) => Err(error.context(context)),
                None => bail!(context),
            };
        }
        tokio::time::sleep(POLL).await;
    }
}
