//! Services through the API: what happens to backends when the API server does what API servers do. In real time, which
//! the sockets of the fake server live in; the waits are the retries' own.

use serde_json::json;

use super::{
    fake_api::{FakeApi, Reply, event, slice, watch},
    *,
};
use crate::discovery::dns::SystemDns;

fn service_discovery(cluster: Arc<Cluster>, state: StateDir) -> Discovery {
    discovery(cluster, Arc::new(SystemDns::default()), state)
}

#[tokio::test]
async fn a_role_that_is_bound_late_is_waited_for() {
    let (_sender, watching) = watch();
    let list = Reply::List(vec![slice("a", 1, &["10.0.0.1"]), slice("b", 1, &["10.0.0.2"])]);
    let script = [Reply::Status(403), Reply::Status(403), Reply::Status(403), list, watching];
    let (fake, cluster) = FakeApi::start(script).await;
    let mut discovery = service_discovery(cluster, StateDir::default());
    let start = time::Instant::now();
    let mut backends = discovery.subscribe(&[minio().into()]);
    assert!(!backends.borrow().answered);

    let set = wait(&mut backends, "the reason", |set| !set.unavailable.is_empty()).await;
    assert_eq!(set.unavailable[0].what, "Service storage/minio");
    assert!(set.unavailable[0].message.contains("403"), "{set:?}");
    assert!(!set.answered);

    let set = wait(&mut backends, "backends", |set| !set.endpoints.is_empty()).await;
    assert_eq!(addresses(&set), ["10.0.0.1:9000", "10.0.0.2:9000"]);
    assert!(set.answered && set.unavailable.is_empty());
    assert!(start.elapsed() < Duration::from_secs(5), "the first retries are quick: {:?}", start.elapsed());
    let selector = "labelSelector=kubernetes.io%2Fservice-name%3Dminio";
    assert!(fake.requests()[0].contains("/namespaces/storage/endpointslices"), "{:?}", fake.requests());
    assert!(fake.requests()[0].contains(selector), "{:?}", fake.requests());
}

#[tokio::test]
async fn changes_arrive_and_a_version_that_is_gone_lists_again() {
    let (sender, watching) = watch();
    let (_second, watching_again) = watch();
    let script = [Reply::List(vec![slice("a", 1, &["10.0.0.1"])]), watching];
    let (fake, cluster) = FakeApi::start(script).await;
    let mut backends = service_discovery(cluster, StateDir::default()).subscribe(&[minio().into()]);
    wait(&mut backends, "the list", |set| addresses(set) == ["10.0.0.1:9000"]).await;

    sender.send(event("ADDED", slice("b", 2, &["10.0.0.2"]))).unwrap();
    wait(&mut backends, "a new slice", |set| addresses(set) == ["10.0.0.1:9000", "10.0.0.2:9000"]).await;
    sender.send(event("DELETED", slice("a", 3, &["10.0.0.1"]))).unwrap();
    wait(&mut backends, "a deleted slice", |set| addresses(set) == ["10.0.0.2:9000"]).await;

    fake.then([Reply::List(vec![slice("c", 9, &["10.0.0.3"])]), watching_again]);
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410});
    sender.send(event("ERROR", gone)).unwrap();
    wait(&mut backends, "a new list", |set| addresses(set) == ["10.0.0.3:9000"]).await;
}

#[tokio::test]
async fn a_watch_that_is_refused_as_gone_lists_again() {
    let (_sender, watching) = watch();
    let script = [
        Reply::List(vec![slice("a", 1, &["10.0.0.1"])]),
        Reply::Status(410),
        Reply::List(vec![slice("b", 2, &["10.0.0.2"])]),
        watching,
    ];
    let (_fake, cluster) = FakeApi::start(script).await;
    let mut backends = service_discovery(cluster, StateDir::default()).subscribe(&[minio().into()]);
    wait(&mut backends, "the second list", |set| addresses(set) == ["10.0.0.2:9000"]).await;
}

#[tokio::test]
async fn an_api_server_that_is_away_takes_no_backend_away() {
    let (sender, watching) = watch();
    let (_second, watching_again) = watch();
    let (fake, cluster) = FakeApi::start([Reply::List(vec![slice("a", 1, &["10.0.0.1"])]), watching]).await;
    let mut backends = service_discovery(cluster, StateDir::default()).subscribe(&[minio().into()]);
    wait(&mut backends, "the list", |set| !set.endpoints.is_empty()).await;

    fake.then([Reply::Status(500), Reply::Status(503), Reply::Status(403)]);
    fake.then([Reply::Status(410), Reply::List(vec![slice("a", 7, &["10.0.0.7"])]), watching_again]);
    drop(sender);
    let set = wait(&mut backends, "what comes after", |set| addresses(set) != ["10.0.0.1:9000"]).await;
    assert_eq!(addresses(&set), ["10.0.0.7:9000"]);
}

#[tokio::test]
async fn a_service_without_slices_is_unavailable_with_a_reason() {
    let (sender, watching) = watch();
    let (_fake, cluster) = FakeApi::start([Reply::List(vec![]), watching]).await;
    let mut backends = service_discovery(cluster, StateDir::default()).subscribe(&[minio().into()]);
    let set = wait(&mut backends, "the answer", |set| set.answered).await;
    assert!(set.unavailable[0].message.contains("no EndpointSlices"), "{set:?}");
    sender.send(event("ADDED", slice("a", 2, &["10.0.0.2"]))).unwrap();
    let set = wait(&mut backends, "backends", |set| !set.endpoints.is_empty()).await;
    assert!(set.unavailable.is_empty());
}

