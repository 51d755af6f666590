//! Tokens: what the cluster's kubelet projects is verified, what IAM issues is made.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// Whom a token of the cluster is of, once its signature, issuer, audience and times were checked.
pub(crate) fn subject(token: &str, issuer: &str, keys: &Value, audience: &str) -> Result<String, String> {
    let (signed, signature) = token.rsplit_once('.').ok_or("it is no JWT")?;
    let (header, claims) = signed.split_once('.').ok_or("it is no JWT")?;
    let (header, claims) = (part(header).ok_or("its header")?, part(claims).ok_or("its claims")?);
    if header["alg"] != "RS256" {
        return Err(format!("its algorithm {}", header["alg"]));
    }
    let known = keys["keys"].as_array().ok_or("no keys are known")?;
    let key = known.iter().find(|key| key["kid"] == header["kid"]).ok_or("its key is not published")?;
    let number =
        |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap_or_default()).unwrap_or_default();
    let key = RsaPublicKeyComponents { n: number("n"), e: number("e") };
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "its signature")?;
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).map_err(|_| "its signature")?;
    if claims["iss"] != issuer {
        return Err(format!("its issuer {}", claims["iss"]));
    }
    if !claims["aud"].as_array().is_some_and(|all| all.iter().any(|one| one == audience)) {
        return Err(format!("its audience {}", claims["aud"]));
    }
    if claims["exp"].as_u64().is_none_or(|at| at <= now()) {
        return Err("it has expired".to_owned());
    }
    Ok(claims["sub"].as_str().unwrap_or_default().to_owned())
}

/// An answer of IAM's token endpoint.
pub(crate) fn issue(iam_id: &str, lifetime: u64) -> Value {
    let claims = json!({
        "iam_id": iam_id, "iat": now(), "exp": now() + lifetime,
        "account": {"valid": true, "bss": super::ACCOUNT}, "iss": "https://iam.cloud.ibm.com/identity",
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = URL_SAFE_NO_PAD.encode(format!("signature-of-the-stand-in-for-{iam_id}-at-{}", now()));
    let token = format!("{}.{}.{signature}", encode(&json!({"alg": "RS256", "kid": "1"})), encode(&claims));
    json!({
        "access_token": token, "refresh_token": "not_supported", "token_type": "Bearer",
        "expires_in": lifetime, "expiration": now() + lifetime, "scope": "ibm openid",
    })
}
