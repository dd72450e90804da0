//! Bad input: refused where it is written, with the field and the remedy.

use anyhow::{Context, Result, ensure};
use crds::names;
use e2e::{
    manifests::{container, listener, opted_in, pod, policy, to_service},
    with_namespace,
};
use serde_json::{Value, json};

fn one(backend: Value) -> Value {
    policy("bad", &[listener("web", 9000, &[backend])])
}

fn with(mut policy: Value, pointer: &str, value: Value) -> Result<Value> {
    let (parent, field) = pointer.rsplit_once('/').context("a pointer has a /")?;
    policy.pointer_mut(parent).with_context(|| format!("{parent} is in the policy"))?[field] = value;
    Ok(policy)
}

#[tokio::test]
async fn a_bad_policy_is_refused_by_kubectl_apply_with_the_path_of_the_field() -> Result<()> {
    with_namespace("refused", async |ns| {
        let web = to_service("web");
        let twice = ["a", "b"].map(|name| listener(name, 9000, &[to_service("web")]));
        let bad = [
            (with(one(web.clone()), "/spec/retires", json!(3))?, r#"spec): unknown field "retires""#),
            (
                with(one(web.clone()), "/spec/http/0/sites/0/weight", json!(3))?,
                r#"spec.http[0].sites[0]): unknown field "weight""#,
            ),
            (with(one(web.clone()), "/spec/http/0/port", json!(70000))?, "spec.http[0].port"),
            (with(one(web.clone()), "/spec/http/0/port", json!(0))?, "spec.http[0].port"),
            (with(one(web.clone()), "/spec/http/0/port", json!(names::ADMIN_PORT))?, "spec.http[0].port"),
            (policy("bad", &twice), "spec.http"),
            (policy("bad", &[listener("web", 9000, &[])]), "spec.http[0].sites[0].backends"),
            (with(one(web.clone()), "/spec/http/0/sites", json!([]))?, "spec.http[0].sites"),
            (
                one(json!({"addresses": ["10.9.0.{4...1}:9000"]})),
                "spec.http[0].sites[0].backends[0].addresses[0]",
            ),
            (one(json!({"addresses": ["10.9.0.1"]})), "spec.http[0].sites[0].backends[0].addresses[0]"),
            (one(json!({})), "spec.http[0].sites[0].backends[0]"),
            (
                with(one(web.clone()), "/spec/http/0/health", json!({"interval": "5 seconds"}))?,
                "spec.http[0].health.interval",
            ),
            (with(one(web), "/spec/injection/drainTimeout", json!("soon"))?, "spec.injection.drainTimeout"),
        ];
        for (policy, path) in bad {
            let refusal = ns.try_apply(&[policy]).await?.refused()?;
            ensure!(refusal.contains(path), "the refusal names {path}: {refusal}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_that_uses_a_listeners_port_or_the_admin_port_is_denied_with_the_remedy() -> Result<()> {
    with_namespace("clash", async |ns| {
        ns.apply_policy(&one(json!({"addresses": ["10.9.0.1:9000"]}))).await?;
        let mut app = container("app", &["sleep"]);
        for (port, remedy) in
            [(9000, "change spec.http[].port"), (names::ADMIN_PORT, "give the container another port")]
        {
            app["ports"] = json!([{"containerPort": port}]);
            let mut clash = opted_in(pod("clash", &["sleep"]));
            clash["spec"]["containers"] = json!([app]);
            let refusal = ns.try_apply(&[clash]).await?.refused()?;
            ensure!(refusal.contains(&port.to_string()), "the refusal names port {port}: {refusal}");
            ensure!(refusal.contains(remedy), "the refusal says {remedy:?}: {refusal}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_or_volume_with_the_name_of_ours_is_denied_with_its_name() -> Result<()> {
    with_namespace("names", async |ns| {
        ns.apply_policy(&one(json!({"addresses": ["10.9.0.1:9000"]}))).await?;
        let mut named = opted_in(pod("named", &["sleep"]));
        named["spec"]["containers"] =
            json!([container("app", &["sleep"]), container(names::CONTAINER, &["sleep"])]);
        let refusal = ns.try_apply(&[named]).await?.refused()?;
        ensure!(refusal.contains("container") && refusal.contains(names::CONTAINER), "{refusal}");
        let mut volume = opted_in(pod("volume", &["sleep"]));
        volume["spec"]["volumes"] = json!([{"name": names::volumes::CONFIG, "emptyDir": {}}]);
        let refusal = ns.try_apply(&[volume]).await?.refused()?;
        ensure!(refusal.contains(names::volumes::CONFIG), "{refusal}");
        Ok(())
    })
    .await
}
