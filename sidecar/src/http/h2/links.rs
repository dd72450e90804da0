//! The links of one pool: a request goes on the first one that has room. Requests that find none wait for the same new one.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::future::{FutureExt, LocalBoxFuture, Shared, WeakShared};

use super::{link::Link, outbound::Outbound};
use crate::net::Stream;

/// A connection that was opened, or why there is none; everyone who waited for it gets the same.
type Meeting<O> = Shared<Opening<O>>;
type Opening<O> = LocalBoxFuture<'static, Result<Rc<Met<O>>, NotMet>>;

/// A new connection. `O` is its place in the counts of its backend.
pub(in crate::http) enum Met<O> {
    /// One that all share.
    Link(Rc<Link>),
    /// One in HTTP/1.1, for whoever takes it first.
    Alone(Cell<Option<(Stream, O)>>),
}

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(in crate::http) enum NotMet {
    /// The backend has as many as its limits allow.
    Full,
    Failed(io::ErrorKind, Rc<str>),
}

pub(in crate::http) struct Links<O> {
    open: RefCell<Vec<Held<O>>>,
    meeting: RefCell<Option<WeakShared<Opening<O>>>>,
}

struct Held<O> {
    link: Rc<Link>,
    _open: O,
}

impl<O> Default for Links<O> {
    fn default() -> Self {
        Self { open: RefCell::default(), meeting: RefCell::default() }
    }
}

impl<O: 'static> Links<O> {
    /// A stream on a link that has room, and whether requests were served there before. A link without a stream for so long is
    /// closed.
    pub(in crate::http) fn take(&self, now: Instant, limit: Duration) -> Option<(Outbound, bool)> {
        let mut open = self.open.borrow_mut();
        if open.is_empty() {
            return None;
        }
        open.retain(|held| held.link.is_good(now, limit));
        open.iter().find_map(|held| Some((held.link.stream()?, held.link.has_served())))
    }

    /// Begins to speak HTTP/2 on a new connection.
    pub(in crate::http) async fn begin(&self, stream: Stream, open: O) -> io::Result<Rc<Link>> {
        let link = Link::open(stream).await?;
        self.open.borrow_mut().push(Held { link: Rc::clone(&link), _open: open });
        Ok(link)
    }

    /// The connection that is being opened, or else the one that `open` opens.
    pub(in crate::http) fn meeting(&self, open: impl FnOnce() -> Opening<O>) -> Meeting<O> {
        let mut meeting = self.meeting.borrow_mut();
        // One that nobody waits for any more is gone, and one that has come to its end is no news.
        let under_way =
            meeting.as_ref().and_then(WeakShared::upgrade).filter(|shared| shared.peek().is_none());
        under_way.unwrap_or_else(|| {
            let shared = open().shared();
            *meeting = shared.downgrade();
            shared
        })
    }

    /// Closes what has ended or was idle for so long.
    pub(in crate::http) fn sweep(&self, now: Instant, limit: Duration) {
        self.open.borrow_mut().retain(|held| held.link.is_good(now, limit));
    }

    /// Lets go of all: each closes when its last stream has ended.
    pub(in crate::http) fn close(&self) {
        self.open.borrow_mut().clear();
    }
}

impl<O> Met<O> {
    pub(in crate::http) fn alone(stream: Stream, open: O) -> Rc<Self> {
        Rc::new(Self::Alone(Cell::new(Some((stream, open)))))
    }
}
