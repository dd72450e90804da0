//! Manifests in, manifests out: the same decision as the webhook's, for any kind that has a pod template.

use std::{fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{AutoMode, OfflineArgs, OfflineError, documents, explain, inject};

const POLICY: &str = "
apiVersion: sidecar.io/v1alpha1
kind: SidecarPolicy
metadata: {name: data, generation: 3}
spec: {http: [{name: minio, port: 9000, sites: [{name: primary, backends: [{addresses: ['10.0.0.1:9000']}]}]}]}
";

fn template(kind: &str, nested: &str) -> String {
    format!("kind: {kind}\nmetadata: {{name: web}}\nspec: {nested}\n")
}

const POD: &str = "{metadata: {annotations: {sidecar.io/inject: 'true'}}, spec: {containers: [{name: app}]}}";

struct Files {
    directory: TempDir,
    args: OfflineArgs,
}

impl Files {
    fn new(manifest: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| -> PathBuf {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let args = OfflineArgs {
            files: vec![write("manifest", manifest)],
            policies: vec![write("policy.yaml", POLICY)],
            namespace: "analytics".to_owned(),
            sidecar_image: "sidecar:test".to_owned(),
            mode: AutoMode::Native,
        };
        Self { directory, args }
    }

    fn inject(&self) -> Result<(String, String), OfflineError> {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        inject(&self.args, &mut out, &mut notes)?;
        Ok((String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap()))
    }
}

fn first_sidecar<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(&format!("{path}/spec/initContainers/0/name")).unwrap_or(&Value::Null)
}

#[test]
fn every_kind_with_a_pod_template_is_injected() {
    let pod = format!(
        "kind: Pod\n{}",
        "metadata: {name: web, annotations: {sidecar.io/inject: 'true'}}\nspec: {containers: [{name: app}]}\n"
    );
    let workload = format!("{{template: {POD}}}");
    for (manifest, path) in [
        (pod, ""),
        (template("Deployment", &workload), "/spec/template"),
        (template("StatefulSet", &workload), "/spec/template"),
        (template("DaemonSet", &workload), "/spec/template"),
        (template("ReplicaSet", &workload), "/spec/template"),
        (template("ReplicationController", &workload), "/spec/template"),
        (template("Job", &workload), "/spec/template"),
        (template("Rollout", &workload), "/spec/template"),
        (
            template("CronJob", &format!("{{jobTemplate: {{spec: {workload}}}}}")),
            "/spec/jobTemplate/spec/template",
        ),
        (format!("kind: PodTemplate\ntemplate: {POD}\n"), "/template"),
        (
            format!("kind: List\nitems: [{{kind: Service}}, {{kind: Job, spec: {workload}}}]\n"),
            "/items/1/spec/template",
        ),
    ] {
        let (out, _) = Files::new(&manifest).inject().unwrap();
        let value: Value = serde_yaml::from_str(&out).unwrap();
        assert_eq!(first_sidecar(&value, path), "sidecar", "{out}");
    }
}

#[test]
fn other_documents_pass_through_with_their_comments() {
    let service = "# for the web\nkind: Service\nmetadata: {name: web} # short\n";
    let spark = "kind: SparkApplication\nmetadata: {name: job}\nspec:\n  driver: {template: {spec: {}}}\n";
    let manifest = format!(
        "{service}---\n{spark}--- # next\n{}",
        template("Deployment", &format!("{{template: {POD}}}"))
    );
    let (out, notes) = Files::new(&manifest).inject().unwrap();
    assert!(out.starts_with(&format!("{service}---\n{spark}---\n")), "{out}");
    assert!(
        notes.contains("Service web: no pod template") && notes.contains("SparkApplication job"),
        "{notes}"
    );
}

#[test]
fn json_is_read_and_what_was_injected_stays_as_it_is() {
    let manifest = serde_json::json!({"kind": "Pod", "metadata": {"name": "web", "annotations": {"sidecar.io/inject": "true"}}, "spec": {"containers": [{"name": "app"}]}});
    let (once, _) = Files::new(&format!("{manifest}\n{manifest}")).inject().unwrap();
    assert_eq!(once.matches("name: sidecar-token\n").count(), 4, "{once}");
    let (twice, _) = Files::new(&once).inject().unwrap();
    assert_eq!(twice, once);
}

#[test]
fn a_denial_names_the_document_and_the_remedy() {
    let manifest = template("Job", &format!("{{template: {}}}", POD.replace("'true'", "'yes'")));
    let error = Files::new(&manifest).inject().unwrap_err().to_string();
    assert!(error.starts_with("Job web: annotation sidecar.io/inject is \"yes\""), "{error}");
    let unquoted = template("Job", &format!("{{template: {}}}", POD.replace("'true'", "true")));
    assert!(Files::new(&unquoted).inject().unwrap_err().to_string().contains("quotes"));
}

#[test]
fn explain_says_what_would_be_done_and_why() {
    let manifest = format!(
        "{}---\n{}",
        template("Job", &format!("{{template: {POD}}}")),
        template("Deployment", "{template: {spec: {containers: []}}}")
    );
    let files = Files::new(&manifest);
    let mut out = Vec::new();
    explain(&files.args, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(
        out,
        "Job web: injected by policy data at generation 3\nDeployment web: skipped: not annotated sidecar.io/inject\n"
    );
}

#[test]
fn a_file_without_a_policy_or_with_a_wrong_one_is_an_error() {
    let mut files = Files::new("kind: Pod\n");
    files.args.policies = files.args.files.clone();
    assert!(matches!(files.inject(), Err(OfflineError::NoPolicy { .. })));
    let wrong = files.directory.path().join("wrong.yaml");
    fs::write(&wrong, POLICY.replace("port: 9000, sites", "port: 90000, sites")).unwrap();
    files.args.policies = vec![wrong];
    let error = files.inject().unwrap_err().to_string();
    assert!(error.contains("SidecarPolicy data") && error.contains("90000"), "{error}");
}

#[test]
fn documents_are_split_only_where_yaml_splits_them() {
    let text = "a: |\n  ---\n  x\n---\nb: '---x'\n---   \n\n---\n# nothing\n";
    let documents = documents::parse(text).unwrap();
    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    assert_eq!(texts, ["a: |\n  ---\n  x\n", "b: '---x'\n"]);
    assert!(documents::parse("a: [").is_err());
    assert!(documents::parse("{\"a\": 1} {").is_err());
}
