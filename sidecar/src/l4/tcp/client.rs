//! One connection of a client, from the thread's queue to its end: TLS, if the listener speaks it -> a backend -> a session, and
//! another backend, if the first one leaves before a word.

use std::{io, rc::Rc, time::Duration};

use tokio::time::timeout;

use super::{
    cancel,
    connect::{Asked, Meeting, Met},
    entry::Entry,
    postgres::{self, Said, Wanted, Words},
    session::{Begun, Session, reset},
    settings::Settings,
    thread::Thread,
};
use crate::{
    l4::metrics::Cause,
    net::{
        Accepted, Slot, Stream,
        postgres::{CancelKey, HEAD, NO},
        proxy_protocol::{self, Ends},
        tls::Hello,
    },
};

/// A client whose server name decides and that has not begun with TLS after this time is cut off.
const HELLO: Duration = Duration::from_secs(10);

/// Bytes of a request for TLS, and of a no to it.
const REFUSED: (u64, u64) = (HEAD as u64, 1);

/// Serves a connection to its end.
pub(super) async fn serve(thread: Rc<Thread>, accepted: Accepted) {
    let _present = thread.enter();
    let settings = thread.settings();
    let entry = Entry::begin(&thread, settings.access.as_ref());
    let Opened { mut client, wanted, ends, _slot } = match open(&thread, &settings, accepted, &entry).await {
        Ok(opened) => opened,
        Err(error) => return stays_out(&thread, &entry, &error),
    };
    let Words { mut said, mut understands, name } = match wanted {
        Wanted::Server(words) => words,
        Wanted::Cancel(key) => return entry.ends(cancel(&thread, &settings, &entry, ends, &key).await),
    };
    let Some(thread) = thread.of_name(name.as_deref()) else {
        tracing::debug!(listener = %thread.listener, name, "no route is for what a client asks for");
        entry.ends(Some(Cause::NoRoute));
        thread.counters.failed(Cause::NoRoute);
        return reset(&client);
    };
    drop(name);
    let mut asked = Asked::default();
    // Bytes that the client and a backend have said before they were connected.
    let mut exchanged = (0, 0);
    loop {
        // Who asks to cancel is not to wait for room: it would make some.
        if said.asks_for_tls && thread.keys.servers_refuse_tls() && !thread.has_room() {
            match Box::pin(postgres::go_on_without_tls(client)).await {
                Ok((stream, Wanted::Server(words))) => {
                    (client, said, understands) = (stream, words.said, words.understands);
                    exchanged = REFUSED;
                    entry.moved(exchanged);
                }
                Ok((_, Wanted::Cancel(key))) => {
                    return entry.ends(cancel(&thread, &settings, &entry, ends, &key).await);
                }
                Err(error) => return stays_out(&thread, &entry, &error),
            }
        }
        // What connecting needs is much, and needed no more once there is a connection.
        let met = Box::pin(async {
            Meeting::new(&thread, &settings, ends, said.asks_for_tls, &mut asked).meet().await
        })
        .await;
        let met = match met {
            Ok(met) => met,
            Err(cause) => {
                entry.asked(asked.last(), asked.count());
                entry.ends(Some(cause));
                thread.refuse(cause);
                let route = thread.route();
                if !understands {
                    return reset(&client);
                }
                let reason = route.unavailable.trim_end();
                return postgres::no_server(&mut client, &thread.listener, reason).await;
            }
        };
        entry.asked(Some(met.busy.backend()), asked.count());
        entry.met();
        if let Some(answer) = met.answer {
            thread.keys.answered(answer);
        }
        let begun = match met.answer {
            None => Begun::By(said),
            Some(NO) => {
                exchanged = REFUSED;
                met.busy.backend().detail.moved(exchanged.0, exchanged.1);
                entry.moved(exchanged);
                match Box::pin(postgres::go_on_without_tls(client)).await {
                    Ok((stream, Wanted::Server(words))) => {
                        (client, understands) = (stream, words.understands);
                        Begun::By(words.said)
                    }
                    Ok((_, Wanted::Cancel(key))) => {
                        leave(&thread, met);
                        return entry.ends(cancel(&thread, &settings, &entry, ends, &key).await);
                    }
                    Err(error) => {
                        leave(&thread, met);
                        return stays_out(&thread, &entry, &error);
                    }
                }
            }
            Some(answer) => {
                exchanged = (REFUSED.0, 0);
                met.busy.backend().detail.moved(exchanged.0, exchanged.1);
                Begun::Agreed(answer)
            }
        };
        let mut session = Session::new(&thread, &entry, &settings, client, begun, exchanged, met);
        let ended = session.run().await;
        match session.end(ended) {
            Some(kept) => (client, said) = kept,
            None => return,
        }
    }
}

