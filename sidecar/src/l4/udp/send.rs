//! Messages that came in -> as few calls as send them on to one destination, in their order.
//!
//! What the kernel has put together goes out as it came, and datagrams of equal size one after the other go out together, as
//! far as the kernel cuts them apart again; the others go one by one, with one call for many.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    os::fd::BorrowedFd,
};

use crate::net::datagrams::{BATCH, MAX_BYTES, MAX_SEGMENTS, To, send_each, send_segments};

/// One message as it came in: a datagram, or several of `segment` bytes, of which the last one may be shorter.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Piece<'a> {
    bytes: &'a [u8],
    segment: usize,
}

/// How far pieces were sent: so many of them, and so many bytes of the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    piece: usize,
    offset: usize,
}

/// What came of sending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// Datagrams that this way does not take.
    pub(super) too_long: u64,
    /// Datagrams that there was no room for.
    pub(super) no_buffer: u64,
}

/// A destination, and the socket that leads there.
#[derive(Debug)]
pub(super) struct Way<'a> {
    pub(super) socket: BorrowedFd<'a>,
    pub(super) to: To,
    /// Whether the kernel cuts messages apart on this way. Cleared when it says that it does not.
    pub(super) segments: &'a Cell<bool>,
}

/// What one call sends.
struct Load<'a> {
    slices: [IoSlice<'a>; BATCH],
    count: usize,
    datagrams: usize,
    bytes: usize,
    next: Cursor,
}

impl<'a> Piece<'a> {
    pub(super) fn new(bytes: &'a [u8], segment: usize) -> Self {
        Self { bytes, segment }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn datagrams(&self) -> u64 {
        datagrams_of(self.bytes.len(), self.segment) as u64
    }
}

/// Datagrams from the cursor on.
pub(super) fn left(pieces: &[Piece<'_>], at: Cursor) -> u64 {
    let rest = pieces.get(at.piece..).unwrap_or_default();
    let sent = rest.first().map_or(0, |piece| at.offset / piece.segment.max(1));
    rest.iter().map(Piece::datagrams).sum::<u64>() - sent as u64
}

/// Sends from the cursor on, which moves past all that was sent or dropped. On an error the way leads nowhere, and the cursor
/// stands at what might go another way.
pub(super) fn send(way: &Way<'_>, pieces: &[Piece<'_>], at: &mut Cursor, sent: &mut Sent) -> io::Result<()> {
    while at.piece < pieces.len() {
        if way.segments.get()
            && let Some((load, segment)) = segmented(pieces, *at)
        {
            match send_segments(way.socket, &way.to, load.slices(), segment) {
                Ok(()) => load.sent(at, sent),
                Err(error) => match fault(&error) {
                    Fault::Again => {}
                    Fault::NoBuffer => {
                        drop_rest(pieces, at, sent);
                        return Ok(());
                    }
                    Fault::TooLong | Fault::Unsupported => way.segments.set(false),
                    Fault::Way => return Err(error),
                },
            }
            continue;
        }
        let load = singles(pieces, *at, way.segments.get());
        match send_each(way.socket, &way.to, load.slices()) {
            Ok(count) if count == load.count => load.sent(at, sent),
            Ok(count) => {
                for _ in 0..count {
                    let datagram = next_of(pieces, at);
                    sent.datagrams += 1;
                    sent.bytes += datagram.len() as u64;
                }
            }
            Err(error) => match fault(&error) {
                Fault::Again => {}
                Fault::NoBuffer => {
                    drop_rest(pieces, at, sent);
                    return Ok(());
                }
                Fault::TooLong => {
                    next_of(pieces, at);
                    sent.too_long += 1;
                }
                Fault::Unsupported | Fault::Way => return Err(error),
            },
        }
    }
    Ok(())
}

/// What an error of sending is about.
enum Fault {
    Again,
    NoBuffer,
    TooLong,
    /// The kernel does not cut messages apart here: the driver cannot, or the size does not fit.
    Unsupported,
    Way,
}

fn fault(error: &io::Error) -> Fault {
    match error.raw_os_error() {
        Some(libc::EINTR) => Fault::Again,
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Fault::NoBuffer,
        Some(libc::EMSGSIZE) => Fault::TooLong,
        Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOPROTOOPT) => Fault::Unsupported,
        _ => Fault::Way,
    }
}

