//! Moving bytes from socket to socket through a pipe, without a copy to user space. Pipes are pooled per thread and bounded
//! by the process: the kernel keeps their pages, and shrinks the pipes of a user that has too many.

use std::{
    cell::RefCell,
    io, mem,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::options;

/// What a pipe holds, at most; the kernel lets a user without privileges have 1 MiB.
const CAPACITY: usize = 1 << 20;

/// Pipes of the process: 64 of them reach the kernel's soft limit of pages for a user.
const MOST: usize = 32;

/// While the sink takes nothing, the source tells of so much or more: every segment would wake the thread for nothing.
const WORTH_WAKING: i32 = 256 * 1024;

/// Idle pipes that one thread keeps.
const KEPT: usize = 4;

static OPEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IDLE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, empty or between a fill and its drain.
#[derive(Debug)]
pub struct Pipe {
    /// None only while it is dropped.
    ends: Option<Ends>,
    held: usize,
    /// The source's low-water mark is up.
    raised: bool,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

impl Pipe {
    /// An empty pipe; none when all are in use, or the kernel gives no more.
    pub fn take() -> Option<Self> {
        let ends = IDLE.with_borrow_mut(Vec::pop).or_else(Ends::open)?;
        Some(Self { ends: Some(ends), held: 0, raised: false })
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes up to `most` bytes from a socket; 0 is the end of it. Only an empty pipe may be filled: a full one would look like
    /// a socket that has nothing.
    pub fn fill(&mut self, from: impl AsFd, most: u64) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(ends.capacity);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = splice(from, None, &ends.write, None, most, flags)?;
        self.held += moved;
        Ok(moved)
    }

    /// Gives what it holds to a socket.
    pub fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = splice(&ends.read, None, to, None, self.held, flags)?;
        self.held -= moved;
        Ok(moved)
    }

    /// The sink takes no more for now, and until it does the source, a TCP socket, need not wake the thread for each segment.
    pub fn raise_low_water(&mut self, source: impl AsFd) {
        // A source that does not know how is heard as before.
        self.raised = self.raised || options::set_low_water(source, WORTH_WAKING).is_ok();
    }

    /// The sink has taken everything: the source tells of each byte again. This must come before the source is read by other
    /// means, or goes to somebody else.
    pub fn reset_low_water(&mut self, source: impl AsFd) -> io::Result<()> {
        if mem::take(&mut self.raised) { reset_low_water(source) } else { Ok(()) }
    }
}

impl Ends {
    fn open() -> Option<Self> {
        if OPEN.fetch_add(1, Ordering::Relaxed) >= MOST {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let Ok((read, write)) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) else {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        // A smaller pipe does as well, only with more calls.
        let capacity = fcntl_setpipe_size(&write, CAPACITY).unwrap_or(64 * 1024);
        Some(Self { read, write, capacity })
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else { return };
        // At the end of the thread there is no pool any more, and the pipe is closed.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < KEPT {
                idle.push(ends);
            }
        });
    }
}

/// Has a source tell of each byte again whose pipe was given up before it was empty.
pub fn reset_low_water(source: impl AsFd) -> io::Result<()> {
    options::set_low_water(source, 1)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        sync::Mutex,
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::*;

    /// Pipes are counted for the whole process, and tests run side by side.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn bytes_go_through_in_order_and_the_rest_stays_in_the_socket() {
        let _alone = ONE_AT_A_TIME.lock();
        let (mut source, from) = UnixStream::pair().unwrap();
        let (to, mut sink) = UnixStream::pair().unwrap();
        source.write_all(b"hello world").unwrap();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(pipe.fill(&from, 5).unwrap(), 5);
        assert_eq!(pipe.drain(&to).unwrap(), 5);
        assert!(pipe.is_empty());
        let mut bytes = [0; 5];
        sink.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }

    #[tokio::test]
    async fn a_source_tells_of_much_and_of_its_end_alone_until_its_low_water_mark_is_reset() {
        async fn tells(source: &TcpStream) -> bool {
            timeout(Duration::from_secs(5), source.readable()).await.is_ok()
        }
        let _alone = ONE_AT_A_TIME.lock();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = async || {
            let sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            (sender, listener.accept().await.unwrap().0)
        };
        let (mut sender, mut source) = connect().await;
        // The kernel never waits for more than the window, which begins with one segment and grows.
        let large = vec![7; 4 << 20];
        let mut got = vec![0; large.len()];
        let (sent, got) = tokio::join!(sender.write_all(&large), source.read_exact(&mut got));
        sent.unwrap();
        got.unwrap();
        assert!(source.try_read(&mut [0]).is_err(), "that was all, and now tokio knows");
        let mut pipe = Pipe::take().unwrap();
        pipe.raise_low_water(&source);
        sender.write_all(b"a").await.unwrap();
        assert!(timeout(Duration::from_millis(50), source.readable()).await.is_err(), "one byte is not much");
        pipe.reset_low_water(&source).unwrap();
        assert!(tells(&source).await, "of the byte that came before");

        let (mut sender, source) = connect().await;
        pipe.raise_low_water(&source);
        let (_, told) =
            tokio::join!(timeout(Duration::from_secs(1), sender.write_all(&large)), tells(&source));
        assert!(told, "of much");

        let (sender, source) = connect().await;
        pipe.raise_low_water(&source);
        drop(sender);
        assert!(tells(&source).await, "of the end");
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_never_used_again() {
        let _alone = ONE_AT_A_TIME.lock();
        let (mut source, from) = UnixStream::pair().unwrap();
        source.write_all(b"secret").unwrap();
        let mut pipe = Pipe::take().unwrap();
        pipe.fill(&from, 6).unwrap();
        drop(pipe);
        let (to, mut sink) = UnixStream::pair().unwrap();
        source.write_all(b"public").unwrap();
        let mut pipe = Pipe::take().unwrap();
        pipe.fill(&from, 6).unwrap();
        pipe.drain(&to).unwrap();
        let mut bytes = [0; 6];
        sink.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"public");
    }

    #[test]
    fn pipes_are_bounded() {
        let _alone = ONE_AT_A_TIME.lock();
        let pipes: Vec<_> = std::iter::from_fn(Pipe::take).take(MOST * 2).collect();
        assert!(pipes.len() <= MOST);
        drop(pipes);
        assert!(Pipe::take().is_some());
    }
}