/// Gives up a connection to a backend that the client does not want after all.
fn leave(thread: &Thread, met: Met<'_>) {
    drop(met);
    thread.queue.freed();
}

/// Notes why a client did not come in. After a no to TLS it may just leave, as libpq does with `sslmode=require`.
fn stays_out(thread: &Thread, entry: &Entry<'_>, error: &io::Error) {
    tracing::debug!(listener = %thread.listener, %error, "a client did not come in");
    if postgres::has_left(error) {
        return entry.ends(None);
    }
    entry.ends(Some(Cause::Handshake));
    thread.counters.failed(Cause::Handshake);
}

/// A client that has come in.
struct Opened {
    client: Stream,
    wanted: Wanted,
    ends: Option<Ends>,
    _slot: Slot,
}

/// What comes before the client's own bytes: the PROXY protocol, then TLS, which it may ask for first.
async fn open(
    thread: &Thread,
    settings: &Settings,
    accepted: Accepted,
    entry: &Entry<'_>,
) -> io::Result<Opened> {
    let (mut socket, slot) = accepted.register()?;
    entry.comes_from(|| socket.peer_address());
    let ends = if settings.takes_ends {
        proxy_protocol::read(&mut socket).await?
    } else if settings.tells_ends.is_some() || thread.route().hashes_source() {
        Ends::of(&socket)
    } else {
        None
    };
    if let Some(ends) = ends {
        entry.comes_from(|| Some(ends.source));
    }
    let (client, wanted) = match (settings.postgres, settings.tls.as_deref()) {
        (Some(manners), tls) => Box::pin(manners.open(socket, tls)).await?,
        (None, Some(server)) => (Box::pin(server.accept(socket)).await?, Wanted::Server(Words::default())),
        (None, None) if settings.by_name => {
            let heard = Box::pin(timeout(HELLO, Hello::read(&mut socket))).await;
            let Hello { said, is_alone, name } = heard.map_err(|_| late())??;
            let said = Said { bytes: said, once: !is_alone, asks_for_tls: false };
            (socket.into(), Wanted::Server(Words { said, understands: false, name }))
        }
        (None, None) => (socket.into(), Wanted::Server(Words::default())),
    };
    entry.opened(&client);
    Ok(Opened { client, wanted, ends, _slot: slot })
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no ClientHello within 10 s")
}

/// Passes on a client's request to cancel. As the server itself would, it tells the client nothing but that it was heard.
async fn cancel(
    thread: &Thread,
    settings: &Settings,
    entry: &Entry<'_>,
    ends: Option<Ends>,
    key: &CancelKey,
) -> Option<Cause> {
    let listener = &thread.listener;
    let Some(backend) = thread.keys.issuer(key) else {
        tracing::debug!(%listener, "a request to cancel names no connection of this listener");
        thread.counters.failed(Cause::Cancel);
        return Some(Cause::Cancel);
    };
    entry.asked(Some(&backend), 1);
    let preface = settings.tells_ends.map(|version| proxy_protocol::write(version, ends));
    let passed =
        Box::pin(cancel::pass_on(&backend, key, &preface.unwrap_or_default(), settings.connect)).await;
    thread.queue.freed();
    let error = passed.err()?;
    tracing::debug!(%listener, backend = %backend.address, %error, "a request to cancel could not be passed on");
    thread.counters.failed(Cause::Cancel);
    Some(Cause::Cancel)
}
