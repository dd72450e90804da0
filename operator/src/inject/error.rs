//! Why an opted-in pod cannot get the sidecar. Every message names what is wrong and the remedy, and is bounded however
//! long the values are that users wrote.

use std::fmt::Write;

/// Most policies or names that one message lists.
const MAX_LISTED: usize = 10;
/// Most characters of the reason why one policy does not select a pod.
const MAX_REASON: usize = 300;
/// Most characters of a user's value that one message repeats.
const MAX_SHOWN: usize = 64;

/// Why an opted-in pod cannot get the sidecar. The pod's author can fix all but [`InjectError::Encoding`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    #[error("annotation sidecar.io/inject is {}: write \"true\" to get the sidecar or \"false\" to stay without", shown(.value))]
    OptIn { value: String },

    #[error("annotation {} is not a text: put its value in quotes", shown(.annotation))]
    NotText { annotation: String },

    #[error("annotation {} is not known: {remedy}", shown(.annotation))]
    UnknownAnnotation { annotation: String, remedy: String },

    #[error("annotation {annotation}: {problem}")]
    Annotation { annotation: &'static str, problem: String },

    #[error("{problem}")]
    Resources { problem: String },

    #[error(
        "spec.injection.volumeMounts of policy {policy} mounts volume {volume}, which the pod does not have: add a volume of \
         that name to the pod, such as an emptyDir, or remove the mount from the policy"
    )]
    MissingVolume { policy: String, volume: String },

    #[error(
        "mode Native is asked for by {asked_by}, and not every node runs Kubernetes 1.29 or newer: \
         write mode Auto or Container, or upgrade the nodes"
    )]
    NativeUnsupported { asked_by: String },

    #[error("{}", no_match(.namespace, .reasons))]
    NoMatch { namespace: String, reasons: Vec<(String, String)> },

    #[error("{}", missing_policy(.namespace, .name, .existing))]
    MissingPolicy { namespace: String, name: String, existing: Vec<String> },

    #[error("{}", unreadable(.names, .otherwise))]
    Unreadable { names: Vec<String>, otherwise: Box<InjectError> },

    #[error(
        "annotation sidecar.io/injected-policy records SidecarPolicy {}, which namespace {namespace} does not have: apply the \
         policy, or, where the manifest was copied from a running pod, remove the annotations sidecar.io/injected-*, the \
         container sidecar and the volumes sidecar-* from it, and the pod is injected anew",
        shown(.name)
    )]
    RecordedPolicy { namespace: String, name: String },

    #[error(
        "the pod has a volume of its own named sidecar-config that is not ConfigMap {expected}, and the sidecar of policy \
         {policy} reads its configuration there: rename the pod's volume, or, where the manifest was copied from a \
         running pod, remove the annotations sidecar.io/injected-*, the container sidecar and the volumes sidecar-* from it"
    )]
    ConfigurationClash { policy: String, expected: String },

    #[error("the pod has a {what} of its own named {name}, which is the sidecar's name: rename the pod's")]
    NameClash { what: &'static str, name: &'static str },

    #[error(
        "the container sidecar does not mount sidecar-config: remove the container, the volumes sidecar-* and the \
         annotation sidecar.io/injected-policy from the pod, and it is injected anew"
    )]
    BrokenSidecar,

    #[error(
        "container {} uses port 15470, where the sidecar serves /live, /ready and /metrics: give the container another port",
        shown(.container)
    )]
    AdminPort { container: String },

    #[error(
        "listener {listener} of policy {policy} and container {} both use port {port}, and the containers of a pod share \
         their ports: change spec.{kind}[].port in the policy or containerPort in the pod (a container that listens on the \
         pod's address alone can leave its containerPort out)",
        shown(.container)
    )]
    ListenerPort { policy: String, kind: &'static str, listener: String, container: String, port: u16 },

    #[error(
        "the pod has hostNetwork: true, so that the sidecar's listeners would be open to every process of the node: \
         remove hostNetwork, or the annotation sidecar.io/inject"
    )]
    HostNetwork,

    #[error("the pod runs on Windows and the sidecar on Linux only: remove the annotation sidecar.io/inject")]
    Windows,

    #[error("the pod has no spec: write one with containers")]
    NoSpec,

    #[error("the sidecar's container cannot be written as JSON: report this as a bug")]
    Encoding,
}

impl InjectError {
    /// Whether a policy is what is missing, so that a fresher list of policies may hold the answer.
    pub fn lacks_policy(&self) -> bool {
        matches!(self, Self::NoMatch { .. } | Self::MissingPolicy { .. } | Self::RecordedPolicy { .. })
    }

    /// The same, where the namespace has further policies, of these names, that this release cannot read.
    pub fn beside_unreadable(self, names: Vec<String>) -> Self {
        match names.is_empty() || !self.lacks_policy() {
            true => self,
            false => Self::Unreadable { names, otherwise: Box::new(self) },
        }
    }
}

fn unreadable(names: &[String], otherwise: &InjectError) -> String {
    let mut text = format!("SidecarPolicy {}", names[..names.len().min(MAX_LISTED)].join(", "));
    more(&mut text, names.len());
    let _ = write!(
        text,
        " cannot be read by this release of the operator: see its condition Accepted; apart from that, {otherwise}"
    );
    text
}

fn no_match(namespace: &str, reasons: &[(String, String)]) -> String {
    if reasons.is_empty() {
        return format!(
            "namespace {namespace} has no SidecarPolicy: apply one, for instance \
             kubectl apply -n {namespace} -f policy.yaml, then create the pod again"
        );
    }
    let mut text = format!("no SidecarPolicy of namespace {namespace} selects the pod:");
    for (name, why) in reasons.iter().take(MAX_LISTED) {
        let why: String = why.chars().take(MAX_REASON).collect();
        let _ = write!(text, " {name}: {why};");
    }
    more(&mut text, reasons.len());
    text.push_str(" change the pod's labels or a policy's podSelector, or name a policy with annotation sidecar.io/policy");
    text
}

fn missing_policy(namespace: &str, name: &str, existing: &[String]) -> String {
    let mut text = format!(
        "annotation sidecar.io/policy names {}, and namespace {namespace} has no such SidecarPolicy: ",
        shown(name)
    );
    if existing.is_empty() {
        text.push_str("it has none; apply one, then create the pod again");
    } else {
        let _ = write!(text, "write one of {}", existing[..existing.len().min(MAX_LISTED)].join(", "));
        more(&mut text, existing.len());
    }
    text
}

fn more(text: &mut String, count: usize) {
    if count > MAX_LISTED {
        let _ = write!(text, " and {} more", count - MAX_LISTED);
    }
}

/// A user's value in quotes, shortened.
pub(super) fn shown(value: &str) -> String {
    if value.chars().count() <= MAX_SHOWN {
        return format!("{value:?}");
    }
    let head: String = value.chars().take(MAX_SHOWN).collect();
    format!("{head:?}...")
}