#[tokio::test]
async fn endpoints_are_used_only_where_there_are_no_slices() {
    let (_sender, watching) = watch();
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "minio", "namespace": "storage", "resourceVersion": "1"},
        "subsets": [{
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}],
            "ports": [{"name": "metrics", "port": 1}, {"name": "http", "port": 9000}],
        }],
    });
    let script = [Reply::Status(404), Reply::Status(404), Reply::List(vec![endpoints]), watching];
    let (fake, cluster) = FakeApi::start(script).await;
    let mut backends = service_discovery(cluster, StateDir::default()).subscribe(&[minio().into()]);
    wait(&mut backends, "the endpoints", |set| addresses(set) == ["10.0.0.1:9000"]).await;
    let requests = fake.requests();
    assert_eq!(requests[1], "/apis/discovery.k8s.io/v1");
    assert!(requests[2].contains("fieldSelector=metadata.name%3Dminio"), "{requests:?}");
}

#[tokio::test]
async fn sites_that_name_one_service_share_one_watch() {
    let (sender, watching) = watch();
    let (fake, cluster) = FakeApi::start([Reply::List(vec![slice("a", 1, &["10.0.0.1"])]), watching]).await;
    let mut discovery = service_discovery(cluster, StateDir::default());
    let mut first = discovery.subscribe(&[minio().into()]);
    wait(&mut first, "the list", |set| !set.endpoints.is_empty()).await;
    let mut second = discovery
        .subscribe(&[BackendSource::Addresses(vec!["10.9.9.9:1".parse().unwrap()]).into(), minio().into()]);
    assert_eq!(addresses(&second.borrow()), ["10.0.0.1:9000", "10.9.9.9:1"], "known at once");
    sender.send(event("MODIFIED", slice("a", 2, &["10.0.0.2"]))).unwrap();
    wait(&mut first, "the change", |set| addresses(set) == ["10.0.0.2:9000"]).await;
    wait(&mut second, "the change", |set| addresses(set) == ["10.0.0.2:9000", "10.9.9.9:1"]).await;
    assert_eq!(fake.requests().len(), 2, "one list and one watch: {:?}", fake.requests());
}

#[tokio::test]
async fn the_last_good_set_serves_until_the_first_answer() {
    let directory = tempfile::tempdir().unwrap();
    let state = || StateDir::new(Some(directory.path().to_owned()));
    {
        let (_sender, watching) = watch();
        let list = Reply::List(vec![slice("a", 1, &["10.0.0.1"])]);
        let (_fake, cluster) = FakeApi::start([list, watching]).await;
        let mut backends = service_discovery(cluster, state()).subscribe(&[minio().into()]);
        wait(&mut backends, "the list", |set| !set.endpoints.is_empty()).await;
    }
    let (fake, cluster) = FakeApi::start([Reply::Status(503), Reply::Status(503)]).await;
    let mut backends = service_discovery(cluster, state()).subscribe(&[minio().into()]);
    let set = backends.borrow().clone();
    assert_eq!(addresses(&set), ["10.0.0.1:9000"]);
    assert!(set.answered);

    let (_sender, watching) = watch();
    fake.then([Reply::List(vec![slice("a", 5, &["10.0.0.5"])]), watching]);
    let set = wait(&mut backends, "the answer", |set| addresses(set) != ["10.0.0.1:9000"]).await;
    assert_eq!(addresses(&set), ["10.0.0.5:9000"]);
}

#[tokio::test]
async fn a_config_map_is_followed_by_name() {
    use crate::config::source::{Reading, api};

    let map = |version: u32, data| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": "sidecar-data", "namespace": "team", "resourceVersion": version.to_string()}})
    };
    let (sender, watching) = watch();
    let script = [
        Reply::Status(403),
        Reply::List(vec![map(1, json!({"sidecar.v1.yaml": "one", "sidecar.v9.yaml": "newer"}))]),
        watching,
    ];
    let (fake, cluster) = FakeApi::start(script).await;
    let (readings_sender, mut readings) = tokio::sync::mpsc::channel(4);
    tokio::spawn(api::follow(cluster, "team".to_owned(), "sidecar-data".to_owned(), readings_sender));
    let mut next = async || time::timeout(DEADLINE, readings.recv()).await.unwrap().unwrap();

    let Reading::Missing { awaited, .. } = next().await else { panic!("found") };
    assert!(awaited.contains("sidecar-data") && awaited.contains("403"), "{awaited}");
    let content = |reading| match reading {
        Reading::Found { document, .. } => String::from_utf8(document.bytes).unwrap(),
        Reading::Missing { awaited, .. } => format!("missing {awaited}"),
    };
    assert_eq!(content(next().await), "one");
    sender.send(event("MODIFIED", map(2, json!({"sidecar.v1.yaml": "two"})))).unwrap();
    assert_eq!(content(next().await), "two");
    sender.send(event("DELETED", map(3, json!({})))).unwrap();
    assert_eq!(content(next().await), "missing ConfigMap team/sidecar-data");
    assert!(
        fake.requests()[0].contains("fieldSelector=metadata.name%3Dsidecar-data"),
        "{:?}",
        fake.requests()
    );
}
