//! How many sessions there may be, shared by the threads of one listener. Which one goes for a new one is told by how long
//! the most silent one of each thread has been so: the thread that has it ends it, and that may be another one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// So many more than allowed may there be for a moment, until another thread has made room.
const SPARE: usize = 32;

/// A thread without a session.
const NONE: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Room {
    sessions: AtomicUsize,
    threads: Vec<Thread>,
    start: Instant,
}

/// What a thread tells the others.
#[derive(Debug)]
struct Thread {
    /// When its most silent session was used, in microseconds since the start.
    silent: AtomicU64,
    /// When it last had a datagram.
    latest: AtomicU64,
    /// Told when it has to make room.
    told: Notify,
}

/// A session's part of the room.
#[derive(Debug)]
pub(super) struct Place(Arc<Room>);

/// Where the place for one more session comes from.
#[derive(Debug)]
pub(super) enum Entry {
    /// There was room, or another thread makes it.
    Free(Place),
    /// The most silent session of the own thread has to go.
    Own(Place),
    /// Nobody can go.
    Full,
}

impl Room {
    pub(super) fn new(threads: usize) -> Arc<Self> {
        let thread =
            || Thread { silent: AtomicU64::new(NONE), latest: AtomicU64::new(0), told: Notify::new() };
        Arc::new(Self {
            sessions: AtomicUsize::new(0),
            threads: (0..threads).map(|_| thread()).collect(),
            start: Instant::now(),
        })
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// A place for a session of the thread `own`, where there may be `most`.
    pub(super) fn enter(self: &Arc<Self>, own: usize, most: usize) -> Entry {
        // Counts before it asks, so that two threads never take the last place both.
        let others = self.sessions.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(self));
        if others < most {
            return Entry::Free(place);
        }
        match self.most_silent() {
            Some(thread) if thread != own && others < most + SPARE => {
                self.threads[thread].told.notify_one();
                Entry::Free(place)
            }
            Some(_) if self.silent(own) != NONE => Entry::Own(place),
            _ => Entry::Full,
        }
    }

    /// Whether the thread has to end its most silent session, since there are more than `most`. If that is for another one, it is
    /// told so.
    pub(super) fn must_go(&self, own: usize, most: usize) -> bool {
        if self.sessions() <= most {
            return false;
        }
        let thread = self.most_silent();
        if let Some(other) = thread.filter(|thread| *thread != own) {
            self.threads[other].told.notify_one();
        }
        thread == Some(own)
    }

    /// Ready when the thread is to look whether it has to make room.
    pub(super) async fn told(&self, own: usize) {
        self.threads[own].told.notified().await;
    }

    /// The thread whose most silent session was used before those of the others.
    fn most_silent(&self) -> Option<usize> {
        let threads = (0..self.threads.len()).filter(|thread| self.silent(*thread) != NONE);
        threads.min_by_key(|thread| self.silent(*thread))
    }

    fn silent(&self, thread: usize) -> u64 {
        self.threads[thread].silent.load(Ordering::Relaxed)
    }

    /// Says when the thread's most silent session was used, and that it has just had a datagram, if it had.
    pub(super) fn publish(&self, own: usize, silent: Option<Instant>, latest: Option<Instant>) {
        let thread = &self.threads[own];
        thread.silent.store(silent.map_or(NONE, |silent| self.micros(silent)), Ordering::Relaxed);
        if let Some(latest) = latest {
            thread.latest.store(self.micros(latest), Ordering::Relaxed);
        }
    }

    /// Whether any thread had a datagram in this time.
    pub(super) fn is_busy(&self, within: Duration) -> bool {
        let since = self.micros(Instant::now()).saturating_sub(within.as_micros() as u64);
        let latest = self.threads.iter().map(|thread| thread.latest.load(Ordering::Relaxed)).max();
        self.sessions() > 0 && latest.is_some_and(|latest| latest >= since)
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_micros() as u64
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn free(entry: Entry) -> Place {
        match entry {
            Entry::Free(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_until_there_are_as_many_as_there_may_be() {
        let room = Room::new(2);
        let (first, _second) = (free(room.enter(0, 2)), free(room.enter(1, 2)));
        assert!(matches!(room.enter(0, 2), Entry::Full), "nobody has said that it has a session");
        drop(first);
        assert_eq!(room.sessions(), 1);
        free(room.enter(0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_thread_with_the_most_silent_session_makes_room() {
        let room = Room::new(2);
        let now = Instant::now();
        let _held = [free(room.enter(0, 2)), free(room.enter(1, 2))];
        room.publish(0, Some(now + Duration::from_secs(1)), None);
        room.publish(1, Some(now + Duration::from_secs(2)), None);
        assert!(matches!(room.enter(0, 2), Entry::Own(_)));
        assert!(room.told(0).now_or_never().is_none());
        assert!(!room.must_go(0, 2), "there is room again");
        let _more = free(room.enter(1, 2));
        assert!(room.told(0).now_or_never().is_some());
        assert!(room.told(0).now_or_never().is_none(), "it is told once");
        assert!(room.must_go(0, 2));
        assert!(!room.must_go(1, 2));
        assert!(room.told(0).now_or_never().is_some(), "whose turn it is is told");
    }

    #[tokio::test(start_paused = true)]
    async fn another_thread_is_not_waited_for_without_end() {
        let room = Room::new(2);
        room.publish(0, Some(Instant::now()), None);
        let mut held: Vec<_> = (0..=SPARE).map(|_| free(room.enter(1, 1))).collect();
        assert!(matches!(room.enter(1, 1), Entry::Full));
        room.publish(1, Some(Instant::now() + Duration::from_secs(1)), None);
        match room.enter(1, 1) {
            Entry::Own(place) => held.push(place),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_is_busy_for_a_while_after_a_datagram() {
        let room = Room::new(2);
        let _held = free(room.enter(0, 2));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!room.is_busy(Duration::from_secs(1)));
        room.publish(1, None, Some(Instant::now()));
        assert!(room.is_busy(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!room.is_busy(Duration::from_secs(1)));
    }
}
