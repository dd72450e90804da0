//! Who a certificate is for, as rules about clients name it.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_parser::{parse_x509_certificate, prelude::GeneralName};

/// The names in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The distinguished name, its parts in the order of the certificate, as in `O=Example, CN=spark`.
    pub subject: String,
    /// The first common name of the subject.
    pub common_name: Option<String>,
    pub dns_names: Vec<String>,
    /// Among them SPIFFE's, as in `spiffe://example.org/ns/analytics/sa/spark`.
    pub uris: Vec<String>,
    pub emails: Vec<String>,
    pub ips: Vec<String>,
}

impl Identity {
    /// Reads a certificate; `None` for bytes that are none.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(certificate).ok()?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let mut identity = Self {
            subject: subject.to_string(),
            common_name: common_name.map(str::to_owned),
            ..Self::default()
        };
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                identity.add(name);
            }
        }
        Some(identity)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::RFC822Name(email) => self.emails.push((*email).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
                let six = <[u8; 16]>::try_from(*bytes).map(|bytes| Ipv6Addr::from(bytes).to_string());
                self.ips.extend(four.or(six));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn every_name_in_a_certificate_is_told() {
        let mut params =
            CertificateParams::new(["spark.analytics".to_owned(), "10.0.0.7".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, "spark");
        for san in [
            SanType::URI("spiffe://example.org/ns/analytics/sa/spark".try_into().unwrap()),
            SanType::Rfc822Name("spark@example.org".try_into().unwrap()),
            SanType::IpAddress("fd00::7".parse().unwrap()),
        ] {
            params.subject_alt_names.push(san);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let expected = Identity {
            subject: "O=Example, CN=spark".into(),
            common_name: Some("spark".into()),
            dns_names: vec!["spark.analytics".into()],
            uris: vec!["spiffe://example.org/ns/analytics/sa/spark".into()],
            emails: vec!["spark@example.org".into()],
            ips: vec!["10.0.0.7".into(), "fd00::7".into()],
        };
        assert_eq!(Identity::of(certificate.der()), Some(expected));
        assert_eq!(Identity::of(&CertificateDer::from(b"no certificate".as_slice())), None);
    }
}
