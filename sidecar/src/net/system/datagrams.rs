//! Many datagrams with one call: a batch in, each with its sender, the address that it was written to and the size of its
//! segments; out to one destination, as segments that the kernel cuts apart or one by one.
//!
//! What the unsafe code relies on:
//!
//! - Every pointer that the kernel is given points to memory that lives longer than the call, with its true length beside it. For
//!   sending, that memory is on the stack of the function that calls, or borrowed by it. For receiving, it is a [`Frame`] on the
//!   heap, which does not move and is touched through its one pointer alone.
//! - What the kernel says it has written is cut to what there is room for before it is read.
//! - Only plain data, for which all bits are valid, is read from what the kernel has written.

use std::{
    ffi::c_int,
    io::{self, IoSlice},
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
    ptr::{self, NonNull},
    slice,
};

/// Messages of one call, at most.
pub const BATCH: usize = 32;

/// Datagrams that the kernel makes of one message, at most. Newer kernels would do more.
pub const MAX_SEGMENTS: usize = 64;

/// Bytes of one message, at most: the longest datagram of IPv4.
pub const MAX_BYTES: usize = 65_507;

/// Room for a message that comes in: the longest datagram, or what the kernel has put together.
const ROOM: usize = 64 * 1024;

/// From one room to the next. Whole pages would have the beginnings of all of them share one place in the processor's cache.
const STRIDE: usize = ROOM + 19 * 64;

/// Enough for an address of IPv6 and a size.
const CONTROL: usize = 96;

/// Where a message goes.
#[derive(Debug, Clone, Copy)]
pub struct To {
    /// None for the address that the socket is connected to.
    pub address: Option<SocketAddr>,
    /// The own address that it leaves from, of the socket's family; none for the one that the kernel chooses.
    pub from: Option<IpAddr>,
}

/// One message that came in.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// A datagram, or several: all of `segment` bytes but for the last one, which may be shorter.
    pub bytes: &'a [u8],
    pub segment: usize,
    /// None if it is no IP address.
    pub from: Option<SocketAddr>,
    /// The own address that it was written to, where [`tell_destinations`] was asked for.
    pub to: Option<IpAddr>,
    /// Its end is missing.
    pub cut: bool,
}

/// Messages that came in with one call. It takes 2 MiB, of which only what was written to is memory.
#[derive(Debug)]
pub struct Batch {
    frame: NonNull<Frame>,
    heads: Vec<Head>,
}

/// What is known of a message besides its bytes.
#[derive(Debug)]
struct Head {
    length: usize,
    segment: usize,
    from: Option<SocketAddr>,
    to: Option<IpAddr>,
    cut: bool,
}

/// What the kernel writes to. All zeros are a valid one.
#[repr(C)]
struct Frame {
    headers: [libc::mmsghdr; BATCH],
    slices: [libc::iovec; BATCH],
    names: [Name; BATCH],
    controls: [Control; BATCH],
    rooms: [[u8; STRIDE]; BATCH],
}

/// A socket's address as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Room for control messages, aligned as they are.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    pub fn new() -> Self {
        // SAFETY: all of it is plain data, integers and raw pointers, for which zeros are valid.
        let frame = unsafe { Box::<Frame>::new_zeroed().assume_init() };
        let frame = NonNull::from(Box::leak(frame));
        let at = frame.as_ptr();
        for index in 0..BATCH {
            // SAFETY: `at` points to a frame that is initialised, and `index` is within its arrays.
            unsafe {
                (*at).slices[index] =
                    libc::iovec { iov_base: (&raw mut (*at).rooms[index]).cast(), iov_len: ROOM };
                let header = &raw mut (*at).headers[index].msg_hdr;
                (*header).msg_name = (&raw mut (*at).names[index]).cast();
                (*header).msg_iov = &raw mut (*at).slices[index];
                (*header).msg_iovlen = 1;
                (*header).msg_control = (&raw mut (*at).controls[index]).cast();
            }
        }
        Self { frame, heads: Vec::with_capacity(BATCH) }
    }

    /// Takes in what is there, at most [`BATCH`] messages, in place of those of the call before; gives their number. Never waits.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.heads.clear();
        let at = self.frame.as_ptr();
        for index in 0..BATCH {
            // SAFETY: as in `new`. The lengths are those of what the pointers beside them point to.
            unsafe {
                let header = &raw mut (*at).headers[index].msg_hdr;
                (*header).msg_namelen = mem::size_of::<Name>() as libc::socklen_t;
                (*header).msg_controllen = CONTROL as _;
            }
        }
        // SAFETY: there are BATCH headers, whose pointers and lengths were set above and in `new`; no time-out is given.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                (&raw mut (*at).headers).cast(),
                BATCH as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?.min(BATCH);
        for index in 0..count {
            // SAFETY: the kernel has written this header and what it points to, and writes no more.
            let head = unsafe { Head::read(&(*at).headers[index], &(*at).names[index]) };
            self.heads.push(head);
        }
        Ok(count)
    }

    /// Forgets what came in.
    pub fn clear(&mut self) {
        self.heads.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        self.heads.iter().enumerate().map(|(index, head)| {
            // SAFETY: `index` is below BATCH, `length` is at most ROOM, and nothing writes to the room while `self` is borrowed.
            let bytes = unsafe {
                let room: *const u8 = (&raw const (*self.frame.as_ptr()).rooms[index]).cast();
                slice::from_raw_parts(room, head.length)
            };
            let &Head { segment, from, to, cut, .. } = head;
            Received { bytes, segment, from, to, cut }
        })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a box, and this is its end.
        drop(unsafe { Box::from_raw(self.frame.as_ptr()) });
    }
}

