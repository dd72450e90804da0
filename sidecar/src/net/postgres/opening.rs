//! What a client begins with. Its first eight bytes tell, and no more than these are taken.

use super::{CANCEL_REQUEST, GSS_REQUEST, LONGEST_SECRET, SSL_REQUEST};

/// A length and a code.
pub const HEAD: usize = 8;

/// The longest StartupMessage that PostgreSQL takes.
pub const LONGEST_START: usize = 10_000;

/// The first byte of a handshake.
const TLS: u8 = 0x16;

/// A CancelRequest has a process before its secret.
const PROCESS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// TLS begins without having been asked for.
    Tls,
    SslRequest,
    GssRequest,
    /// A CancelRequest, with the key in so many bytes.
    Cancel(usize),
    /// A StartupMessage, with so many bytes more. Which version of the protocol it asks for is between client and server.
    Start(usize),
}

/// Why a connection is none of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadOpening {
    #[error(
        "the client does not speak PostgreSQL: correct its port, or remove protocol and startTls from the listener"
    )]
    Foreign,
    #[error("the client begins with a message of {0} bytes, which none of PostgreSQL has")]
    Length(usize),
}

impl Opening {
    pub fn read(head: [u8; HEAD]) -> Result<Self, BadOpening> {
        let [a, b, c, d, code @ ..] = head;
        if a == TLS {
            return Ok(Self::Tls);
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let code = u32::from_be_bytes(code);
        // A longer one has a text in place of its length.
        if length > LONGEST_START {
            return Err(BadOpening::Foreign);
        }
        let rest = length.checked_sub(HEAD).ok_or(BadOpening::Length(length))?;
        match code {
            SSL_REQUEST if rest == 0 => Ok(Self::SslRequest),
            GSS_REQUEST if rest == 0 => Ok(Self::GssRequest),
            CANCEL_REQUEST if (PROCESS + 1..=PROCESS + LONGEST_SECRET).contains(&rest) => {
                Ok(Self::Cancel(rest))
            }
            SSL_REQUEST | GSS_REQUEST | CANCEL_REQUEST => Err(BadOpening::Length(length)),
            _ => Ok(Self::Start(rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::postgres::CancelKey;

    fn head(length: u32, code: u32) -> [u8; HEAD] {
        [length.to_be_bytes(), code.to_be_bytes()].concat().try_into().unwrap()
    }

    #[test]
    fn the_first_eight_bytes_tell_what_a_client_wants() {
        for (head, opening) in [
            (head(8, SSL_REQUEST), Ok(Opening::SslRequest)),
            (head(8, GSS_REQUEST), Ok(Opening::GssRequest)),
            (head(16, CANCEL_REQUEST), Ok(Opening::Cancel(8))),
            (head(268, CANCEL_REQUEST), Ok(Opening::Cancel(260))),
            (head(84, 196_608), Ok(Opening::Start(76))),
            (head(9, 196_610), Ok(Opening::Start(1))),
            (head(10_000, 196_608), Ok(Opening::Start(9_992))),
            ([0x16, 3, 1, 2, 0, 1, 0, 1], Ok(Opening::Tls)),
            (head(9, SSL_REQUEST), Err(BadOpening::Length(9))),
            (head(12, CANCEL_REQUEST), Err(BadOpening::Length(12))),
            (head(269, CANCEL_REQUEST), Err(BadOpening::Length(269))),
            (head(7, 196_608), Err(BadOpening::Length(7))),
            (head(10_001, 196_608), Err(BadOpening::Foreign)),
            (*b"GET / HT", Err(BadOpening::Foreign)),
        ] {
            assert_eq!(Opening::read(head), opening, "{head:?}");
        }
    }

    #[test]
    fn a_request_to_cancel_is_written_as_it_was_read_and_never_shown() {
        for secret in [&b"abcd"[..], &[7; 256]] {
            let body = [&77u32.to_be_bytes(), secret].concat();
            let key = CancelKey::read(&body).unwrap();
            let request = key.request();
            let Ok(Opening::Cancel(rest)) = Opening::read(request[..HEAD].try_into().unwrap()) else {
                panic!("no CancelRequest")
            };
            assert_eq!((rest, &request[HEAD..]), (body.len(), &body[..]));
            assert_eq!(format!("{key:?}"), "CancelKey { .. }");
        }
        assert!(CancelKey::read(&[1; 4]).is_none(), "there is no secret");
        assert!(CancelKey::read(&[1; 261]).is_none(), "no secret is so long");
    }
}
