//! What a failed handshake means to users, with the remedy where there is one.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, pki_types::UnixTime};

/// The same error in words that say what to do. Its kind stays as it is.
pub(super) fn explain(error: io::Error) -> io::Error {
    let text = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => format!("TLS: {}", words(error)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "TLS: the other side closed the connection during the handshake".to_owned()
        }
        None => return error,
    };
    io::Error::new(error.kind(), text)
}

fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the other side speaks no TLS on this port: correct the port, or remove tls from the site"
                .to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the other side asks for a client certificate: give the site one".to_owned()
        }
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied),
        ) => format!("the other side does not accept our certificate ({alert:?})"),
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the other side does not serve this name: set tls.serverName to one that it does".to_owned()
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the other side speaks none of the protocols that it was offered (ALPN): set protocol of the site to one that \
             it speaks, or to Auto"
                .to_owned()
        }
        Error::AlertReceived(alert) => format!("the other side ended the handshake ({alert:?})"),
        Error::NoCertificatesPresented => "the client showed no certificate, and one is required".to_owned(),
        Error::NoApplicationProtocol => "no protocol in common (ALPN)".to_owned(),
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the certificate is of a CA that is not trusted here: name its CA in the settings of tls"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "the certificate is of a CA that is not trusted here, though one of the same \
                                           name is: name the CA that signed it in the settings of tls"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("the certificate expired {} ago: renew it", span(*not_after, *time))
        }
        CertificateError::Expired => "the certificate has expired: renew it".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the certificate becomes valid only in {}: check the clocks of both sides",
            span(*time, *not_before)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the certificate is not for {} but for {}: set tls.serverName to a name that it has",
            expected.to_str(),
            listed(presented)
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not meant for this side of TLS: issue one with the extended key usage \
             serverAuth or clientAuth"
                .to_owned()
        }
        CertificateError::Other(_) => format!("the certificate cannot be used ({error})"),
        _ => format!("the certificate is not valid ({error})"),
    }
}

/// Whole days, else hours, else minutes between two moments.
fn span(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7_200.. => format!("{} hours", seconds / 3_600),
        _ => format!("{} minutes", seconds / 60),
    }
}

/// Names in a certificate come from the other side: few of them, and short.
fn listed(presented: &[String]) -> String {
    let names: Vec<String> = presented
        .iter()
        .take(4)
        .map(|name| name.chars().filter(|c| !c.is_control()).take(80).collect())
        .collect();
    let more = if presented.len() > names.len() { ", ..." } else { "" };
    if names.is_empty() { "no name at all".to_owned() } else { format!("{}{more}", names.join(", ")) }
}
