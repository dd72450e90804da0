//! Lines on standard output: batches that threads have filled -> a bounded queue -> one thread that writes.
//!
//! Who offers a batch never waits: while nobody reads the output, batches are dropped and their lines counted.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use crds::metrics::Metric;
use prometheus_client::{
    metrics::{MetricType, counter::Counter},
    registry::Registry,
};
use tokio::{sync::oneshot, time::timeout};

/// Batches that wait for the writer, at most: those of all threads and listeners at once, and 4 MiB.
const QUEUE: usize = 64;

pub(super) const DROPPED: Metric = Metric {
    name: "sidecar_access_log_dropped_lines",
    kind: MetricType::Counter,
    labels: &[],
    help: "Lines of the access log that were not written because nobody read the output fast enough",
    look: "When lines are missing: the node's log collector does not keep up, or `sampleOneIn` should be larger",
};

/// The way to the writer. Clones share it.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: SyncSender<Message>,
    dropped: Counter,
}

/// Whole lines, and how many.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub lines: u64,
}

#[derive(Debug)]
enum Message {
    Batch(Batch),
    End(oneshot::Sender<()>),
}

impl Lines {
    /// Starts the writer, which lives until [`finish`](Self::finish), or until the last clone has gone.
    pub fn start(out: impl Write + Send + 'static, registry: &mut Registry) -> io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE);
        let dropped = Counter::default();
        DROPPED.register(registry, dropped.clone());
        let lines = Self { queue, dropped: dropped.clone() };
        thread::Builder::new().name("lines".to_owned()).spawn(move || write(out, batches, &dropped))?;
        Ok(lines)
    }

    /// Hands lines over, or drops them.
    pub fn offer(&self, batch: Batch) {
        let (Err(TrySendError::Full(message)) | Err(TrySendError::Disconnected(message))) =
            self.queue.try_send(Message::Batch(batch))
        else {
            return;
        };
        if let Message::Batch(batch) = message {
            self.dropped.inc_by(batch.lines);
        }
    }

    /// Ends the writer, and waits until what was offered before has been written, or for `limit`.
    pub async fn finish(&self, limit: Duration) {
        let (end, ended) = oneshot::channel();
        if self.queue.try_send(Message::End(end)).is_err() || timeout(limit, ended).await.is_err() {
            tracing::warn!("the last lines of the access log could not be written: nobody reads the output");
        }
    }
}

fn write(mut out: impl Write, batches: Receiver<Message>, dropped: &Counter) {
    while let Ok(message) = batches.recv() {
        match message {
            Message::Batch(batch) => {
                if out.write_all(&batch.bytes).and_then(|()| out.flush()).is_err() {
                    dropped.inc_by(batch.lines);
                }
            }
            Message::End(end) => {
                // So that a batch which comes later is refused, and counted.
                drop(batches);
                // Who asked may have stopped waiting.
                let _ = end.send(());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// An output that takes a write only when the test lets it.
    struct Gated {
        leave: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.leave.recv().map_err(io::Error::other)?;
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(text: &str) -> Batch {
        Batch { bytes: text.as_bytes().to_vec(), lines: 2 }
    }

    #[tokio::test]
    async fn an_output_that_nobody_reads_costs_lines_and_never_time() {
        let ((let_go, leave), (written, read)) = (channel(), channel());
        let lines = Lines::start(Gated { leave, written }, &mut Registry::default()).unwrap();
        let more = QUEUE * 2;
        for number in 0..more {
            lines.offer(batch(&format!("{number}\n")));
        }
        let dropped = lines.dropped.get();
        assert!((1..=2 * (more - QUEUE) as u64).contains(&dropped), "{dropped}");
        let kept = more - usize::try_from(dropped / 2).unwrap();
        (0..kept).for_each(|_| let_go.send(()).unwrap());
        let text: Vec<u8> = (0..kept).flat_map(|_| read.recv().unwrap()).collect();
        assert!(text.starts_with(b"0\n1\n2\n"));
        lines.finish(Duration::from_secs(20)).await;
        lines.offer(batch("late\n"));
        assert_eq!(lines.dropped.get(), dropped + 2, "the writer has gone");
    }
}
