//! One try: a request on one connection, until the head of the response is there.

use std::{error::Error, pin::pin, rc::Rc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    body::{RequestBody, Upload},
    pool::Connection,
};

/// A backend that takes longer for the head of a response is tried no further when the request can go elsewhere.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(5);

/// Longest wait for the head of a response after the last byte of the request: object stores may copy gigabytes meanwhile.
const RESPONSE: Duration = Duration::from_secs(300);

/// Why a try gave no response.
pub(super) enum Failure {
    /// The connection was closed before anything of the request was written: it may go to any other.
    Unsent(Box<Request<RequestBody>>),
    /// The request may have reached the backend.
    Broken(String),
    TimedOut(Duration),
    /// The client broke off while it was sending the body.
    Client,
}

/// Sends and waits. `give_up` is asked after [`FIRST_BYTE`]: true when the request may, and is going to, be sent elsewhere.
pub(super) async fn send(
    connection: &mut Connection,
    request: Request<RequestBody>,
    upload: Option<&Rc<Upload>>,
    give_up: impl Fn() -> bool,
) -> Result<Response<Incoming>, Failure> {
    let mut response = pin!(connection.sender.try_send_request(request));
    if let Ok(result) = timeout(FIRST_BYTE, response.as_mut()).await {
        return result.map_err(|error| classify(error, upload));
    }
    if give_up() {
        return Err(Failure::TimedOut(FIRST_BYTE));
    }
    loop {
        let sent = upload.map_or(0, |upload| upload.bytes());
        if let Ok(result) = timeout(RESPONSE, response.as_mut()).await {
            return result.map_err(|error| classify(error, upload));
        }
        if upload.is_none_or(|upload| upload.bytes() == sent) {
            return Err(Failure::TimedOut(RESPONSE));
        }
    }
}

fn classify(
    mut error: hyper::client::conn::TrySendError<Request<RequestBody>>,
    upload: Option<&Rc<Upload>>,
) -> Failure {
    if let Some(request) = error.take_message() {
        return Failure::Unsent(Box::new(request));
    }
    if upload.is_some_and(|upload| upload.has_failed()) {
        return Failure::Client;
    }
    Failure::Broken(root(&error.into_error()))
}

/// The innermost cause, which is the one that says something: `connection reset by peer`.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}
