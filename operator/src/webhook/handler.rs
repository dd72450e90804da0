//! `POST /inject`: content type -> room in memory -> body -> decision -> answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tracing::{debug, info, warn};

use super::{
    State,
    metrics::{Outcome, Rejection},
    review::{Admission, Answer},
};
use crate::inject::{self, Decision};

/// Most bytes of one AdmissionReview. API requests reach 3 MiB, and a review may carry the object twice.
const MAX_BODY: usize = 8 << 20;
/// Most bytes of all bodies at once, so that no crowd of callers takes the memory.
const MAX_BODIES: usize = 4 * MAX_BODY;
/// Bodies are accounted for in blocks of this size.
const BLOCK: usize = 1 << 10;
/// How long a caller may take to send its body, and how long it waits for room.
const BODY_TIME: Duration = Duration::from_secs(3);
/// How long the API server may take to list policies: less than the 5 s that it gives the webhook.
const LIVE_TIME: Duration = Duration::from_secs(3);
/// Most lists of policies at once.
const MAX_LIVE: usize = 16;

/// What one router shares.
struct Shared {
    state: State,
    blocks: Semaphore,
    live: Semaphore,
}

/// The webhook's endpoint.
pub fn router(state: State) -> Router {
    let shared = Shared { state, blocks: Semaphore::new(MAX_BODIES / BLOCK), live: Semaphore::new(MAX_LIVE) };
    Router::new().route("/inject", post(admit)).with_state(Arc::new(shared))
}

async fn admit(Extract(shared): Extract<Arc<Shared>>, request: Request) -> Response {
    let metrics = &shared.state.metrics;
    let started = Instant::now();
    metrics.in_flight.inc();
    let response = match read(&shared, request).await {
        Ok((body, room)) => {
            let response = answer(&shared, &body).await;
            drop(room);
            response
        }
        Err(refusal) => Err(refusal),
    };
    metrics.in_flight.dec();
    metrics.duration.observe(started.elapsed().as_secs_f64());
    response.unwrap_or_else(|refusal| {
        metrics.rejected(refusal.reason);
        debug!(status = refusal.status.as_u16(), message = refusal.message, "request refused");
        (refusal.status, format!("{}\n", refusal.message)).into_response()
    })
}

/// An answer that is no AdmissionReview.
struct Refusal {
    status: StatusCode,
    reason: Rejection,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: Rejection, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }
}

/// The body, and the room that it takes.
async fn read(shared: &Shared, request: Request) -> Result<(Bytes, SemaphorePermit<'_>), Refusal> {
    if !is_json(request.headers()) {
        let message = "the content type must be application/json";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Rejection::ContentType, message));
    }
    let length = announced(request.headers()).unwrap_or(MAX_BODY);
    if length > MAX_BODY {
        return Err(too_large());
    }
    let blocks = u32::try_from(length.div_ceil(BLOCK)).unwrap_or(u32::MAX);
    let busy = || {
        let message = "too many requests are being read; try again";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Rejection::Busy, message)
    };
    let room = timeout(BODY_TIME, shared.blocks.acquire_many(blocks))
        .await
        .map_err(|_| busy())?
        .map_err(|_| busy())?;
    let body = timeout(BODY_TIME, collect(request.into_body())).await.map_err(|_| {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, Rejection::Slow, "the body took longer than 3 s to arrive")
    })??;
    Ok((body, room))
}

async fn collect(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => {
            let message = format!("the body did not arrive: {error}");
            Err(Refusal::new(StatusCode::BAD_REQUEST, Rejection::Malformed, message))
        }
    }
}

fn too_large() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Rejection::TooLarge, "the body is larger than 8 MiB")
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn answer(shared: &Shared, body: &[u8]) -> Result<Response, Refusal> {
    let admission = Admission::parse(body)
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, Rejection::Malformed, error.to_string()))?;
    let answer = if admission.creates_pod() {
        review(shared, &admission).await
    } else {
        shared.state.metrics.admitted(Outcome::Skipped);
        Ok(Answer::unconcerned(admission.uid.clone()))
    };
    let encoded = answer.and_then(|answer| serde_json::to_vec(&answer)).map_err(|error| {
        let message = format!("the answer cannot be written as JSON: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Rejection::Malformed, message)
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], encoded).into_response())
}

async fn review(shared: &Shared, admission: &Admission) -> Result<Answer, serde_json::Error> {
    let metrics = &shared.state.metrics;
    match decide(shared, admission).await {
        Ok(decision) => {
            record(shared, admission, &decision);
            Answer::decided(admission, decision)
        }
        Err(why) => {
            metrics.admitted(Outcome::Failed);
            warn!(pod = admission.subject(), why, "pod refused, since the policies cannot be read");
            Ok(Answer::failed(admission, &why))
        }
    }
}

/// Decides by what the watch last saw; where that holds no policy for the pod, by what the API server says now.
async fn decide(shared: &Shared, admission: &Admission) -> Result<Decision, String> {
    let State { policies, platform, settings, metrics } = &shared.state;
    let request = inject::Request { pod: &admission.object, namespace: &admission.namespace };
    let platform = **platform.load();
    let decision = inject::inject(&request, &policies.cached(request.namespace), platform, settings);
    match decision {
        Decision::Deny { error } if error.lacks_policy() => {}
        decision => return Ok(decision),
    }
    metrics.live_reads.inc();
    let live = async {
        let _permit = shared.live.acquire().await.map_err(|error| error.to_string())?;
        policies.live(request.namespace).await.map_err(|error| with_sources(&error))
    };
    let live = timeout(LIVE_TIME, live).await.map_err(|_| {
        format!("the policies of namespace {} could not be read within 3 s", request.namespace)
    })??;
    Ok(match inject::inject(&request, &live, platform, settings) {
        Decision::Deny { error } => {
            Decision::Deny { error: error.beside_unreadable(policies.unreadable(request.namespace)) }
        }
        decision => decision,
    })
}

fn record(shared: &Shared, admission: &Admission, decision: &Decision) {
    let outcome = match decision {
        Decision::Inject { policy, generation, patch, .. } => {
            debug!(pod = admission.subject(), policy, generation, dry_run = admission.dry_run, "injected");
            if patch.is_empty() { Outcome::Kept } else { Outcome::Injected }
        }
        Decision::Skip { reason, .. } => {
            debug!(pod = admission.subject(), reason, "skipped");
            Outcome::Skipped
        }
        Decision::Deny { error } => {
            info!(pod = admission.subject(), %error, dry_run = admission.dry_run, "denied");
            Outcome::Denied
        }
    };
    shared.state.metrics.admitted(outcome);
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
