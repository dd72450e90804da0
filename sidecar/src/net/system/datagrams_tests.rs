use std::net::UdpSocket;

use proptest::prelude::*;

use super::{
    super::options::{coalesce, tell_destinations},
    *,
};

const CONNECTED: To = To { address: None, from: None };

fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Two sockets on this address; the first one is connected to the second.
fn pair(ip: &str) -> (UdpSocket, UdpSocket) {
    let (from, to) = (socket(ip), socket(ip));
    from.connect(to.local_addr().unwrap()).unwrap();
    (from, to)
}

/// All that is there by now. The loopback delivers before a send returns.
fn take(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut batch = Batch::new();
    let mut all = Vec::new();
    while batch.receive(socket).is_ok() {
        for message in batch.iter() {
            assert!(!message.cut);
            match message.bytes {
                [] => all.push(Vec::new()),
                bytes => all.extend(bytes.chunks(message.segment).map(<[u8]>::to_vec)),
            }
        }
    }
    all
}

fn slices(datagrams: &[Vec<u8>]) -> Vec<IoSlice<'_>> {
    datagrams.iter().map(|datagram| IoSlice::new(datagram)).collect()
}

#[test]
fn a_batch_has_every_datagram_in_order_with_its_sender() {
    for ip in ["127.0.0.1", "::1"] {
        let (one, to) = pair(ip);
        let two = socket(ip);
        one.send(b"first").unwrap();
        two.send_to(b"", to.local_addr().unwrap()).unwrap();
        one.send(b"third").unwrap();
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&to).unwrap(), 3);
        let (a, b) = (one.local_addr().ok(), two.local_addr().ok());
        let got: Vec<_> = batch.iter().map(|message| (message.bytes.to_vec(), message.from)).collect();
        assert_eq!(got, [(b"first".to_vec(), a), (Vec::new(), b), (b"third".to_vec(), a)]);
        assert_eq!(batch.receive(&to).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(batch.is_empty(), "what a call before has brought is gone");
    }
}

#[test]
fn a_batch_has_a_bound_and_leaves_the_rest() {
    let (from, to) = pair("127.0.0.1");
    for byte in 0..=BATCH as u8 {
        from.send(&[byte]).unwrap();
    }
    let mut batch = Batch::new();
    assert_eq!(batch.receive(&to).unwrap(), BATCH);
    assert_eq!(batch.iter().last().unwrap().bytes, [BATCH as u8 - 1]);
    assert_eq!(batch.receive(&to).unwrap(), 1);
    assert_eq!(batch.iter().next().unwrap().bytes, [BATCH as u8]);
}

#[test]
fn the_longest_datagram_passes_whole_and_a_longer_one_is_refused() {
    let (from, to) = pair("127.0.0.1");
    let longest: Vec<u8> = (0..MAX_BYTES).map(|n| n as u8).collect();
    assert_eq!(send_each(&from, &CONNECTED, &[IoSlice::new(&longest)]).unwrap(), 1);
    assert!(take(&to) == [longest]);
    let longer = vec![0; MAX_BYTES + 1];
    let error = send_each(&from, &CONNECTED, &[IoSlice::new(&longer)]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
}

#[test]
fn segments_arrive_as_datagrams_and_together_where_that_is_wanted() {
    for (ip, together) in [("127.0.0.1", false), ("127.0.0.1", true), ("::1", true)] {
        let (from, to) = pair(ip);
        if together {
            coalesce(&to).unwrap();
        }
        let parts = [[1; 300], [2; 300]];
        let last = [3; 7];
        let slices = [IoSlice::new(&parts[0]), IoSlice::new(&parts[1]), IoSlice::new(&last)];
        send_segments(&from, &CONNECTED, &slices, 300).unwrap();
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&to).unwrap(), if together { 1 } else { 3 });
        if together {
            let message = batch.iter().next().unwrap();
            assert_eq!((message.bytes.len(), message.segment), (607, 300));
        }
        send_segments(&from, &CONNECTED, &slices, 300).unwrap();
        assert_eq!(take(&to), [vec![1; 300], vec![2; 300], vec![3; 7]]);
    }
}

#[test]
fn an_answer_leaves_from_the_address_that_was_written_to() {
    for (any, written) in [("0.0.0.0", "127.0.0.5"), ("::", "::1"), ("::", "127.0.0.5")] {
        let server = socket(any);
        tell_destinations(&server, any == "::").unwrap();
        let written: IpAddr = written.parse().unwrap();
        let client = UdpSocket::bind((if written.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
        // Connected, so that it takes answers from there alone.
        client.connect((written, server.local_addr().unwrap().port())).unwrap();
        client.send(b"question").unwrap();
        let mut batch = Batch::new();
        batch.receive(&server).unwrap();
        let question = batch.iter().next().unwrap();
        assert_eq!(question.to.map(|ip| ip.to_canonical()), Some(written));
        let to = To { address: question.from, from: question.to };
        send_each(&server, &to, &[IoSlice::new(b"one"), IoSlice::new(b"two")]).unwrap();
        send_segments(&server, &to, &[IoSlice::new(b"three"), IoSlice::new(b"four.")], 5).unwrap();
        assert_eq!(take(&client), [&b"one"[..], b"two", b"three", b"four."]);
    }
}

#[test]
fn a_message_whose_end_is_missing_is_told() {
    let (name, _) = Name::of(([127, 0, 0, 1], 53).into());
    for (flags, cut) in
        [(0, false), (libc::MSG_TRUNC, true), (libc::MSG_CTRUNC, true), (libc::MSG_EOR, false)]
    {
        // SAFETY: it is plain data, and zeros are a header without control messages.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_flags = flags;
        header.msg_len = u32::MAX;
        // SAFETY: as above.
        let head = unsafe { Head::read(&header, &name) };
        assert_eq!((head.cut, head.length), (cut, ROOM), "never more than there is room for");
    }
}

proptest! {
    #[test]
    fn an_address_stays_what_it_is(ip: IpAddr, port: u16, scope: u32) {
        let address = match ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
        };
        prop_assert_eq!(Name::of(address).0.address(), Some(address));
    }

    /// Nothing is read that the kernel has not written: bytes of an earlier, longer batch never show.
    #[test]
    fn datagrams_come_out_as_they_went_in(
        batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..BATCH), 1..4),
    ) {
        let (from, to) = pair("127.0.0.1");
        for datagrams in &batches {
            prop_assert_eq!(send_each(&from, &CONNECTED, &slices(datagrams)).unwrap(), datagrams.len());
            prop_assert_eq!(&take(&to), datagrams);
        }
    }
}
