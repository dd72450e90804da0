//! What ends the process: SIGTERM, SIGINT, or whoever started it. As process 1 the kernel drops signals that have no
//! handler, so that both have one.

use std::{future::pending, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// None once it has been told of.
    stop: Option<CancellationToken>,
}

impl Signals {
    pub(super) fn install(stop: CancellationToken) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            stop: Some(stop),
        })
    }

    /// Waits for the next signal and names it.
    pub(super) async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                Some(()) = self.terminate.recv() => return "SIGTERM",
                Some(()) = self.interrupt.recv() => return "SIGINT",
                // Others read their files again; this one does so all the time.
                Some(()) = self.hangup.recv() => tracing::info!("SIGHUP changes nothing: changes are followed as they come"),
                () = stopped(self.stop.as_ref()) => {
                    self.stop = None;
                    return "the user";
                }
            }
        }
    }
}

async fn stopped(stop: Option<&CancellationToken>) {
    match stop {
        Some(stop) => stop.cancelled().await,
        None => pending().await,
    }
}
