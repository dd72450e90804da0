//! The contents of the Secret, parsed and made. No client required; time is an argument, in seconds since 1970.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{GeneralName, X509Certificate};

const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NEXT_CA: &str = "next-ca.crt";
const NEXT_CA_KEY: &str = "next-ca.key";
const OLD_CA: &str = "old-ca.crt";
pub(super) const LEAF: &str = "tls.crt";
pub(super) const LEAF_KEY: &str = "tls.key";

/// Clocks of other machines may be behind: certificates are valid from a little before they are made.
const LONGEST_BACKDATE: i64 = 300;

/// Why certificates cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error("the Secret has no {0}")]
    Missing(&'static str),
    #[error("{0} in the Secret is not a certificate in PEM")]
    Unreadable(&'static str),
    #[error("{key} in the Secret is not the key of {certificate}")]
    Foreign { key: &'static str, certificate: &'static str },
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    #[error(
        "a leaf validity of {leaf} s is more than a third of the CA's {authority} s: lower --leaf-validity or raise --ca-validity"
    )]
    Validities { leaf: i64, authority: i64 },
}

/// How long new certificates are valid, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validities {
    pub authority: i64,
    pub leaf: i64,
}

impl Validities {
    /// A CA is replaced after two thirds of its life: the last certificate from it must end within the last third.
    pub fn new(authority: std::time::Duration, leaf: std::time::Duration) -> Result<Self, MaterialError> {
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let (authority, leaf) = (seconds(authority), seconds(leaf));
        if leaf > authority / 3 {
            return Err(MaterialError::Validities { leaf, authority });
        }
        Ok(Self { authority, leaf })
    }
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub not_before: i64,
    pub not_after: i64,
}

impl Window {
    /// When two thirds of its life are over.
    pub fn renewal(self) -> i64 {
        self.not_before + (self.not_after - self.not_before) / 3 * 2
    }
}

/// A certificate and its key.
#[derive(Clone, PartialEq)]
pub struct Pair {
    pub certificate: String,
    key: String,
    pub window: Window,
    subject: String,
    issuer: String,
    names: Vec<String>,
}

/// Everything that the Secret holds.
#[derive(Clone, PartialEq)]
pub struct Material {
    /// Signs the leaf.
    pub authority: Pair,
    /// During a rotation: will sign the next leaf.
    pub next: Option<Pair>,
    /// After a rotation: signed leaves that a replica may still serve.
    pub old: Option<(String, Window)>,
    pub leaf: Pair,
}

impl Material {
    /// A new CA and a leaf from it.
    pub fn create(names: &[String], validities: Validities, now: i64) -> Result<Self, MaterialError> {
        let authority = authority(validities, now)?;
        let leaf = leaf(&authority, names, validities, now)?;
        Ok(Self { authority, next: None, old: None, leaf })
    }

    /// The same with a second CA, that signs nothing yet.
    pub fn with_next(&self, validities: Validities, now: i64) -> Result<Self, MaterialError> {
        Ok(Self { next: Some(authority(validities, now)?), ..self.clone() })
    }

    /// The same with a new leaf.
    pub fn with_leaf(
        &self,
        names: &[String],
        validities: Validities,
        now: i64,
    ) -> Result<Self, MaterialError> {
        Ok(Self { leaf: leaf(&self.authority, names, validities, now)?, ..self.clone() })
    }

    /// The next CA takes over and signs a leaf; the one before is kept for those who still serve from it.
    pub fn promoted(
        &self,
        names: &[String],
        validities: Validities,
        now: i64,
    ) -> Result<Self, MaterialError> {
        let Some(next) = &self.next else { return self.with_leaf(names, validities, now) };
        Ok(Self {
            leaf: leaf(next, names, validities, now)?,
            authority: next.clone(),
            next: None,
            old: Some((self.authority.certificate.clone(), self.authority.window)),
        })
    }

    /// The same without the old CA.
    pub fn without_old(&self) -> Self {
        Self { old: None, ..self.clone() }
    }