impl Head {
    /// # Safety
    /// The kernel has filled the header in, whose control messages are still there.
    unsafe fn read(header: &libc::mmsghdr, name: &Name) -> Self {
        let length = (header.msg_len as usize).min(ROOM);
        let mut head = Self {
            length,
            segment: length,
            from: name.address(),
            to: None,
            cut: header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        };
        // SAFETY: the kernel has left a list of control messages, and its length.
        let mut message = unsafe { libc::CMSG_FIRSTHDR(&header.msg_hdr) };
        while !message.is_null() {
            // SAFETY: the macro gives messages whose heads are within the list.
            let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    // SAFETY: it is an integer.
                    let size = unsafe { data::<c_int>(message) };
                    let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
                    head.segment = size.unwrap_or(length);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // SAFETY: it is plain data.
                    let info = unsafe { data::<libc::in_pktinfo>(message) };
                    head.to = info.map(|info| Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    // SAFETY: it is plain data.
                    let info = unsafe { data::<libc::in6_pktinfo>(message) };
                    head.to = info.map(|info| Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => {}
            }
            // SAFETY: as for the first one.
            message = unsafe { libc::CMSG_NXTHDR(&header.msg_hdr, message) };
        }
        head
    }
}

/// What a control message carries; none if it is too short for that.
///
/// # Safety
/// All bits are a valid `T`, and the message is in a list that the kernel has left.
unsafe fn data<T: Copy>(message: *const libc::cmsghdr) -> Option<T> {
    // SAFETY: it only counts.
    let wanted = unsafe { libc::CMSG_LEN(mem::size_of::<T>() as u32) } as usize;
    // SAFETY: the message is there, and the read is of bytes that its length covers.
    unsafe { ((*message).cmsg_len >= wanted).then(|| libc::CMSG_DATA(message).cast::<T>().read_unaligned()) }
}

impl Name {
    fn of(address: SocketAddr) -> (Self, libc::socklen_t) {
        match address {
            SocketAddr::V4(address) => {
                let v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: in_addr(*address.ip()),
                    sin_zero: [0; 8],
                };
                (Self { v4 }, mem::size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(address) => {
                let v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                (Self { v6 }, mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        // SAFETY: all variants are plain data that begins with the family, and all bytes were initialised.
        match c_int::from(unsafe { self.family }) {
            libc::AF_INET => {
                // SAFETY: as above.
                let v4 = unsafe { self.v4 };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { self.v6 };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from(ip).to_be() }
}

/// What goes with each message to one destination.
struct Envelope {
    name: Option<(Name, libc::socklen_t)>,
    control: Control,
    control_length: usize,
}

impl Envelope {
    fn new(to: &To, segment: Option<u16>) -> Self {
        let mut envelope =
            Self { name: to.address.map(Name::of), control: Control([0; CONTROL]), control_length: 0 };
        match to.from {
            Some(IpAddr::V4(ip)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: in_addr(ip),
                    ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
                };
                envelope.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(IpAddr::V6(ip)) => {
                let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
                envelope.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
            None => {}
        }
        if let Some(segment) = segment {
            envelope.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
        }
        envelope
    }

    /// Adds a control message.
    fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
        let size = mem::size_of::<T>() as u32;
        // SAFETY: these only count.
        let (length, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size) as usize) };
        let place = &mut self.control.0[self.control_length..][..space];
        let message: *mut libc::cmsghdr = place.as_mut_ptr().cast();
        // SAFETY: head and value end within the place, which has the space that the macro asks for, and is aligned as the first
        // one is, since spaces are whole words.
        unsafe {
            (*message).cmsg_len = length as _;
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
        }
        self.control_length += space;
    }

    /// A header for one message of these slices. It is valid for as long as they and the envelope are.
    fn header(&self, slices: &[IoSlice<'_>]) -> libc::msghdr {
        // SAFETY: it is plain data, for which zeros are valid.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        if let Some((name, length)) = &self.name {
            header.msg_name = ptr::from_ref(name).cast_mut().cast();
            header.msg_namelen = *length;
        }
        // An IoSlice is an iovec, says the standard library; neither it nor the name nor the control messages are written to.
        header.msg_iov = slices.as_ptr().cast_mut().cast();
        header.msg_iovlen = slices.len() as _;
        if self.control_length > 0 {
            header.msg_control = self.control.0.as_ptr().cast_mut().cast();
            header.msg_controllen = self.control_length as _;
        }
        header
    }
}

/// Sends one message, which the kernel cuts into datagrams of `segment` bytes. The slices follow each other; they are at most
/// [`MAX_BYTES`] and [`MAX_SEGMENTS`] in all. Never waits.
pub fn send_segments(socket: impl AsFd, to: &To, slices: &[IoSlice<'_>], segment: u16) -> io::Result<()> {
    let envelope = Envelope::new(to, Some(segment));
    let header = envelope.header(slices);
    // SAFETY: the header points to the envelope and the slices, which outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, FLAGS) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends each slice as a datagram, at most [`BATCH`] of them, and gives the number of those that went. An error is that of the
/// first one. Never waits.
pub fn send_each(socket: impl AsFd, to: &To, datagrams: &[IoSlice<'_>]) -> io::Result<usize> {
    let envelope = Envelope::new(to, None);
    // SAFETY: it is plain data, for which zeros are valid.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let datagrams = &datagrams[..datagrams.len().min(BATCH)];
    for (header, datagram) in headers.iter_mut().zip(datagrams) {
        header.msg_hdr = envelope.header(slice::from_ref(datagram));
    }
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: as many headers as there are datagrams were filled in, and point to the envelope and the datagrams, which outlive the call.
    let sent = unsafe { libc::sendmmsg(socket, headers.as_mut_ptr(), datagrams.len() as _, FLAGS as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

const FLAGS: c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

#[cfg(test)]
#[path = "datagrams_tests.rs"]
mod tests;
