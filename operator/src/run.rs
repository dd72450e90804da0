//! `operator run`: client -> watches -> certificates, webhook, admin -> lease -> controller; and the way down.
//!
//! On SIGTERM: /readyz fails and the lease is released at once; the webhook goes on accepting until every API server's
//! way here is closed; then requests in flight are finished, and the process ends. No admission fails in between.
//! A task that ends by itself ends the process: the kubelet starts it anew, and the other replica serves meanwhile.

use std::{future::pending, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Api, Client};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    certificates::{
        Manager, MaterialError, Names, Serving, ServingError, Validities, Watched, follow_directory,
    },
    command::RunArgs,
    controller::{self, Policies, Reconciler, Surroundings, World, lease::Candidate},
    inject::Settings,
    telemetry::{self, Readiness},
    webhook::{self, ServeError},
};

/// How long the webhook accepts after SIGTERM: endpoints reach kube-proxy on every control-plane node within it.
const LAME_DUCK: Duration = Duration::from_secs(8);

/// How long requests in flight may take after that. An admission has 5 s.
const DRAIN: Duration = Duration::from_secs(10);

/// Longest a request at the start may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest that an open request may hear nothing. A watch is ended by the API server after 290 s, and may be silent.
const LONGEST_SILENCE: Duration = Duration::from_secs(295);

const CACHES: &str = "caches";
const CERTIFICATE: &str = "certificate";
const CA_BUNDLE: &str = "caBundle";
const RUNNING: &str = "not shutting down";

