//! A check that talks with a server: say -> listen -> judge, until it is clear how the server is. What to say and how to judge
//! knows no socket; here is the one place that reads and writes. No answer grows beyond [`MOST`].

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Failure;

/// Bytes of answers that are kept while they are not understood: many times what a server says at its start.
pub(super) const MOST: usize = 64 << 10;

/// What follows from all that was heard so far.
pub(super) enum Next {
    /// More must be heard.
    Listen,
    Say(BytesMut),
    /// The server is as it should be.
    Good,
}

/// One side of a talk.
pub(super) trait Dialog {
    /// The first words.
    fn greeting(&mut self) -> Result<BytesMut, Failure>;

    /// Takes what is understood out of `heard`. Called again after what it had to say was said.
    fn hear(&mut self, heard: &mut BytesMut) -> Result<Next, Failure>;

    /// The last words, to a server that is as it should be.
    fn farewell(&self) -> BytesMut;
}

/// Talks to the end, which takes as long as the server does: callers set the limit.
pub(super) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    dialog: &mut impl Dialog,
) -> Result<(), Failure> {
    let mut words = dialog.greeting()?;
    let mut heard = BytesMut::with_capacity(1 << 10);
    loop {
        stream.write_all(&words).await.map_err(Failure::Broken)?;
        stream.flush().await.map_err(Failure::Broken)?;
        loop {
            match dialog.hear(&mut heard)? {
                Next::Say(next) => {
                    words = next;
                    break;
                }
                Next::Good => {
                    // It has answered: whether it waits for the end is its own business.
                    let _ = stream.write_all(&dialog.farewell()).await;
                    let _ = stream.shutdown().await;
                    return Ok(());
                }
                Next::Listen if heard.len() >= MOST => return Err(Failure::TooMuch),
                Next::Listen => match stream.read_buf(&mut heard).await {
                    Ok(0) => return Err(Failure::Silent),
                    Ok(_) => {}
                    Err(error) => return Err(Failure::Broken(error)),
                },
            }
        }
    }
}

/// Longest text of a server that is told.
const LONGEST: usize = 200;

/// A server's words as they may be shown: on one line, not too many, and never a secret that it gives back.
pub(super) fn shown(words: &[u8], secret: Option<&[u8]>) -> String {
    let hidden = secret.filter(|secret| !secret.is_empty()).map(|secret| replaced(words, secret));
    let words = String::from_utf8_lossy(hidden.as_deref().unwrap_or(words)).into_owned();
    let words = words.trim();
    let mut text: String =
        words.chars().take(LONGEST).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if words.chars().nth(LONGEST).is_some() {
        text.push_str("...");
    }
    text
}

fn replaced(words: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut left = words;
    let mut result = Vec::with_capacity(words.len());
    while let Some(at) = memchr::memmem::find(left, secret) {
        result.extend_from_slice(&left[..at]);
        result.extend_from_slice(b"***");
        left = &left[at + secret.len()..];
    }
    result.extend_from_slice(left);
    result
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use tokio::{
        io::duplex,
        time::{Instant, timeout},
    };

    use super::*;

    /// Says `a`, and wants `b`.
    struct Short;

    impl Dialog for Short {
        fn greeting(&mut self) -> Result<BytesMut, Failure> {
            Ok(BytesMut::from(&b"a"[..]))
        }

        fn hear(&mut self, heard: &mut BytesMut) -> Result<Next, Failure> {
            Ok(if heard.starts_with(b"b") { Next::Good } else { Next::Listen })
        }

        fn farewell(&self) -> BytesMut {
            BytesMut::from(&b"bye"[..])
        }
    }

    /// What becomes of a dialog whose server sends these answers, one after each of its words, and then goes.
    pub(in crate::probe) fn hears(
        dialog: &mut impl Dialog,
        answers: &[&[u8]],
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let mut said = vec![dialog.greeting()?.to_vec()];
        let mut heard = BytesMut::new();
        let mut answers = answers.iter();
        loop {
            match dialog.hear(&mut heard)? {
                Next::Say(words) => said.push(words.to_vec()),
                Next::Good => return Ok(said),
                Next::Listen => match answers.next() {
                    Some(answer) => heard.extend_from_slice(answer),
                    None => return Err(Failure::Silent),
                },
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_takes_the_time_limit_and_no_more() {
        let (near, _far) = duplex(64);
        let start = Instant::now();
        let limit = Duration::from_secs(2);
        assert!(timeout(limit, talk(near, &mut Short)).await.is_err());
        assert_eq!(start.elapsed(), limit);
    }

    #[tokio::test]
    async fn a_server_hears_the_last_words_and_the_end() {
        let (near, mut far) = duplex(64);
        let server = async {
            let mut byte = [0];
            far.read_exact(&mut byte).await.unwrap();
            far.write_all(b"b").await.unwrap();
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            rest
        };
        let mut short = Short;
        let (talked, rest) = tokio::join!(talk(near, &mut short), server);
        talked.unwrap();
        assert_eq!(rest, b"bye");
    }

    #[tokio::test]
    async fn a_server_that_goes_or_talks_without_end_is_no_good() {
        let (near, far) = duplex(64);
        drop(far);
        assert!(matches!(talk(near, &mut Short).await, Err(Failure::Broken(_) | Failure::Silent)));
        let (near, mut far) = duplex(1 << 10);
        let endless = async { while far.write_all(&[b'x'; 512]).await.is_ok() {} };
        let mut short = Short;
        let (talked, ()) = tokio::join!(talk(near, &mut short), endless);
        assert!(matches!(talked, Err(Failure::TooMuch)));
    }

    #[test]
    fn a_servers_words_are_short_and_hold_no_secret() {
        for (words, secret, expected) in [
            (&b"all good\n"[..], None, "all good"),
            (b"a\r\nb\0c\xff", None, "a  b c\u{fffd}"),
            (b"no secret, secretary", Some(&b"secret"[..]), "no ***, ***ary"),
            (b"empty", Some(b""), "empty"),
        ] {
            assert_eq!(shown(words, secret), expected);
        }
        let long = [b'x'; 300];
        assert_eq!(shown(&long, None).len(), LONGEST + 3);
        let at_the_cut = [&[b'x'; LONGEST - 3][..], b"secret"].concat();
        assert!(!shown(&at_the_cut, Some(b"secret")).contains("sec"));
    }
}
