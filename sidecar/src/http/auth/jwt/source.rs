//! Where key sets come from, and how they stay current: files are read again when they are replaced, URLs are fetched anew
//! after a while, sooner when a token names a key that nobody knows. A set that cannot be used never replaces a good one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    io::{self, Read},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use crds::config::Jwks;
use http::{HeaderMap, HeaderValue, Method, header};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    cache::digest,
    figures::{self, Figures, Shown},
    key_set::{KeySet, KeySetError},
    now,
};
use crate::{
    discovery::dns::{Lookup, SystemDns},
    net::tls::{Store, TlsError},
    remote::{Ask, Remote, RemoteError},
};

/// How soon a replaced file is noticed, and a set that is to be fetched.
const POLL: Duration = Duration::from_secs(1);
/// Bytes of one set, at most.
const MAX_SIZE: usize = 1 << 20;
/// Time for one fetch.
const FETCH: Duration = Duration::from_secs(10);
/// After a fetch, tokens with unknown keys bring about another one only after this time.
const PAUSE: Duration = Duration::from_secs(10);
/// After a fetch that failed, the next one; twice as late each time, up to a minute.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("{path} cannot be read ({source}); correct the path, or the rights of the file")]
    Unreadable { path: String, source: io::Error },
    #[error("{place} cannot be used: {source}; replace it by the issuer's key set")]
    Unusable { place: String, source: KeySetProblem },
    #[error("{path} has more than {MAX_SIZE} bytes; write the issuer's keys alone")]
    TooLarge { path: String },
    #[error("{url} gives no key set: {source}")]
    Unreachable { url: String, source: RemoteError },
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("it says not where the keys are; write file or url")]
    Nowhere,
}

/// What is wrong with the bytes of a set.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct KeySetProblem(#[from] KeySetError);

/// All sources in use, each followed once however many listeners name it. Clones share.
#[derive(Clone)]
pub struct KeySets(Arc<Inner>);

struct Inner {
    sources: Mutex<HashMap<Jwks, Weak<Source>>>,
    tls: Store,
    dns: Arc<dyn Lookup>,
    /// Told when there is something to fetch.
    wake: Notify,
}

/// One source, and the set that it gave last.
pub(super) struct Source {
    place: Place,
    current: ArcSwapOption<KeySet>,
    refresh: Duration,
    schedule: Mutex<Schedule>,
    figures: Figures,
    /// A token has named a key that is not in the set.
    wanted: AtomicBool,
    inner: Weak<Inner>,
}

enum Place {
    File(String),
    Url(Remote),
}

#[derive(Debug)]
struct Schedule {
    /// Digest of what was read last, good or bad, so that the same is told once.
    seen: Option<[u8; 32]>,
    failures: u32,
    fetching: bool,
    last: Option<Instant>,
    next: Option<Instant>,
}

impl Default for KeySets {
    fn default() -> Self {
        Self::new(Store::default(), Arc::new(SystemDns::default()))
    }
}

impl KeySets {
    pub fn new(tls: Store, dns: Arc<dyn Lookup>) -> Self {
        let inner = Inner { sources: Mutex::default(), tls, dns, wake: Notify::new() };
        Self(Arc::new(inner))
    }

    /// The same, shown in metrics.
    pub fn register(registry: &mut Registry, tls: Store, dns: Arc<dyn Lookup>) -> Self {
        let sets = Self::new(tls, dns);
        registry.register_collector(Box::new(sets.clone()));
        sets
    }

