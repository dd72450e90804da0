//! What a listener is opened with: files are read, sources are followed, nothing is bound yet.

use std::sync::Arc;

use crds::config::{
    BackendTls, ConnectionLog, HttpListener, ListenerTls, ServerCheck, TcpListener, TcpProtocol, UdpListener,
    WeightedSource,
};

use crate::{
    balance::SiteInput,
    config::{CheckedHttp, CheckedListener, CheckedTcp, CheckedUdp},
    discovery::{Backends, Discovery},
    http::{self, ALPN, Gate, GateError},
    l4::{self, ALL as ALL_BACKENDS},
    net::{
        BindError, postgres,
        tls::{Beginning, Client, Server, Store, TlsError},
    },
    probe::{Password, PasswordError},
};

/// A listener's configuration, and the parts that its kind needs.
#[derive(Clone)]
pub(super) enum Prepared {
    Http(Box<HttpListener>, http::Parts),
    Tcp(Box<TcpListener>, l4::TcpParts),
    Udp(Box<UdpListener>, l4::UdpParts),
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("listener {listener}: {place}: {source}")]
    Tls { listener: String, place: String, source: TlsError },
    #[error("listener {listener}: health.{field}: {source}")]
    Password { listener: String, field: &'static str, source: PasswordError },
    #[error("listener {listener}: {source}")]
    Gate { listener: String, source: GateError },
}

/// Where parts come from.
pub(super) struct Maker<'a> {
    pub(super) tls: &'a Store,
    pub(super) means: &'a http::Means,
    pub(super) discovery: &'a mut Discovery,
    /// Backend sets of running listeners, which are kept while their sources stay the same.
    pub(super) known: Vec<(&'a [WeightedSource], &'a Backends)>,
}

impl Prepared {
    /// The backend sets, in the order of [`CheckedListener::sources`].
    pub(super) fn backends(&self) -> Vec<&Backends> {
        match self {
            Self::Http(_, parts) => parts.sites.iter().map(|site| &site.backends).collect(),
            Self::Tcp(_, parts) => {
                std::iter::once(&parts.backends).chain(&parts.routes).map(|site| &site.backends).collect()
            }
            Self::Udp(_, parts) => vec![&parts.backends.backends],
        }
    }
}

