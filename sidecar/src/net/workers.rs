//! The data plane's threads: one current-thread runtime each, no work stealing, so that what a connection needs lives on
//! one thread and takes no lock.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout_at},
};

/// How often [`Workers::shutdown`] looks whether the last connection has gone.
const SHUTDOWN_POLL: Duration = Duration::from_millis(20);

use super::limits::{self, Descriptors};

type Job = Box<dyn FnOnce() + Send>;

/// The threads that serve connections. They end with [`Workers::shutdown`], or at once when this is dropped.
pub struct Workers {
    threads: Vec<Thread>,
    /// Connections that all listeners together may still accept.
    slots: Arc<Semaphore>,
    descriptors: Descriptors,
}

struct Thread {
    worker: Worker,
    stop: oneshot::Sender<()>,
    handle: thread::JoinHandle<()>,
}

/// One thread of the data plane, as others see it.
#[derive(Clone)]
pub struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts that many threads, at least one.
    pub fn start(threads: usize) -> io::Result<Self> {
        let threads = (0..threads.max(1)).map(Thread::start).collect::<io::Result<_>>()?;
        let slots = Arc::new(Semaphore::new(limits::max_connections()));
        Ok(Self { threads, slots, descriptors: Descriptors::new() })
    }

    /// What the UDP sessions of all listeners share.
    pub fn descriptors(&self) -> Descriptors {
        self.descriptors.clone()
    }

    pub(super) fn slots(&self) -> Arc<Semaphore> {
        Arc::clone(&self.slots)
    }

    pub fn handles(&self) -> Vec<Worker> {
        self.threads.iter().map(|thread| thread.worker.clone()).collect()
    }

    /// Connections open on all threads.
    pub fn connections(&self) -> usize {
        self.threads.iter().map(|thread| thread.worker.connections()).sum()
    }

    /// Waits until no connection is left or the deadline has passed, then ends the threads and what still runs there.
    pub async fn shutdown(self, deadline: Duration) {
        let end = Instant::now() + deadline;
        while self.connections() > 0 && Instant::now() < end {
            sleep(SHUTDOWN_POLL).await;
        }
        let (stops, handles): (Vec<_>, Vec<_>) =
            self.threads.into_iter().map(|thread| (thread.stop, thread.handle)).unzip();
        drop(stops);
        let joined = tokio::task::spawn_blocking(move || {
            for handle in handles {
                if handle.join().is_err() {
                    tracing::error!("a thread of the data plane panicked");
                }
            }
        });
        if timeout_at(end + Duration::from_secs(1), joined).await.is_err() {
            tracing::warn!("a thread of the data plane did not end in time");
        }
    }
}

impl Thread {
    fn start(index: usize) -> io::Result<Self> {
        let (started, runtime) = std::sync::mpsc::sync_channel(1);
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let (stop, mut stopped) = oneshot::channel();
        let handle = thread::Builder::new().name(format!("data-{index}")).spawn(move || {
            // It lives and ends on its thread: what it runs need not be `Send`, and waking a task takes no lock.
            let runtime =
                match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
            drop(started.send(Ok(())));
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = &mut stopped => return,
                        job = queue.recv() => match job {
                            Some(job) => job(),
                            None => return,
                        },
                    }
                }
            });
        })?;
        runtime.recv().map_err(io::Error::other)??;
        Ok(Self { worker: Worker { jobs, connections: Arc::default() }, stop, handle })
    }
}

impl Worker {
    /// Runs a closure on the thread, where it can `spawn_local`. A closure for a thread that has ended is dropped.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if self.jobs.send(Box::new(job)).is_err() {
            tracing::debug!("a thread of the data plane has already ended");
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts one connection for as long as the result lives.
    pub(super) fn occupy(&self) -> Occupied {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Occupied(Arc::clone(&self.connections))
    }
}

/// One connection in a worker's count.
pub(super) struct Occupied(Arc<AtomicUsize>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_runs_on_its_thread_and_may_spawn_there() {
        let workers = Workers::start(2).unwrap();
        for (index, worker) in workers.handles().into_iter().enumerate() {
            let (sender, receiver) = oneshot::channel();
            worker.run(move || {
                tokio::task::spawn_local(async move {
                    sender.send(thread::current().name().map(str::to_owned)).ok();
                });
            });
            assert_eq!(receiver.await.unwrap(), Some(format!("data-{index}")));
        }
        workers.shutdown(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn shutdown_waits_for_the_last_connection() {
        let workers = Workers::start(1).unwrap();
        let occupied = workers.handles()[0].occupy();
        let shutdown = tokio::spawn(workers.shutdown(Duration::from_secs(60)));
        tokio::task::yield_now().await;
        assert!(!shutdown.is_finished());
        drop(occupied);
        tokio::time::timeout(Duration::from_secs(5), shutdown).await.unwrap().unwrap();
    }
}
