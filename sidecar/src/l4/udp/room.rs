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

/// Sessions that another thread may be asked to end before it has done so: so many more than allowed may there be for a
/// moment, by thread.
const MOST_ASKED: usize = 32;

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
    /// Sessions that it is asked to end.
    asked: AtomicUsize,
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
        let thread = || Thread {
            silent: AtomicU64::new(NONE),
            latest: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            told: Notify::new(),
        };
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
        let silent = |thread: &Thread| thread.silent.load(Ordering::Relaxed);
        let has_own = silent(&self.threads[own]) != NONE;
        let most_silent = self.threads.iter().min_by_key(|thread| silent(thread));
        let other = most_silent.filter(|thread| silent(thread) < silent(&self.threads[own]));
        match other {
            Some(other) if other.asked.fetch_add(1, Ordering::Relaxed) < MOST_ASKED => {
                other.told.notify_one();
                Entry::Free(place)
            }
            Some(other) => {
                other.asked.fetch_sub(1, Ordering::Relaxed);
                if has_own { Entry::Own(place) } else { Entry::Full }
            }
            None if has_own => Entry::Own(place),
            None => Entry::Full,
        }
    }

    /// Ready when the thread is asked to end sessions; gives how many.
    pub(super) async fn asked(&self, own: usize) -> usize {
        let thread = &self.threads[own];
        thread.told.notified().await;
        thread.asked.swap(0, Ordering::Relaxed)
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
        assert!(room.asked(0).now_or_never().is_none());
        let _more = free(room.enter(1, 2));
        assert_eq!(room.asked(0).now_or_never(), Some(1));
        assert!(room.asked(0).now_or_never().is_none(), "it is asked once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_does_not_make_room_is_not_asked_without_end() {
        let room = Room::new(2);
        room.publish(0, Some(Instant::now()), None);
        let mut held: Vec<_> = (0..=MOST_ASKED).map(|_| free(room.enter(1, 1))).collect();
        assert!(matches!(room.enter(1, 1), Entry::Full));
        room.publish(1, Some(Instant::now() + Duration::from_secs(1)), None);
        match room.enter(1, 1) {
            Entry::Own(place) => held.push(place),
            other => panic!("{other:?}"),
        }
        assert_eq!(room.asked(0).now_or_never(), Some(MOST_ASKED));
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
