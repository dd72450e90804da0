//! `operator inject` and `operator explain`: manifests and policies in, through the webhook's own function, text out.

use std::{
    fmt::Write as _,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::CommandFactory;
use clap_complete::Shell;
use crds::policy::SidecarPolicy;
use serde_json::Value;

use super::{
    AutoMode, Cli, OfflineArgs,
    documents::{self, Document, DocumentError},
};
use crate::inject::{self, Decision, InjectError, Platform, Request, Settings};

/// Most bytes of one file.
const MAX_FILE: u64 = 64 << 20;

/// Why manifests cannot be injected. Their author can fix it.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than 64 MiB", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}", path.display())]
    Document { path: PathBuf, source: DocumentError },
    #[error("{}: {title} is not a valid policy: {source}", path.display())]
    Policy { path: PathBuf, title: String, source: serde_json::Error },
    #[error("no SidecarPolicy is in {paths}")]
    NoPolicy { paths: String },
    #[error("{title}: {error}")]
    Denied { title: String, error: InjectError },
    #[error("{title} cannot be patched: {why}")]
    Patch { title: String, why: String },
    #[error("{title} cannot be written as YAML")]
    Write { title: String, source: serde_yaml::Error },
    #[error("the result cannot be written")]
    Output(#[from] io::Error),
}

/// Prints the manifests with the sidecar in every opted-in pod; `notes` takes what the user should know.
pub fn inject(args: &OfflineArgs, mut out: impl Write, mut notes: impl Write) -> Result<(), OfflineError> {
    let offline = Offline::new(args)?;
    let mut first = true;
    for document in manifests(&args.files)? {
        let text = offline.inject(document, &mut notes)?;
        if !std::mem::take(&mut first) {
            out.write_all(b"---\n")?;
        }
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// Prints one line for each pod and pod template.
pub fn explain(args: &OfflineArgs, mut out: impl Write) -> Result<(), OfflineError> {
    let offline = Offline::new(args)?;
    for Document { value, .. } in manifests(&args.files)? {
        for (title, _, decision) in offline.decisions(&value) {
            let (words, warnings) = match decision {
                Decision::Inject { policy, generation, warnings, .. } => {
                    (inject::in_words(&policy, generation), warnings)
                }
                Decision::Skip { reason, warnings } => (format!("skipped: {reason}"), warnings),
                Decision::Deny { error } => (format!("denied: {error}"), Vec::new()),
            };
            writeln!(out, "{title}: {words}")?;
            for warning in warnings {
                writeln!(out, "{title}: warning: {warning}")?;
            }
        }
    }
    Ok(())
}

/// Prints completions for a shell.
pub fn completions(shell: Shell, mut out: impl Write) -> Result<(), OfflineError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "operator", &mut script);
    Ok(out.write_all(&script)?)
}

/// What every document is injected with.
struct Offline {
    namespace: String,
    /// Those that name no namespace take that of each document in turn.
    policies: Vec<SidecarPolicy>,
    platform: Platform,
    settings: Settings,
}

impl Offline {
    fn new(args: &OfflineArgs) -> Result<Self, OfflineError> {
        Ok(Self {
            namespace: args.namespace.clone(),
            policies: read_policies(&args.policies)?,
            platform: Platform { native_sidecars: args.mode == AutoMode::Native },
            settings: Settings {
                sidecar_image: args.sidecar_image.clone(),
                operator_namespace: String::new(),
            },
        })
    }

    fn inject(&self, document: Document, notes: &mut impl Write) -> Result<String, OfflineError> {
        let Document { text, mut value } = document;
        let mut changed = false;
        let decisions = self.decisions(&value);
        if decisions.is_empty() {
            let title = documents::title(&value);
            writeln!(notes, "{title}: no pod template; left as it is")?;
        }
        for (title, path, decision) in decisions {
            match decision {
                Decision::Deny { error } => return Err(OfflineError::Denied { title, error }),
                Decision::Skip { reason, .. } => writeln!(notes, "{title}: left as it is: {reason}")?,
                Decision::Inject { patch, warnings, .. } => {
                    warnings.iter().try_for_each(|warning| writeln!(notes, "{title}: warning: {warning}"))?;
                    changed |= !patch.is_empty();
                    if let Some(target) = value.pointer_mut(&path) {
                        apply(target, &patch).map_err(|why| OfflineError::Patch { title, why })?;
                    }
                }
            }
        }
        if !changed {
            return Ok(text);
        }
        serde_yaml::to_string(&value)
            .map_err(|source| OfflineError::Write { title: documents::title(&value), source })
    }

    /// Title, JSON pointer and decision of every pod and pod template of a document.
    fn decisions(&self, value: &Value) -> Vec<(String, String, Decision)> {
        let mut decisions = Vec::new();
        for object_path in documents::objects(value) {
            let object = value.pointer(&object_path).unwrap_or(&Value::Null);
            let namespace =
                object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or(&self.namespace);
            for path in documents::pods(object) {
                let Some(pod) = object.pointer(&path) else { continue };
                let request = Request { pod, namespace };
                let decision =
                    inject::inject(&request, &self.policies_of(namespace), self.platform, &self.settings);
                decisions.push((documents::title(object), format!("{object_path}{path}"), decision));
            }
        }
        decisions
    }

    fn policies_of(&self, namespace: &str) -> Vec<Arc<SidecarPolicy>> {
        let mut policies = self.policies.clone();
        for policy in &mut policies {
            policy.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
        }
        policies.into_iter().map(Arc::new).collect()
    }
}

fn manifests(files: &[PathBuf]) -> Result<Vec<Document>, OfflineError> {
    let mut all = Vec::new();
    for path in files {
        let text = read(path)?;
        all.extend(
            documents::parse(&text)
                .map_err(|source| OfflineError::Document { path: path.clone(), source })?,
        );
    }
    Ok(all)
}

fn read_policies(files: &[PathBuf]) -> Result<Vec<SidecarPolicy>, OfflineError> {
    let mut policies = Vec::new();
    for path in files {
        for Document { value, .. } in manifests(std::slice::from_ref(path))? {
            for object in documents::objects(&value).iter().filter_map(|pointer| value.pointer(pointer)) {
                if object.get("kind").and_then(Value::as_str) != Some("SidecarPolicy") {
                    continue;
                }
                policies.push(serde_json::from_value(object.clone()).map_err(|source| {
                    OfflineError::Policy { path: path.clone(), title: documents::title(object), source }
                })?);
            }
        }
    }
    if policies.is_empty() {
        let mut paths = String::new();
        for path in files {
            let separator = if paths.is_empty() { "" } else { ", " };
            let _ = write!(paths, "{separator}{}", path.display());
        }
        return Err(OfflineError::NoPolicy { paths });
    }
    Ok(policies)
}

fn read(path: &Path) -> Result<String, OfflineError> {
    let fail = |source| OfflineError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let limit = MAX_FILE + 1;
    if path.as_os_str() == "-" {
        io::stdin().lock().take(limit).read_to_string(&mut text).map_err(fail)?;
    } else {
        fs::File::open(path).map_err(fail)?.take(limit).read_to_string(&mut text).map_err(fail)?;
    }
    if text.len() as u64 > MAX_FILE {
        return Err(OfflineError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// Applies the patch with the same meaning that it has for the API server.
fn apply(target: &mut Value, patch: &[inject::PatchOperation]) -> Result<(), String> {
    let operations = serde_json::to_value(patch).map_err(|error| error.to_string())?;
    let patch: json_patch::Patch = serde_json::from_value(operations).map_err(|error| error.to_string())?;
    json_patch::patch(target, &patch).map_err(|error| error.to_string())
}