/// Why the operator ended. Its administrator can fix it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no access to a Kubernetes cluster is configured")]
    Configuration(#[from] kube::config::InferConfigError),
    #[error("the API server cannot be asked")]
    Api(#[from] kube::Error),
    #[error("the API server did not answer within {PATIENCE:?}")]
    Late,
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Validities(#[from] MaterialError),
    #[error(transparent)]
    Serving(#[from] ServingError),
    #[error("the webhook ended")]
    Webhook(#[from] ServeError),
    #[error("{0} ended by itself, which is a bug")]
    Ended(&'static str),
    #[error("a task failed, which is a bug")]
    Failed(#[from] JoinError),
}

/// Ways to the API server. On either, an answer that does not come is an error after a while.
pub struct Clients {
    pub common: Client,
    /// For the Lease alone, whose renewal cannot wait.
    pub lease: Client,
}

impl Clients {
    pub fn new(mut config: kube::Config) -> Result<Self, kube::Error> {
        let lease = Client::try_from(controller::lease::impatient(config.clone()))?;
        config.read_timeout = Some(LONGEST_SILENCE);
        // Else the time that a connection was not in use would count.
        config.reset_reader_on_write = true;
        Ok(Self { common: Client::try_from(config)?, lease })
    }
}

/// The listening sockets.
pub struct Sockets {
    pub webhook: TcpListener,
    pub admin: TcpListener,
}

/// Runs inside a cluster until SIGTERM or SIGINT.
pub async fn run(args: RunArgs) -> Result<(), RunError> {
    // Several crates use TLS; whichever came first would choose otherwise.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let sockets =
        Sockets { webhook: listen(args.webhook_address).await?, admin: listen(args.admin_address).await? };
    let clients = Clients::new(kube::Config::infer().await?)?;
    let stop = shutdown.clone();
    let signals = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        pending().await
    };
    tokio::select! {
        ended = operate(args, clients, sockets, shutdown) => ended,
        () = signals => Ok(()),
    }
}

/// Runs until `shutdown`, and then the way down.
pub async fn operate(
    args: RunArgs,
    clients: Clients,
    sockets: Sockets,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let Clients { common: client, lease: lease_client } = clients;
    let validities = Validities::new(args.ca_validity.as_std(), args.leaf_validity.as_std())?;
    let owner = within(owner(&client, &args)).await?;
    let endpoint_slices = within(has_endpoint_slices(&client)).await?;
    let settings =
        Settings { sidecar_image: args.sidecar_image.clone(), operator_namespace: args.namespace.clone() };
    let readiness = Readiness::new(&[CACHES, CERTIFICATE, CA_BUNDLE, RUNNING]);
    readiness.set(RUNNING, true);
    let mut registry = Registry::default();
    let process = telemetry::Process::register(&mut registry);

    let world = Arc::new(World::default());
    let serving = Arc::new(Serving::new()?);
    serving.register(&mut registry);
    let watched = Arc::new(Watched::default());
    let (lead, leading) = watch::channel(false);
    let webhook = webhook::router(webhook::State {
        policies: Arc::new(Policies { client: client.clone(), world: Arc::clone(&world) }),
        platform: Arc::clone(&world.platform),
        settings: Arc::new(settings.clone()),
        metrics: Arc::new(webhook::Metrics::register(&mut registry)),
    });

    // Watches, certificates and admin last until the very end: the webhook needs them while it drains.
    let mut lasting = Tasks::default();
    for watch in controller::watches(&client, &world) {
        lasting.spawn("a watch", watch);
    }
    lasting.spawn("readiness", follow_readiness(readiness.clone(), Arc::clone(&world), Arc::clone(&serving)));
    lasting.spawn("metrics", follow_leading(process.leading, leading.clone()));
    let admin = telemetry::router(Arc::new(registry), readiness.clone());
    lasting.spawn("the admin listener", async move {
        if let Err(error) = axum::serve(sockets.admin, admin).await {
            warn!(error = &error as &dyn std::error::Error, "the admin listener failed");
        }
    });

    // What only the leader does ends with `shutdown`, so that another replica can go on.
    let mut leaders = Tasks::default();
    let names = names(&args);
    if let Some(directory) = args.certificate_dir.clone() {
        readiness.set(CA_BUNDLE, true);
        let serving = Arc::clone(&serving);
        lasting.spawn("the certificate", async move { follow_directory(&directory, &serving).await });
    } else {
        follow_certificates(&mut lasting, &client, &names, &watched, &serving, &readiness);
        let manager = Manager::new(client.clone(), names, validities, owner.clone(), serving.leaf());
        let (leading, watched) = (leading.clone(), Arc::clone(&watched));
        leaders.spawn("certificates", async move { manager.run(leading, &watched).await });
    }
    let candidate = Candidate {
        namespace: args.namespace.clone(),
        lease: args.lease.clone(),
        identity: args.pod_name.clone(),
        owner,
    };
    let released = CancellationToken::new();
    let lease = candidate.run(lease_client, lead, released.clone());
    let lease = tokio::spawn(lease);
    let surroundings = Surroundings { settings, endpoint_slices };
    let reconciler = Arc::new(Reconciler::new(client, world, surroundings, args.pod_name));
    leaders.spawn("the controller", controller::run(reconciler, leading, shutdown.clone()));

    let drain = CancellationToken::new();
    let mut serve =
        tokio::spawn(webhook::serve(sockets.webhook, serving.tls(), webhook, drain.clone(), DRAIN));
    info!(version = env!("CARGO_PKG_VERSION"), "started");

    let early = tokio::select! {
        () = shutdown.cancelled() => None,
        served = &mut serve => return Err(served?.err().map_or(RunError::Ended("the webhook"), RunError::Webhook)),
        error = lasting.ended() => Some(error),
        error = leaders.ended(), if !shutdown.is_cancelled() => Some(error),
    };
    if let Some(error) = early.filter(|_| !shutdown.is_cancelled()) {
        return Err(error);
    }
    info!("shutting down: not ready from now on, and serving for {LAME_DUCK:?} more");
    readiness.set(RUNNING, false);
    drop(leaders);
    released.cancel();
    let lame = tokio::time::sleep(LAME_DUCK);
    lease.await?;
    lame.await;
    drain.cancel();
    serve.await??;
    info!("done");
    Ok(())
}

fn follow_certificates(
    tasks: &mut Tasks,
    client: &Client,
    names: &Names,
    watched: &Arc<Watched>,
    serving: &Arc<Serving>,
    readiness: &Readiness,
) {
    let (client_, names_, watched_, serving_) =
        (client.clone(), names.clone(), Arc::clone(watched), Arc::clone(serving));
    tasks.spawn("the certificate", async move { watched_.follow_secret(client_, &names_, &serving_).await });
    let (client_, names_, watched_) = (client.clone(), names.clone(), Arc::clone(watched));
    tasks.spawn("the configuration", async move { watched_.follow_configuration(client_, &names_).await });
    let (readiness, watched) = (readiness.clone(), Arc::clone(watched));
    tasks.spawn("trust", async move {
        watched.trusted().await;
        // Once is enough: a caBundle that is emptied later is repaired, and an unready webhook would repair nothing.
        readiness.set(CA_BUNDLE, true);
        pending().await
    });
}

async fn follow_readiness(readiness: Readiness, world: Arc<World>, serving: Arc<Serving>) {
    let mut leaf = serving.leaf();
    let certificate = async {
        let _ = leaf.wait_for(Option::is_some).await;
        readiness.set(CERTIFICATE, true);
    };
    let caches = async {
        world.synced().await;
        readiness.set(CACHES, true);
    };
    futures::join!(certificate, caches);
    pending().await
}

async fn follow_leading(leads: Gauge, mut leading: watch::Receiver<bool>) {
    loop {
        leads.set(i64::from(*leading.borrow_and_update()));
        if leading.changed().await.is_err() {
            leads.set(0);
            pending().await
        }
    }
}

fn names(args: &RunArgs) -> Names {
    Names {
        namespace: args.namespace.clone(),
        secret: args.certificate_secret.clone(),
        service: args.webhook_service.clone(),
        configuration: args.webhook_configuration.clone(),
    }
}

/// Tasks that end with this value, and should not end before it.
#[derive(Default)]
struct Tasks(JoinSet<&'static str>);

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task.map(move |()| name));
    }

    /// The first task that ended, as an error.
    async fn ended(&mut self) -> RunError {
        match self.0.join_next().await {
            Some(Ok(name)) => RunError::Ended(name),
            Some(Err(error)) => RunError::Failed(error),
            None => pending().await,
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}

async fn within<T>(request: BoxFuture<'_, Result<T, kube::Error>>) -> Result<T, RunError> {
    Ok(timeout(PATIENCE, request).await.map_err(|_| RunError::Late)??)
}

/// The Deployment as the owner of Secret and Lease. Outside one, they stay until someone deletes them.
fn owner<'a>(
    client: &Client,
    args: &'a RunArgs,
) -> BoxFuture<'a, Result<Option<OwnerReference>, kube::Error>> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), &args.namespace);
    async move {
        let deployment = deployments.get_opt(&args.deployment).await?;
        Ok(deployment.and_then(|deployment| {
            Some(OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: args.deployment.clone(),
                uid: deployment.metadata.uid?,
                ..OwnerReference::default()
            })
        }))
    }
    .boxed()
}

fn has_endpoint_slices(client: &Client) -> BoxFuture<'static, Result<bool, kube::Error>> {
    let client = client.clone();
    async move {
        match client.list_api_group_resources("discovery.k8s.io/v1").await {
            Ok(resources) => Ok(resources.resources.iter().any(|resource| resource.name == "endpointslices")),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
    .boxed()
}