fn drop_rest(pieces: &[Piece<'_>], at: &mut Cursor, sent: &mut Sent) {
    sent.no_buffer += left(pieces, *at);
    *at = Cursor { piece: pieces.len(), offset: 0 };
}

/// Several datagrams of one size, which go with one message, and the size; none if the next ones do not go together.
fn segmented<'a>(pieces: &[Piece<'a>], mut at: Cursor) -> Option<(Load<'a>, u16)> {
    let mut load = Load::new(at);
    let mut size = 0;
    while load.count < BATCH
        && let Some(piece) = pieces.get(at.piece)
    {
        let rest = &piece.bytes[at.offset..];
        let segment = piece.segment.min(rest.len());
        if load.count == 0 {
            size = segment;
        }
        // A shorter one may only be the last, and alone in its piece.
        if segment == 0 || segment > size || (segment < size && rest.len() > segment) {
            break;
        }
        let room = (MAX_SEGMENTS - load.datagrams).min((MAX_BYTES - load.bytes) / size);
        let fits = rest.len() <= MAX_BYTES - load.bytes
            && load.datagrams + datagrams_of(rest.len(), size) <= MAX_SEGMENTS;
        let taken = if fits { rest.len() } else { room * size };
        if taken == 0 {
            break;
        }
        at = if fits {
            Cursor { piece: at.piece + 1, offset: 0 }
        } else {
            Cursor { offset: at.offset + taken, ..at }
        };
        load.push(&rest[..taken], datagrams_of(taken, size), at);
        if !fits || !taken.is_multiple_of(size) {
            break;
        }
    }
    let segment = u16::try_from(size).ok()?;
    (load.datagrams > 1).then_some((load, segment))
}

/// The next datagrams one by one, at least one. `segments`: up to those that go together.
fn singles<'a>(pieces: &[Piece<'a>], mut at: Cursor, segments: bool) -> Load<'a> {
    let mut load = Load::new(at);
    while load.count < BATCH && at.piece < pieces.len() {
        if segments && load.count > 0 && segmented(pieces, at).is_some() {
            break;
        }
        let datagram = next_of(pieces, &mut at);
        load.push(datagram, 1, at);
    }
    load
}

/// Moves the cursor past one datagram.
fn next_of<'a>(pieces: &[Piece<'a>], at: &mut Cursor) -> &'a [u8] {
    let Some(piece) = pieces.get(at.piece) else { return &[] };
    let rest = &piece.bytes[at.offset..];
    let datagram = &rest[..piece.segment.min(rest.len())];
    at.offset += datagram.len();
    if at.offset == piece.bytes.len() {
        *at = Cursor { piece: at.piece + 1, offset: 0 };
    }
    datagram
}

/// Even nothing is one.
fn datagrams_of(bytes: usize, segment: usize) -> usize {
    if segment == 0 { 1 } else { bytes.div_ceil(segment).max(1) }
}

impl<'a> Load<'a> {
    fn new(at: Cursor) -> Self {
        Self { slices: [IoSlice::new(&[]); BATCH], count: 0, datagrams: 0, bytes: 0, next: at }
    }

    fn push(&mut self, bytes: &'a [u8], datagrams: usize, next: Cursor) {
        self.slices[self.count] = IoSlice::new(bytes);
        self.count += 1;
        self.datagrams += datagrams;
        self.bytes += bytes.len();
        self.next = next;
    }

    fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.count]
    }

    fn sent(&self, at: &mut Cursor, sent: &mut Sent) {
        sent.datagrams += self.datagrams as u64;
        sent.bytes += self.bytes as u64;
        *at = self.next;
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use proptest::prelude::*;

    use super::*;
    use crate::net::datagrams::Batch;

    /// Sizes of what is sent together, and of what is sent one by one.
    fn plan(pieces: &[(usize, usize)], segments: bool) -> Vec<(&'static str, Vec<usize>)> {
        let bytes = vec![0; 1 << 16];
        let pieces: Vec<_> =
            pieces.iter().map(|&(length, size)| Piece::new(&bytes[..length], size)).collect();
        let (mut at, mut plan) = (Cursor::default(), Vec::new());
        while at.piece < pieces.len() {
            let together = segmented(&pieces, at).filter(|_| segments);
            let (how, load) = match together {
                Some((load, _)) => ("together", load),
                None => ("each", singles(&pieces, at, segments)),
            };
            plan.push((how, load.slices().iter().map(|slice| slice.len()).collect()));
            at = load.next;
        }
        plan
    }

    #[test]
    fn equal_sizes_go_together_and_a_shorter_one_may_end_them() {
        for (pieces, expected) in [
            (vec![(1200, 1200)], vec![("each", vec![1200])]),
            (vec![(1200, 1200); 3], vec![("together", vec![1200; 3])]),
            (
                vec![(1200, 1200), (1200, 1200), (7, 7), (7, 7), (9, 9)],
                vec![("together", vec![1200, 1200, 7]), ("each", vec![7, 9])],
            ),
            (vec![(1, 1), (2, 2), (3, 3)], vec![("each", vec![1, 2, 3])]),
            (vec![(5, 5), (9, 9), (9, 9)], vec![("each", vec![5]), ("together", vec![9, 9])]),
            (vec![(0, 0), (0, 0)], vec![("each", vec![0, 0])]),
            (vec![(9, 9), (0, 0), (9, 9)], vec![("each", vec![9, 0, 9])]),
        ] {
            assert_eq!(plan(&pieces, true), expected, "{pieces:?}");
        }
    }

    #[test]
    fn what_came_together_goes_as_it_came_unless_it_is_too_much() {
        assert_eq!(plan(&[(3600, 1200)], true), [("together", vec![3600])]);
        assert_eq!(plan(&[(3600, 1200), (2400, 1200)], true), [("together", vec![3600, 2400])]);
        assert_eq!(
            plan(&[(3000, 1200), (1200, 1200)], true),
            [("together", vec![3000]), ("each", vec![1200])]
        );
        assert_eq!(
            plan(&[(3600, 1200), (900, 300)], true),
            [("together", vec![3600]), ("together", vec![900])]
        );
        assert_eq!(plan(&[(700, 10)], true), [("together", vec![640]), ("together", vec![60])]);
        assert_eq!(
            plan(&[(65_500, 1200); 2], true),
            [("together", vec![65_500]), ("together", vec![65_500])]
        );
        assert_eq!(plan(&[(65_536, 1200)], true), [("together", vec![64_800]), ("each", vec![736])]);
        assert_eq!(
            plan(&[(64_800, 1200), (1200, 1200)], true),
            [("together", vec![64_800]), ("each", vec![1200])]
        );
        assert_eq!(plan(&[(MAX_BYTES, MAX_BYTES); 2], true), [("each", vec![MAX_BYTES; 2])]);
    }

    #[test]
    fn without_segments_all_go_one_by_one() {
        assert_eq!(plan(&[(3000, 1200), (7, 7)], false), [("each", vec![1200, 1200, 600, 7])]);
        let many = plan(&[(BATCH * 2 + 1, 1)], false);
        assert_eq!(many.iter().map(|(_, sizes)| sizes.len()).collect::<Vec<_>>(), [BATCH, BATCH, 1]);
    }

    /// A sender and a receiver, both with the kernel's help.
    fn pair() -> (UdpSocket, UdpSocket) {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (from, to) = (socket(), socket());
        from.connect(to.local_addr().unwrap()).unwrap();
        (from, to)
    }

    fn send_all(from: &UdpSocket, segments: &Cell<bool>, pieces: &[Piece<'_>]) -> (Sent, Cursor) {
        let way = Way { socket: from.as_fd(), to: To { address: None, from: None }, segments };
        let (mut at, mut sent) = (Cursor::default(), Sent::default());
        send(&way, pieces, &mut at, &mut sent).unwrap();
        (sent, at)
    }

    #[test]
    fn one_that_is_too_long_is_dropped_and_the_others_go() {
        let (from, to) = pair();
        let bytes = vec![7; MAX_BYTES + 1];
        let pieces = [1, MAX_BYTES + 1, 2].map(|length| Piece::new(&bytes[..length], length));
        let (sent, at) = send_all(&from, &Cell::new(true), &pieces);
        assert_eq!(sent, Sent { datagrams: 2, bytes: 3, too_long: 1, no_buffer: 0 });
        assert_eq!(left(&pieces, at), 0);
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&to).unwrap(), 2);
    }

    #[test]
    fn a_way_without_segments_is_used_without_them() {
        // A size that does not fit into a packet of the loopback, with its headers.
        let (from, to) = pair();
        socket2::SockRef::from(&to).set_recv_buffer_size(1 << 20).unwrap();
        let segments = Cell::new(true);
        let bytes = vec![7; 100];
        let way = Way { socket: from.as_fd(), to: To { address: None, from: None }, segments: &segments };
        let (mut at, mut sent) = (Cursor::default(), Sent::default());
        segments.set(false);
        send(&way, &[Piece::new(&bytes, 30)], &mut at, &mut sent).unwrap();
        assert_eq!((sent.datagrams, sent.bytes), (4, 100));
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&to).unwrap(), 4);
    }

    #[test]
    fn a_way_that_leads_nowhere_leaves_what_was_not_sent() {
        let (from, to) = pair();
        drop(to);
        let segments = Cell::new(true);
        let way = Way { socket: from.as_fd(), to: To { address: None, from: None }, segments: &segments };
        let bytes = [7; 100];
        let pieces = [Piece::new(&bytes, 100), Piece::new(&bytes, 30)];
        let (mut at, mut sent) = (Cursor::default(), Sent::default());
        // The first one is told only afterwards that nobody was there.
        send(&way, &pieces[..1], &mut at, &mut sent).unwrap();
        let mut at = Cursor::default();
        let error = send(&way, &pieces, &mut at, &mut sent).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(left(&pieces, at), 5);
    }

    proptest! {
        /// However datagrams came in, and with segments or without, they arrive in their order with their sizes.
        #[test]
        fn every_datagram_arrives_as_it_was(
            pieces in prop::collection::vec((0usize..2000, 1usize..600), 1..20), segments: bool,
        ) {
            let (from, to) = pair();
            socket2::SockRef::from(&to).set_recv_buffer_size(1 << 20).unwrap();
            let texts: Vec<Vec<u8>> = pieces.iter().enumerate().map(|(n, (length, _))| vec![n as u8; *length]).collect();
            let pieces: Vec<_> =
                texts.iter().zip(&pieces).map(|(text, (_, segment))| Piece::new(text, *segment)).collect();
            // What does not fit into the receiver's buffer would be lost.
            let total: u64 = pieces.iter().map(|piece| piece.datagrams() * 768 + piece.bytes()).sum();
            prop_assume!(total < 150_000);
            let (sent, at) = send_all(&from, &Cell::new(segments), &pieces);
            let expected: Vec<Vec<u8>> = texts.iter().zip(&pieces).flat_map(|(text, piece)| {
                if text.is_empty() { vec![Vec::new()] } else { text.chunks(piece.segment).map(<[u8]>::to_vec).collect() }
            }).collect();
            prop_assert_eq!(left(&pieces, at), 0);
            prop_assert_eq!(sent.datagrams, expected.len() as u64);
            prop_assert_eq!(sent.bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
            let (mut batch, mut arrived) = (Batch::new(), Vec::new());
            to.set_nonblocking(true).unwrap();
            while batch.receive(&to).is_ok() {
                arrived.extend(batch.iter().map(|message| message.bytes.to_vec()));
            }
            prop_assert_eq!(arrived, expected);
        }
    }
}
