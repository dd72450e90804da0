//! One connection in the access log: what is noted while it is open -> its line, when this is dropped. Without an access log
//! nothing is noted.

use std::{cell::RefCell, net::SocketAddr, sync::Arc, time::Instant};

use super::thread::Thread;
use crate::{
    balance::Backend,
    l4::{
        access::{Access, Facts, Kind},
        metrics::{Cause, Counters},
    },
    net::Stream,
};

/// What it says of a connection that was not let come to its end.
const CUT_OFF: &str = "CutOff";

pub(super) struct Entry<'a> {
    thread: &'a Thread,
    note: Option<Box<RefCell<Note>>>,
}

/// What a connection has come to so far.
struct Note {
    access: Arc<Access>,
    since: Instant,
    client: Option<SocketAddr>,
    host: Option<Box<str>>,
    /// When the last backend was connected to.
    met: Option<Instant>,
    backend: Option<Arc<Backend<Counters>>>,
    tries: u32,
    /// Bytes of the client and of the backend.
    moved: (u64, u64),
    /// None until it has ended.
    end: Option<Option<Cause>>,
}

impl<'a> Entry<'a> {
    pub(super) fn begin(thread: &'a Thread, access: Option<&Arc<Access>>) -> Self {
        let note = |access| Note {
            access: Arc::clone(access),
            since: Instant::now(),
            client: None,
            host: None,
            met: None,
            backend: None,
            tries: 0,
            moved: (0, 0),
            end: None,
        };
        Self { thread, note: access.map(|access| Box::new(RefCell::new(note(access)))) }
    }

    fn note(&self, note: impl FnOnce(&mut Note)) {
        if let Some(kept) = &self.note {
            note(&mut kept.borrow_mut());
        }
    }

    /// Who the client is. `find` is only called where it is of use.
    pub(super) fn comes_from(&self, find: impl FnOnce() -> Option<SocketAddr>) {
        self.note(|note| note.client = find());
    }

    /// The client has come in.
    pub(super) fn opened(&self, client: &Stream) {
        self.note(|note| note.host = client.server_name().map(Into::into));
    }

    /// The backend that was asked last, after so many.
    pub(super) fn asked(&self, backend: Option<&Arc<Backend<Counters>>>, tries: u32) {
        self.note(|note| (note.backend, note.tries) = (backend.cloned(), tries));
    }

    /// A backend is connected to.
    pub(super) fn met(&self) {
        self.note(|note| note.met = Some(Instant::now()));
    }

    /// So many bytes of the client and of the backend.
    pub(super) fn moved(&self, moved: (u64, u64)) {
        self.note(|note| note.moved = moved);
    }

    /// It has ended, as both sides wanted if there is no cause.
    pub(super) fn ends(&self, cause: Option<Cause>) {
        self.note(|note| note.end = Some(cause));
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let Some(note) = self.note.take().map(|note| note.into_inner()) else { return };
        let cause = match note.end {
            Some(cause) => cause.map(Cause::name),
            None => Some(CUT_OFF),
        };
        if !note.access.wants(cause.is_some(), |below| self.thread.random(below)) {
            return;
        }
        self.thread.log(
            &note.access,
            &Facts {
                kind: Kind::Connection,
                listener: &self.thread.listener,
                client: note.client,
                host: note.host.as_deref(),
                received: note.moved.0,
                sent: note.moved.1,
                duration: note.since.elapsed(),
                connect: note.met.map(|met| met - note.since),
                site: note.backend.as_ref().map(|backend| &*backend.site),
                backend: note.backend.as_ref().map(|backend| &*backend.shown),
                tries: note.tries,
                cause,
            },
        );
    }
}