    /// The source of these settings. A file must be good at once; a URL is fetched soon.
    pub(super) fn load(&self, settings: &Jwks) -> Result<Arc<Source>, JwksError> {
        let mut sources = self.sources();
        if let Some(source) = sources.get(settings).and_then(Weak::upgrade) {
            return Ok(source);
        }
        let (place, keys, seen) = match (&settings.file, &settings.url) {
            (Some(path), _) => {
                let bytes = read(path)?;
                (Place::File(path.clone()), Some(Arc::new(parse(path, &bytes)?)), Some(digest(&bytes)))
            }
            (None, Some(url)) => {
                let tls = settings.tls.clone().unwrap_or_default();
                let tls = url.is_secure().then(|| self.0.tls.client(&tls)).transpose()?;
                (Place::Url(Remote::new(url.clone(), tls, Arc::clone(&self.0.dns))), None, None)
            }
            (None, None) => return Err(JwksError::Nowhere),
        };
        let source = Arc::new(Source {
            place,
            current: ArcSwapOption::new(keys),
            refresh: settings.refresh.as_std(),
            schedule: Mutex::new(Schedule { seen, failures: 0, fetching: false, last: None, next: None }),
            figures: Figures::default(),
            wanted: AtomicBool::new(false),
            inner: Arc::downgrade(&self.0),
        });
        if source.current().is_some() {
            source.figures.good(now());
        }
        sources.retain(|_, source| source.strong_count() > 0);
        sources.insert(settings.clone(), Arc::downgrade(&source));
        self.0.wake.notify_one();
        Ok(source)
    }

    /// Says what is wrong with a file.
    pub fn check(path: &str) -> Result<(), JwksError> {
        parse(path, &read(path)?).map(drop)
    }

    /// Keeps all sets current, until it is dropped.
    pub async fn follow(self) {
        let mut fetches = JoinSet::new();
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.refresh(),
                () = self.0.wake.notified() => {}
                Some(_) = fetches.join_next() => continue,
            }
            for source in self.living().into_iter().filter(|source| source.begins_fetch(Instant::now())) {
                fetches.spawn(async move { source.fetch().await });
            }
        }
    }

    /// Looks at all files now.
    pub fn refresh(&self) {
        self.living().iter().for_each(|source| source.reread());
    }

    fn living(&self) -> Vec<Arc<Source>> {
        self.sources().values().filter_map(Weak::upgrade).collect()
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<Jwks, Weak<Source>>> {
        self.0.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// None until a URL has given a set for the first time.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// A token names a key that is not in the set: it may be new.
    pub(super) fn want(&self) {
        if matches!(self.place, Place::Url(_)) && !self.wanted.swap(true, Ordering::Relaxed) {
            self.inner.upgrade().inspect(|inner| inner.wake.notify_one());
        }
    }

    fn begins_fetch(&self, now: Instant) -> bool {
        let mut schedule = self.schedule();
        let due = schedule.next.is_none_or(|next| next <= now);
        let paused = schedule.last.is_some_and(|last| now < last + PAUSE);
        let wanted = self.wanted.load(Ordering::Relaxed) && !paused;
        if matches!(self.place, Place::File(_)) || schedule.fetching || !(due || wanted) {
            return false;
        }
        self.wanted.store(false, Ordering::Relaxed);
        (schedule.fetching, schedule.last) = (true, Some(now));
        true
    }

    async fn fetch(&self) {
        let Place::Url(remote) = &self.place else { return };
        let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
        let ask = Ask {
            method: Method::GET,
            headers: HeaderMap::from_iter([(header::ACCEPT, accept)]),
            body: bytes::Bytes::new(),
            limit: FETCH,
            most: MAX_SIZE,
        };
        let url = || remote.url().to_string();
        let answer = remote.ask(ask).await;
        let found = answer
            .map_err(|source| JwksError::Unreachable { url: url(), source })
            .and_then(|bytes| Ok((digest(&bytes), parse(&url(), &bytes)?)));
        let mut schedule = self.schedule();
        schedule.fetching = false;
        let wait = match found {
            Ok((digest, keys)) => {
                self.figures.good(now());
                schedule.failures = 0;
                if schedule.seen.replace(digest) != Some(digest) {
                    self.take(keys);
                }
                self.refresh
            }
            Err(error) => {
                self.figures.failed();
                tracing::warn!(%error, "a key set could not be fetched, the one before is kept");
                let wait = RETRY.saturating_mul(1 << schedule.failures.min(6)).min(LONGEST_RETRY);
                schedule.failures += 1;
                wait.min(self.refresh)
            }
        };
        schedule.next = Some(Instant::now() + wait);
    }

    fn reread(&self) {
        let Place::File(path) = &self.place else { return };
        let read = read(path);
        let found = read.as_ref().ok().map(|bytes| digest(bytes));
        let mut schedule = self.schedule();
        if schedule.seen == found {
            return;
        }
        schedule.seen = found;
        match read.and_then(|bytes| parse(path, &bytes)) {
            Ok(keys) => {
                self.figures.good(now());
                self.take(keys);
            }
            Err(error) => {
                self.figures.failed();
                tracing::error!(%error, "a new key set cannot be used, the one before is kept");
            }
        }
    }

    fn take(&self, keys: KeySet) {
        let place = self.name();
        tracing::info!(%place, keys = keys.len(), "a new key set is in use");
        self.current.store(Some(Arc::new(keys)));
    }

    /// A path, or a URL without its query, which may hold a secret.
    fn name(&self) -> String {
        match &self.place {
            Place::File(path) => path.clone(),
            Place::Url(remote) => remote.url().to_string().split('?').next().unwrap_or_default().to_owned(),
        }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for KeySets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut all = BTreeMap::<String, Shown>::new();
        for source in self.living() {
            let shown = source.figures.show(source.current().map_or(0, |keys| keys.len()));
            match all.get_mut(&source.name()) {
                Some(same) => same.add(shown),
                None => drop(all.insert(source.name(), shown)),
            }
        }
        figures::encode(&mut encoder, &all)
    }
}

fn parse(place: &str, bytes: &[u8]) -> Result<KeySet, JwksError> {
    KeySet::parse(bytes)
        .map_err(|error| JwksError::Unusable { place: place.to_owned(), source: error.into() })
}

fn read(path: &str) -> Result<Vec<u8>, JwksError> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(JwksError::Unreadable { path: path.to_owned(), source }),
        Ok(length) if length > MAX_SIZE => Err(JwksError::TooLarge { path: path.to_owned() }),
        Ok(_) => Ok(bytes),
    }
}

