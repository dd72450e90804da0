//! Files of settings that count as they are now: path -> bytes within a bound -> what they mean, as a snapshot. They are read
//! again each second and compared, since the volume of a Secret swaps links and writes nothing. What cannot be used never
//! replaces what can, and is told of once.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval};

/// How soon a replaced file is noticed.
const POLL: Duration = Duration::from_secs(1);

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("{path} cannot be read ({source}); correct the path, or the rights of the file")]
    Failed { path: String, source: io::Error },
    #[error("{path} has more than {most} bytes; leave out what is not needed")]
    TooLarge { path: String, most: u64 },
}

/// What a file means.
pub trait Content: Sized {
    type Error: From<Unread>;

    /// Bytes of a file, at most.
    const MOST: u64;

    /// `path` is for the error.
    fn parse(path: &str, bytes: &[u8]) -> Result<Self, Self::Error>;
}

/// A file, and what it meant when it was good last.
#[derive(Debug)]
pub struct Followed<T> {
    path: String,
    current: ArcSwap<T>,
    /// Digest of what was read last, good or bad; none where it could not be read.
    seen: Mutex<Option<[u8; 32]>>,
}

impl<T: Content> Followed<T> {
    /// The file must be good now.
    pub fn load(path: &str) -> Result<Self, T::Error> {
        let bytes = read(path, T::MOST)?;
        let current = ArcSwap::from_pointee(T::parse(path, &bytes)?);
        Ok(Self { path: path.to_owned(), current, seen: Mutex::new(Some(digest(&bytes))) })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn current(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// Reads it again. None where it is as it was the last time; else what is used from now on, or why that before is kept.
    pub fn refresh(&self) -> Option<Result<Arc<T>, T::Error>> {
        let read = read(&self.path, T::MOST);
        let found = read.as_ref().ok().map(|bytes| digest(bytes));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == found {
            return None;
        }
        *seen = found;
        let parsed = read.map_err(T::Error::from).and_then(|bytes| T::parse(&self.path, &bytes));
        Some(parsed.map(|content| {
            let content = Arc::new(content);
            self.current.store(Arc::clone(&content));
            content
        }))
    }
}

/// Says what is wrong with a file.
pub fn check<T: Content>(path: &str) -> Result<(), T::Error> {
    T::parse(path, &read(path, T::MOST)?).map(drop)
}

/// All of a file that is not too large.
pub fn read(path: &str, most: u64) -> Result<Vec<u8>, Unread> {
    match read_to(path.as_ref(), most) {
        Err(source) => Err(Unread::Failed { path: path.to_owned(), source }),
        Ok(bytes) if bytes.len() as u64 > most => Err(Unread::TooLarge { path: path.to_owned(), most }),
        Ok(bytes) => Ok(bytes),
    }
}

/// A file up to one byte more than these, by which a larger one is known. Follows links as they are now.
pub fn read_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Has a look at files now and each second, until it is dropped.
pub async fn follow(mut look: impl FnMut()) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look();
    }
}

/// Tells contents apart, and nothing of them.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fs, os::unix::fs::symlink};

    use tokio::time::{sleep, timeout};

    use super::*;

    /// A number.
    #[derive(Debug)]
    struct Number(u32);

    #[derive(Debug, thiserror::Error)]
    enum NumberError {
        #[error(transparent)]
        Unread(#[from] Unread),
        #[error("{0} has no number; write one")]
        None(String),
    }

    impl Content for Number {
        type Error = NumberError;
        const MOST: u64 = 8;

        fn parse(path: &str, bytes: &[u8]) -> Result<Self, NumberError> {
            let number = std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok());
            number.map(Self).ok_or_else(|| NumberError::None(path.to_owned()))
        }
    }

    /// What has become of the file: nothing, another number, or an error.
    fn refresh(file: &Followed<Number>) -> String {
        match file.refresh() {
            None => "as it was".to_owned(),
            Some(Ok(number)) => number.0.to_string(),
            Some(Err(error)) => error.to_string().rsplit_once("; ").unwrap().1.to_owned(),
        }
    }

    #[test]
    fn what_is_good_counts_and_what_is_not_is_told_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        fs::write(path, "1").unwrap();
        let followed = Followed::<Number>::load(path).unwrap();
        for (text, told, current) in [
            (Some("1"), "as it was", 1),
            (Some("2"), "2", 2),
            (Some("x"), "write one", 2),
            (Some("x"), "as it was", 2),
            (Some("123456789"), "leave out what is not needed", 2),
            (Some("2"), "2", 2),
            (None, "correct the path, or the rights of the file", 2),
            (None, "as it was", 2),
            (Some("3"), "3", 3),
        ] {
            let _ = text.map_or_else(|| fs::remove_file(path), |text| fs::write(path, text));
            assert_eq!((refresh(&followed).as_str(), followed.current().0), (told, current), "{text:?}");
        }
    }

    #[test]
    fn a_link_that_is_swapped_is_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for number in ["1", "2"] {
            fs::create_dir(at(number)).unwrap();
            fs::write(at(number).join("file"), number).unwrap();
        }
        symlink("1", at("data")).unwrap();
        symlink("data/file", at("file")).unwrap();
        let followed = Followed::<Number>::load(at("file").to_str().unwrap()).unwrap();
        symlink("2", at("new")).unwrap();
        fs::rename(at("new"), at("data")).unwrap();
        assert_eq!(refresh(&followed), "2");
    }

    #[test]
    fn no_more_is_read_than_may_be() {
        for (most, expected) in [(0, 1), (5, 6), (u64::MAX, 10)] {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), "0123456789").unwrap();
            assert_eq!(read_to(file.path(), most).unwrap().len(), expected);
        }
        assert!(matches!(read("/dev/zero", 1 << 20), Err(Unread::TooLarge { .. })));
        assert!(matches!(read("/nowhere", 1), Err(Unread::Failed { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_looked_at_now_and_each_second() {
        let looks = Cell::new(0);
        let looking = follow(|| looks.set(looks.get() + 1));
        let _ = timeout(Duration::from_millis(3_500), looking).await;
        assert_eq!(looks.get(), 4);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(looks.get(), 4, "and no more when it was dropped");
    }
}