impl Maker<'_> {
    /// `before` is the running listener of the same name.
    pub(super) fn prepare(
        &mut self,
        listener: &CheckedListener,
        before: Option<&Prepared>,
    ) -> Result<Prepared, OpenError> {
        match listener {
            CheckedListener::Http(http) => {
                let gate = match before {
                    Some(Prepared::Http(_, parts)) => Some(&*parts.gate),
                    _ => None,
                };
                Ok(Prepared::Http(Box::new(http.listener().clone()), self.http(http, gate)?))
            }
            CheckedListener::Tcp(tcp) => Ok(Prepared::Tcp(Box::new(tcp.listener().clone()), self.tcp(tcp)?)),
            CheckedListener::Udp(udp) => Ok(Prepared::Udp(Box::new(udp.listener().clone()), self.udp(udp)?)),
        }
    }

    fn http(&mut self, checked: &CheckedHttp, before: Option<&Gate>) -> Result<http::Parts, OpenError> {
        let listener = checked.listener();
        let name = &listener.name;
        let tls = self.server(name, listener.tls.as_ref(), ALPN)?;
        let mut sites = Vec::new();
        for site in checked.sites() {
            sites.push(SiteInput {
                name: site.name().to_owned(),
                tls: self.client(name, &format!("site {}: tls", site.name()), site.tls())?,
                protocol: Some(site.protocol()),
                backends: self.backends(site.sources()),
            });
        }
        let gate = Gate::new(listener, self.means, before)
            .map_err(|source| OpenError::Gate { listener: name.clone(), source })?;
        Ok(http::Parts { tls, gate: Arc::new(gate), sites })
    }

    fn tcp(&mut self, checked: &CheckedTcp) -> Result<l4::TcpParts, OpenError> {
        let listener = checked.listener();
        let name = &listener.name;
        let postgres = listener.spoken() == Some(TcpProtocol::Postgres);
        let client = listener.backend_tls.as_ref();
        let client = client.map(|tls| self.tls.client_as(&tls.settings, Beginning::of(listener)));
        let backends = SiteInput {
            name: ALL_BACKENDS.to_owned(),
            tls: client.transpose().map_err(|source| failed(name, "backendTls", source))?,
            protocol: None,
            backends: self.backends(checked.sources()),
        };
        let settings = listener.tls.as_ref().map(|tls| &tls.settings);
        let tls = self.server(name, settings, if postgres { postgres::ALPN } else { &[] })?;
        let access = self.access(listener.access_log.as_ref());
        let check_tls = self.check_client(name, &listener.health)?;
        password(name, &listener.health)?;
        let routes = listener.routes.iter().zip(checked.routes()).map(|(route, sources)| SiteInput {
            name: route.name.clone(),
            tls: None,
            protocol: None,
            backends: self.backends(sources),
        });
        let routes = routes.collect();
        Ok(l4::TcpParts { tls, access, backends, routes, check_tls })
    }

    fn udp(&mut self, checked: &CheckedUdp) -> Result<l4::UdpParts, OpenError> {
        let listener = checked.listener();
        let access = self.access(listener.access_log.as_ref());
        let check = listener.health.as_ref();
        let check_tls = check.map(|check| self.check_client(&listener.name, check)).transpose()?.flatten();
        let backends = self.backends(checked.sources());
        let backends = SiteInput { name: ALL_BACKENDS.to_owned(), tls: None, protocol: None, backends };
        Ok(l4::UdpParts { access, backends, check_tls })
    }

    fn access(&self, settings: Option<&ConnectionLog>) -> Option<Arc<l4::Access>> {
        settings.map(|settings| Arc::new(l4::Access::new(settings, &self.means.lines)))
    }

    fn server(
        &self,
        listener: &str,
        settings: Option<&ListenerTls>,
        alpn: &[&[u8]],
    ) -> Result<Option<Arc<Server>>, OpenError> {
        let server = settings.map(|settings| self.tls.server(settings, alpn)).transpose();
        server.map_err(|source| failed(listener, "tls", source))
    }

    fn client(
        &self,
        listener: &str,
        place: &str,
        settings: Option<&BackendTls>,
    ) -> Result<Option<Arc<Client>>, OpenError> {
        let client = settings.map(|settings| self.tls.client(settings)).transpose();
        client.map_err(|source| failed(listener, place, source))
    }

    fn check_client(&self, listener: &str, check: &ServerCheck) -> Result<Option<Arc<Client>>, OpenError> {
        let client = check.tls.as_ref().map(|tls| self.tls.client_as(tls, Beginning::of_check(check)));
        client.transpose().map_err(|source| failed(listener, "health.tls", source))
    }

    fn backends(&mut self, sources: &[WeightedSource]) -> Backends {
        let known = self.known.iter().find(|(known, _)| *known == sources);
        known.map_or_else(|| self.discovery.subscribe(sources), |(_, backends)| (*backends).clone())
    }
}

/// Checks read it themselves, each time; one that cannot be read now is no part of a good configuration.
fn password(listener: &str, check: &ServerCheck) -> Result<(), OpenError> {
    let Some((field, path)) = check.password_file() else { return Ok(()) };
    let read = Password::read(path).map(drop);
    read.map_err(|source| OpenError::Password { listener: listener.to_owned(), field, source })
}

fn failed(listener: &str, place: &str, source: TlsError) -> OpenError {
    let field = source.field();
    let place = if field.is_empty() { place.to_owned() } else { format!("{place}.{field}") };
    OpenError::Tls { listener: listener.to_owned(), place, source }
}