impl fmt::Debug for KeySets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeySets").finish_non_exhaustive()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Source").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_set_is_fetched_when_it_is_due_and_sooner_for_an_unknown_key_but_not_all_the_time() {
        let jwks = Jwks {
            file: None,
            url: Some("http://127.0.0.1:1/keys".parse().unwrap()),
            tls: None,
            refresh: crds::units::Duration::from_secs(300),
        };
        let sets = KeySets::default();
        let source = sets.load(&jwks).unwrap();
        let finish = || {
            let mut schedule = source.schedule();
            (schedule.fetching, schedule.next) = (false, Some(Instant::now() + source.refresh));
        };
        assert!(source.begins_fetch(Instant::now()), "the first one");
        assert!(!source.begins_fetch(Instant::now()), "it is under way");
        finish();
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(!source.begins_fetch(after(299)));
        source.want();
        assert!(!source.begins_fetch(after(9)), "it was fetched a moment ago");
        assert!(source.begins_fetch(after(10)), "a token has named an unknown key");
        finish();
        assert!(!source.begins_fetch(after(299)), "one fetch is enough for all of them");
        assert!(source.begins_fetch(after(300)));
    }

    #[test]
    fn a_wrong_file_is_told_with_its_remedy() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for (text, expected) in [("", "no JSON Web Key Set"), (&" ".repeat(2 << 20), "bytes")] {
            fs::write(path, text).unwrap();
            let error = KeySets::check(path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(path) && error.contains("; "), "{error}");
        }
        assert!(matches!(KeySets::check("/nowhere"), Err(JwksError::Unreadable { .. })));
    }
}
