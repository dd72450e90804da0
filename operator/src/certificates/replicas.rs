//! Whether every replica presents a given certificate. Client required.
//!
//! The addresses are those of the webhook's Service; the handshake accepts that one certificate and no other, and nothing
//! is sent after it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, api::ListParams};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(3);

/// Asks every replica that may get traffic. None at all is as good as all: nobody is asked for admissions.
pub(super) async fn all_serve(
    client: &Client,
    namespace: &str,
    service: &str,
    leaf: CertificateDer<'static>,
) -> Result<bool, kube::Error> {
    let selector = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace).list(&selector).await?;
    let Ok(connector) = connector(leaf) else { return Ok(false) };
    let asked = slices.items.iter().flat_map(addresses).map(|address| serves(&connector, address));
    Ok(futures::future::join_all(asked).await.into_iter().all(|serves| serves))
}

fn addresses(slice: &EndpointSlice) -> Vec<(IpAddr, u16)> {
    let ports: Vec<u16> =
        slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
    slice
        .endpoints
        .iter()
        .filter(|endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.serving) != Some(false)
        })
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| address.parse().ok())
        .flat_map(|address| ports.iter().map(move |port| (address, *port)))
        .collect()
}

async fn serves(connector: &TlsConnector, address: (IpAddr, u16)) -> bool {
    let handshake = async {
        let stream = TcpStream::connect(address).await?;
        connector.connect(ServerName::IpAddress(address.0.into()), stream).await.map(drop)
    };
    matches!(tokio::time::timeout(PATIENCE, handshake).await, Ok(Ok(())))
}

fn connector(leaf: CertificateDer<'static>) -> Result<TlsConnector, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Pinned { leaf, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts one certificate, whoever signed it; that its holder has the key is verified as ever.
#[derive(Debug)]
struct Pinned {
    leaf: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.leaf {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("another certificate is served".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
