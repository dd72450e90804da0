//! AdmissionReview of admission.k8s.io/v1, as far as the webhook reads and writes it. The pod stays raw JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::inject::{self, Decision, InjectError, PatchOperation};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// API servers cut warnings longer than 256 bytes and advise 120 characters.
const MAX_WARNING: usize = 120;

/// Why a body is not an AdmissionReview. Whoever calls the webhook can fix it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("the body is not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "the body is {kind:?} of {api_version:?}; this webhook answers AdmissionReview of admission.k8s.io/v1"
    )]
    Kind { api_version: String, kind: String },
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Admission>,
}

/// The request of a review.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Admission {
    pub(super) uid: String,
    kind: Kind,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) dry_run: bool,
    #[serde(default)]
    pub(super) object: Value,
}

#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    kind: String,
}

impl Admission {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ReviewError> {
        let review: Envelope = serde_json::from_slice(body)?;
        if review.api_version != API_VERSION || review.kind != KIND {
            return Err(ReviewError::Kind { api_version: cut(&review.api_version), kind: cut(&review.kind) });
        }
        review.request.ok_or(ReviewError::NoRequest)
    }

    /// Only the creation of a pod is decided about. An update or a deletion must never depend on this webhook.
    pub(super) fn creates_pod(&self) -> bool {
        self.operation == "CREATE"
            && self.kind.kind == "Pod"
            && self.kind.group.is_empty()
            && self.sub_resource.is_empty()
    }

    /// The pod as messages name it. A controller's pods have no name yet, only the start of one.
    pub(super) fn subject(&self) -> String {
        let metadata =
            |key: &str| self.object.get("metadata")?.get(key)?.as_str().filter(|text| !text.is_empty());
        let name = match (self.name.as_str(), metadata("name"), metadata("generateName")) {
            ("", None, None) => "pod".to_owned(),
            ("", None, Some(start)) => format!("pod {}*", cut(start)),
            ("", Some(name), _) | (name, _, _) => format!("pod {}", cut(name)),
        };
        format!("{name} in namespace {}", cut(&self.namespace))
    }
}

/// The answer to a review.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_annotations: Option<AuditAnnotations>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

/// What the audit log keeps; the API server puts the webhook's name before each key.
#[derive(Debug, Serialize)]
struct AuditAnnotations {
    decision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

impl Answer {
    /// The pod is let through as it is, without a word: it is none of the webhook's business.
    pub(super) fn unconcerned(uid: String) -> Self {
        Self::new(uid, true)
    }

    pub(super) fn decided(admission: &Admission, decision: Decision) -> Result<Self, serde_json::Error> {
        let uid = admission.uid.clone();
        Ok(match decision {
            Decision::Inject { policy, generation, patch, warnings } => {
                let audit = AuditAnnotations {
                    decision: inject::in_words(&policy, generation),
                    policy: Some(policy),
                    generation: Some(generation.to_string()),
                };
                Self::new(uid, true).patch(&patch)?.audit(audit).warnings(warnings)
            }
            Decision::Skip { reason, warnings } => {
                let decision = format!("skipped: {reason}");
                let audit = AuditAnnotations { decision, policy: None, generation: None };
                Self::new(uid, true).audit(audit).warnings(warnings)
            }
            Decision::Deny { error } => Self::denied(uid, &admission.subject(), &error),
        })
    }

    fn denied(uid: String, subject: &str, error: &InjectError) -> Self {
        let audit = AuditAnnotations { decision: format!("denied: {error}"), policy: None, generation: None };
        Self::new(uid, false).audit(audit).status(403, "Forbidden", format!("{subject}: {error}"))
    }

    /// The webhook itself failed: the pod is refused, and may be created again.
    pub(super) fn failed(admission: &Admission, why: &str) -> Self {
        let message = format!("{}: {why}; create the pod again", admission.subject());
        Self::new(admission.uid.clone(), false).status(503, "ServiceUnavailable", message)
    }

    fn new(uid: String, allowed: bool) -> Self {
        let response = Response {
            uid,
            allowed,
            patch_type: None,
            patch: None,
            audit_annotations: None,
            warnings: Vec::new(),
            status: None,
        };
        Self { api_version: API_VERSION, kind: KIND, response }
    }

    fn patch(mut self, patch: &[PatchOperation]) -> Result<Self, serde_json::Error> {
        if !patch.is_empty() {
            self.response.patch_type = Some("JSONPatch");
            self.response.patch = Some(STANDARD.encode(serde_json::to_vec(patch)?));
        }
        Ok(self)
    }

    fn audit(mut self, audit: AuditAnnotations) -> Self {
        self.response.audit_annotations = Some(audit);
        self
    }

    fn warnings(mut self, warnings: Vec<String>) -> Self {
        self.response.warnings =
            warnings.into_iter().map(|text| text.chars().take(MAX_WARNING).collect()).collect();
        self
    }

    fn status(mut self, code: u16, reason: &'static str, message: String) -> Self {
        self.response.status = Some(Status { code, reason, message });
        self
    }
}

/// Names in Kubernetes have at most 253 characters; whatever is longer comes from elsewhere.
fn cut(text: &str) -> String {
    text.chars().take(253).collect()
}
