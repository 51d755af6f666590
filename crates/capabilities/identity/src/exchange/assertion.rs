//! `private_key_jwt` (`OpenID` Connect Core 1.0 section 9, RFC 7523): client authentication with a signed assertion.

use super::ExchangeError;
use crate::source::now;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_config::providers::SigningAlgorithm;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use std::path::Path;
use zeroize::Zeroizing;

/// The lifetime of an assertion in seconds, enough for one request. Keycloak accepts at most 60.
const LIFE: u64 = 60;

enum Key {
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A key and its signature algorithm.
pub(super) struct Signer {
    key: Key,
    algorithm: SigningAlgorithm,
}

fn unusable(why: impl Into<String>) -> ExchangeError {
    ExchangeError::Setting { key: "client_assertion.key_file", why: why.into() }
}

impl Signer {
    /// Reads a PEM file: PKCS #8, or PKCS #1 for RSA.
    pub(super) fn read(
        path: Option<&Path>,
        algorithm: Option<SigningAlgorithm>,
    ) -> Result<Self, ExchangeError> {
        let path = path.ok_or_else(|| unusable("it is not named"))?;
        let shown = path.display();
        let pem = std::fs::read(path).map_err(|error| unusable(format!("{shown}: {error}")))?;
        let pem = Zeroizing::new(pem);
        Self::parse(&pem, algorithm).map_err(|why| unusable(format!("{shown}: {why}")))
    }

    fn parse(pem: &[u8], algorithm: Option<SigningAlgorithm>) -> Result<Self, String> {
        use SigningAlgorithm::{ES256, ES384, EdDSA, PS256, RS256};
        let der =
            PrivateKeyDer::from_pem_slice(pem).map_err(|_| "it contains no private key in PEM".to_owned())?;
        let found: Vec<(SigningAlgorithm, Key)> = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .ok()
                .map(|pair| rsa(pair, algorithm))
                .into_iter()
                .collect(),
            PrivateKeyDer::Pkcs8(der) => pkcs8(der.secret_pkcs8_der(), algorithm),
            _ => Vec::new(),
        };
        let suggestion = "openssl pkcs8 -topk8 -nocrypt -in KEY";
        let (own, key) = found.into_iter().next().ok_or_else(|| {
            format!(
                "it is not a supported signing key: RSA of at least 2048 bits, P-256, P-384 or Ed25519, as \
                     PKCS #8 ({suggestion})"
            )
        })?;
        let algorithm = algorithm.unwrap_or(own);
        let fits = match (&key, algorithm) {
            (Key::Rsa(..), RS256 | PS256) | (Key::Ed25519(_), EdDSA) => true,
            (Key::Ecdsa(_), ES256 | ES384) => own == algorithm,
            _ => false,
        };
        if fits { Ok(Self { key, algorithm }) } else { Err(format!("this key cannot sign by {algorithm:?}")) }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        let random = SystemRandom::new();
        let failed = |_| unusable("signing with it failed");
        match &self.key {
            Key::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Key::Ecdsa(pair) => {
                pair.sign(&random, message).map(|made| made.as_ref().to_vec()).map_err(failed)
            }
            Key::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

fn rsa(pair: RsaKeyPair, algorithm: Option<SigningAlgorithm>) -> (SigningAlgorithm, Key) {
    let encoding: &'static dyn RsaEncoding = match algorithm {
        Some(SigningAlgorithm::PS256) => &RSA_PSS_SHA256,
        _ => &RSA_PKCS1_SHA256,
    };
    (SigningAlgorithm::RS256, Key::Rsa(Box::new(pair), encoding))
}

fn pkcs8(der: &[u8], algorithm: Option<SigningAlgorithm>) -> Vec<(SigningAlgorithm, Key)> {
    let random = SystemRandom::new();
    let ecdsa = |curve| EcdsaKeyPair::from_pkcs8(curve, der, &random).ok().map(Key::Ecdsa);
    let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Key::Ed25519);
    [
        RsaKeyPair::from_pkcs8(der).ok().map(|pair| rsa(pair, algorithm)),
        ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING).map(|key| (SigningAlgorithm::ES256, key)),
        ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING).map(|key| (SigningAlgorithm::ES384, key)),
        ed25519().map(|key| (SigningAlgorithm::EdDSA, key)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns an assertion of `client_id` for one server, valid for a minute and for one use.
pub(super) fn sign(
    signer: &Signer,
    key_id: Option<&str>,
    client_id: &str,
    audience: &str,
) -> Result<Zeroizing<String>, ExchangeError> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| unusable("there is no randomness"))?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since 1970")]
    let now = now() as u64;
    let mut header = json!({"typ": "JWT", "alg": format!("{:?}", signer.algorithm)});
    if let Some(key_id) = key_id {
        header["kid"] = key_id.into();
    }
    let claims = json!({
        "iss": client_id, "sub": client_id, "aud": audience, "jti": URL_SAFE_NO_PAD.encode(id),
        "iat": now, "exp": now + LIFE,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = signer.sign(message.as_bytes())?;
    Ok(Zeroizing::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ED25519, KeyPair as _, UnparsedPublicKey};

    fn pem(der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }

    #[test]
    fn an_assertion_verifies_and_says_who_for_whom_and_until_when() {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let signer = Signer::parse(pem(der.as_ref()).as_bytes(), None).unwrap();
        let made = sign(&signer, Some("k1"), "me", "https://as/token").unwrap();
        let (header, claims) = crate::jwt::decode(&made).unwrap();
        assert_eq!((header.alg.as_str(), header.kid.as_deref()), ("EdDSA", Some("k1")));
        assert_eq!((claims.iss, claims.sub), (Some("me".to_owned()), Some("me".to_owned())));
        assert_eq!(claims.aud, ["https://as/token"]);
        assert!((claims.exp.unwrap() - claims.iat.unwrap() - 60.0).abs() < f64::EPSILON);
        let (message, signature) = made.rsplit_once('.').unwrap();
        let public = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, public.public_key().as_ref().to_vec());
        public.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        assert_ne!(made, sign(&signer, Some("k1"), "me", "https://as/token").unwrap());
    }

    #[test]
    fn a_key_signs_only_as_it_can() {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pem = pem(der.as_ref());
        assert_eq!(Signer::parse(pem.as_bytes(), None).unwrap().algorithm, SigningAlgorithm::ES256);
        for wrong in [SigningAlgorithm::RS256, SigningAlgorithm::ES384, SigningAlgorithm::EdDSA] {
            assert!(Signer::parse(pem.as_bytes(), Some(wrong)).is_err(), "{wrong:?}");
        }
        assert!(Signer::parse(b"not a key", None).is_err());
    }
}
