//! An issuer of tokens, with real keys.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

/// One key of an issuer, and how it signs.
pub(crate) enum Key {
    Rs256(RsaKeyPair),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl Key {
    /// The same key each time: `ring` makes no RSA keys.
    pub(crate) fn rs256() -> Self {
        let pem = include_bytes!("../../tls/rsa2048.key");
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
        Self::Rs256(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap())
    }

    pub(crate) fn es256() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Es256(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    pub(crate) fn eddsa() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::EdDsa(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    /// The public half, as a key set has it.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rs256(key) => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "kid": id, "use": "sig", "n": BASE64.encode(public.n), "e": BASE64.encode(public.e)})
            }
            Self::Es256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": BASE64.encode(x), "y": BASE64.encode(y)})
            }
            Self::EdDsa(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": BASE64.encode(key.public_key())})
            }
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    /// A token of these claims that names this key.
    pub(crate) fn token(&self, id: &str, claims: &Value) -> String {
        self.signed(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": id}), claims)
    }

    /// The same under any head.
    pub(crate) fn signed(&self, head: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
        let (bytes, random) = (message.as_bytes(), SystemRandom::new());
        let signature = match self {
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
            Self::Es256(key) => key.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Self::EdDsa(key) => key.sign(bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", BASE64.encode(signature))
    }
}

/// The key set of these keys.
pub(crate) fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Good claims of the issuer `issuer.test` for the audience `app`, and these besides or instead.
pub(crate) fn claims(more: Value) -> Value {
    let now = jiff::Timestamp::now().as_second();
    let mut claims = json!({"iss": "https://issuer.test", "aud": "app", "sub": "spark", "exp": now + 600});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}
