//! What is promised of the first words of a connection whatever their bytes are; a broken promise panics.

#![allow(clippy::unwrap_used, reason = "a broken promise panics")]

use super::{Answers, CancelKey, HEAD, LONGEST_START, Opening, answers::LONGEST_TALK};

/// What a client asks for has a bounded length, and a request to cancel is passed on as it came.
pub(crate) fn client(bytes: &[u8]) {
    let Some((head, body)) = bytes.split_first_chunk::<HEAD>() else { return };
    match Opening::read(*head) {
        Ok(Opening::Start(rest)) => assert!(HEAD + rest <= LONGEST_START),
        Ok(Opening::Cancel(rest)) => {
            let Some(body) = body.get(..rest) else { return };
            let request = CancelKey::read(body).unwrap().request();
            assert_eq!(request, bytes[..HEAD + rest]);
        }
        _ => {}
    }
}

/// However a server's words are cut, the key in them is the same, and nothing is looked at behind it.
pub(crate) fn server(bytes: &[u8]) {
    if bytes.len() > LONGEST_TALK {
        return;
    }
    let (mut at_once, mut bit_by_bit) = (Answers::default(), Answers::default());
    let key = at_once.read(bytes);
    let same = bytes.chunks(1).find_map(|byte| bit_by_bit.read(byte));
    assert_eq!(key, same);
    assert!(key.is_none() || !at_once.goes_on());
    assert_eq!(at_once.goes_on(), bit_by_bit.goes_on());
    if let Some(key) = key {
        let said = &key.request()[HEAD..];
        assert!(memchr::memmem::find(bytes, said).is_some(), "a server has said it");
    }
}
