//! What is built from files, and built anew when their content changes. Bad content never replaces good.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;

use super::{
    TlsError,
    material::{Contents, Paths},
};

/// The value of now. Connections read it; one task refreshes it.
pub(super) struct Current<T> {
    paths: Paths,
    build: Build<T>,
    value: ArcSwap<T>,
    /// Seconds since 1970; [`i64::MAX`] for what does not expire.
    expires: AtomicI64,
    failures: AtomicU64,
    seen: Mutex<Seen>,
}

type Build<T> = Box<dyn Fn(&Contents) -> Result<Built<T>, TlsError> + Send + Sync>;

pub(super) struct Built<T> {
    pub(super) value: T,
    /// When the certificate in it expires, in seconds since 1970.
    pub(super) expires: Option<i64>,
}

/// Fingerprints of contents; that of files that cannot be read is `None`.
struct Seen {
    good: u64,
    /// Was bad at the last look. Files are replaced one after another, so that it may be a pair in the making.
    doubtful: Option<Option<u64>>,
    /// Was bad twice, and has been told of.
    bad: Option<Option<u64>>,
}

impl<T> Current<T> {
    pub(super) fn load(
        paths: Paths,
        build: impl Fn(&Contents) -> Result<Built<T>, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let contents = Contents::read(&paths)?;
        let Built { value, expires } = build(&contents)?;
        warn_if_expired(&paths, expires);
        Ok(Self {
            paths,
            build: Box::new(build),
            value: ArcSwap::from_pointee(value),
            expires: AtomicI64::new(expires.unwrap_or(i64::MAX)),
            failures: AtomicU64::new(0),
            seen: Mutex::new(Seen { good: contents.fingerprint(), doubtful: None, bad: None }),
        })
    }

    pub(super) fn value(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Looks whether the files have changed, and takes over what is good in them.
    pub(super) fn refresh(&self) {
        let contents = Contents::read(&self.paths);
        let found = contents.as_ref().ok().map(Contents::fingerprint);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if found == Some(seen.good) {
            (seen.doubtful, seen.bad) = (None, None);
            return;
        }
        if seen.bad == Some(found) {
            return;
        }
        match contents.and_then(|contents| (self.build)(&contents)) {
            Ok(Built { value, expires }) => {
                self.value.store(Arc::new(value));
                self.expires.store(expires.unwrap_or(i64::MAX), Ordering::Relaxed);
                *seen = Seen { good: found.unwrap_or(seen.good), doubtful: None, bad: None };
                tracing::info!(file = self.file(), expires, "new certificates are in use");
                warn_if_expired(&self.paths, expires);
            }
            Err(error) if seen.doubtful == Some(found) => {
                seen.bad = Some(found);
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "new certificates cannot be used, those in use are kept");
            }
            Err(_) => seen.doubtful = Some(found),
        }
    }

    /// The file that stands for all of them: that of the certificate, else that of the CAs.
    pub(super) fn file(&self) -> &str {
        self.paths.file()
    }

    pub(super) fn expires(&self) -> Option<i64> {
        Some(self.expires.load(Ordering::Relaxed)).filter(|expires| *expires != i64::MAX)
    }

    /// New contents that could not be used.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Paths {
    fn file(&self) -> &str {
        let pair = self.pair.as_ref().map(|pair| &pair.certificate);
        pair.or(self.ca.as_ref()).map_or("", |named| &named.path)
    }
}

/// An expired certificate is used all the same: a restart must not end what clients without a clock still accept.
fn warn_if_expired(paths: &Paths, expires: Option<i64>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if expires.is_some_and(|expires| expires < i64::try_from(now).unwrap_or(i64::MAX)) {
        tracing::warn!(file = paths.file(), "the certificate has expired: replace the file");
    }
}