    /// The CAs that API servers must trust now.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        let old = self.old.as_ref().map(|(certificate, _)| certificate.as_str());
        [old, Some(&*self.authority.certificate), next].into_iter().flatten().collect()
    }

    /// Whether the leaf is of the CA and for these names.
    pub fn leaf_fits(&self, names: &[String]) -> bool {
        self.leaf.issuer == self.authority.subject && names.iter().all(|name| self.leaf.names.contains(name))
    }

    pub fn to_data(&self) -> BTreeMap<String, ByteString> {
        let mut data = vec![
            (CA, &self.authority.certificate),
            (CA_KEY, &self.authority.key),
            (LEAF, &self.leaf.certificate),
            (LEAF_KEY, &self.leaf.key),
        ];
        if let Some(next) = &self.next {
            data.extend([(NEXT_CA, &next.certificate), (NEXT_CA_KEY, &next.key)]);
        }
        if let Some((certificate, _)) = &self.old {
            data.push((OLD_CA, certificate));
        }
        data.into_iter()
            .map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())))
            .collect()
    }

    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self, MaterialError> {
        let next = if data.contains_key(NEXT_CA) { Some(pair(data, NEXT_CA, NEXT_CA_KEY)?) } else { None };
        let old = match data.contains_key(OLD_CA) {
            true => {
                let certificate = text(data, OLD_CA)?;
                let (window, ..) = describe(&certificate).ok_or(MaterialError::Unreadable(OLD_CA))?;
                Some((certificate, window))
            }
            false => None,
        };
        Ok(Self { authority: pair(data, CA, CA_KEY)?, next, old, leaf: pair(data, LEAF, LEAF_KEY)? })
    }
}

fn pair(
    data: &BTreeMap<String, ByteString>,
    name: &'static str,
    key: &'static str,
) -> Result<Pair, MaterialError> {
    let (certificate, key_text) = (text(data, name)?, text(data, key)?);
    let pair = KeyPair::from_pem(&key_text).map_err(|_| MaterialError::Unreadable(key))?;
    let public = public_key(&certificate).ok_or(MaterialError::Unreadable(name))?;
    if public != pair.subject_public_key_info() {
        return Err(MaterialError::Foreign { key, certificate: name });
    }
    describe_pair(certificate, key_text).ok_or(MaterialError::Unreadable(name))
}

fn public_key(pem: &str) -> Option<Vec<u8>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    Some(pem.parse_x509().ok()?.public_key().raw.to_vec())
}

fn text(data: &BTreeMap<String, ByteString>, name: &'static str) -> Result<String, MaterialError> {
    let bytes = data.get(name).ok_or(MaterialError::Missing(name))?;
    String::from_utf8(bytes.0.clone()).map_err(|_| MaterialError::Unreadable(name))
}

fn describe_pair(certificate: String, key: String) -> Option<Pair> {
    let (window, subject, issuer, names) = describe(&certificate)?;
    Some(Pair { certificate, key, window, subject, issuer, names })
}

fn describe(pem: &str) -> Option<(Window, String, String, Vec<String>)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    let window =
        Window { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() };
    Some((
        window,
        certificate.subject().to_string(),
        certificate.issuer().to_string(),
        dns_names(&certificate),
    ))
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

fn authority(validities: Validities, now: i64) -> Result<Pair, MaterialError> {
    let key = KeyPair::generate()?;
    let mut parameters = parameters(&[], Window { not_before: now, not_after: now + validities.authority })?;
    // Two CAs that are trusted at once need two names, or a verifier may try the wrong one.
    let digest = Sha256::digest(key.subject_public_key_info());
    let name = format!("sidecar-operator CA {}", hex::encode(&digest[..8]));
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate = parameters.self_signed(&key)?.pem();
    describe_pair(certificate, key.serialize_pem()).ok_or(MaterialError::Unreadable(CA))
}

/// Ends with its CA at the latest.
fn leaf(authority: &Pair, names: &[String], validities: Validities, now: i64) -> Result<Pair, MaterialError> {
    let key = KeyPair::generate()?;
    let not_after = (now + validities.leaf).min(authority.window.not_after);
    let mut parameters = parameters(names, Window { not_before: now, not_after })?;
    if let Some(name) = names.first() {
        parameters.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let certificate = parameters.signed_by(&key, &issuer)?.pem();
    describe_pair(certificate, key.serialize_pem()).ok_or(MaterialError::Unreadable(LEAF))
}

fn parameters(names: &[String], window: Window) -> Result<CertificateParams, MaterialError> {
    let backdate = ((window.not_after - window.not_before) / 10).clamp(0, LONGEST_BACKDATE);
    let at = |seconds: i64| {
        rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    };
    let mut parameters = CertificateParams::new(names)?;
    parameters.not_before = at(window.not_before - backdate);
    parameters.not_after = at(window.not_after);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn names() -> Vec<String> {
        vec!["webhook.ns.svc".to_owned()]
    }

    fn validities() -> Validities {
        Validities { authority: 3_000, leaf: 300 }
    }

    #[test]
    fn what_is_written_to_the_secret_is_read_back() {
        let created = Material::create(&names(), validities(), NOW).unwrap();
        let rotating = created.with_next(validities(), NOW).unwrap();
        let promoted = rotating.promoted(&names(), validities(), NOW).unwrap();
        for material in [created, rotating, promoted.clone(), promoted.without_old()] {
            assert!(Material::from_data(&material.to_data()).unwrap() == material);
            assert!(material.leaf_fits(&names()) && !material.leaf_fits(&["other".to_owned()]));
        }
    }

    #[test]
    fn the_bundle_holds_every_authority_that_may_be_served_from() {
        let created = Material::create(&names(), validities(), NOW).unwrap();
        let rotating = created.with_next(validities(), NOW).unwrap();
        let promoted = rotating.promoted(&names(), validities(), NOW).unwrap();
        assert!(rotating.bundle().contains(&promoted.authority.certificate));
        assert!(promoted.bundle().contains(&created.authority.certificate));
        assert!(!promoted.without_old().bundle().contains(&created.authority.certificate));
        assert_ne!(promoted.authority.subject, created.authority.subject);
    }

    #[test]
    fn a_leaf_ends_with_its_authority_at_the_latest() {
        let material = Material::create(&names(), validities(), NOW).unwrap();
        let late = material.with_leaf(&names(), validities(), NOW + 2_900).unwrap();
        assert_eq!(late.leaf.window.not_after, NOW + 3_000);
    }

    #[test]
    fn a_broken_secret_is_told_and_not_served() {
        let mut data = Material::create(&names(), validities(), NOW).unwrap().to_data();
        data.insert(LEAF.to_owned(), ByteString(b"broken".to_vec()));
        assert!(matches!(Material::from_data(&data), Err(MaterialError::Unreadable(LEAF))));
        data.remove(CA_KEY);
        assert!(matches!(Material::from_data(&data), Err(MaterialError::Missing(CA_KEY))));
    }

    #[test]
    fn a_key_of_another_certificate_is_told_and_not_served() {
        let [ours, other] =
            [(); 2].map(|()| Material::create(&names(), validities(), NOW).unwrap().to_data());
        for (key, certificate) in [(CA_KEY, CA), (LEAF_KEY, LEAF)] {
            let mut data = ours.clone();
            data.insert(key.to_owned(), other[key].clone());
            let Err(MaterialError::Foreign { key: told, certificate: of }) = Material::from_data(&data)
            else {
                panic!("{key} is taken for the key of {certificate}")
            };
            assert_eq!((told, of), (key, certificate));
        }
    }

    #[test]
    fn a_leaf_must_fit_into_the_last_third_of_its_authority() {
        let seconds = std::time::Duration::from_secs;
        assert!(Validities::new(seconds(60), seconds(20)).is_ok());
        assert!(Validities::new(seconds(60), seconds(21)).is_err());
    }
}
