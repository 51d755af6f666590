//! Private keys in files: PKCS#8 as Postern and OpenSSL write it (RFC 7468, RFC 8410), and OpenSSH's own format
//! without a passphrase (PROTOCOL.key in its sources).

use super::key::{Key, KeyError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const PKCS8: &str = "PRIVATE KEY";
const OPENSSH: &str = "OPENSSH PRIVATE KEY";

impl Key {
    /// Formats PKCS#8 DER as PEM.
    pub fn pem(der: &[u8]) -> String {
        let body = STANDARD.encode(der);
        let mut text = format!("-----BEGIN {PKCS8}-----\n");
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str(&format!("-----END {PKCS8}-----\n"));
        text
    }

    /// Parses a file's text; `from` names it in the error.
    pub fn from_pem(text: &str, from: &str) -> Result<Self, KeyError> {
        let invalid = || KeyError::Invalid(from.to_owned());
        if let Some(der) = body(text, PKCS8) {
            return Self::from_pkcs8(&der, from);
        }
        let bytes = body(text, OPENSSH).ok_or_else(invalid)?;
        let mut fields = Fields(bytes.strip_prefix(b"openssh-key-v1\0").ok_or_else(invalid)?);
        let cipher = fields.string().ok_or_else(invalid)?;
        if cipher != b"none" {
            return Err(KeyError::Passphrase(from.to_owned()));
        }
        fields.pair().and_then(|(seed, public)| Self::from_seed(&seed, &public)).ok_or_else(invalid)
    }
}

/// Returns the decoded text between the lines of this label.
fn body(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

/// SSH's strings: a big-endian length and its bytes (RFC 4251, section 5).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.take(4)?.first_chunk()?))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        self.take(length)
    }

    /// Returns the seed and the public key, after the cipher's name.
    fn pair(&mut self) -> Option<([u8; 32], [u8; 32])> {
        let (_kdf, _options, keys, _public) =
            (self.string()?, self.string()?, self.number()?, self.string()?);
        let mut private = Fields(self.string()?);
        let same = private.number()? == private.number()?;
        if keys != 1 || !same || private.string()? != b"ssh-ed25519" {
            return None;
        }
        let public = private.string()?.try_into().ok()?;
        let (seed, again) = private.string()?.split_first_chunk::<32>()?;
        (again == public).then_some((*seed, public))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_files_are_read_back() {
        let der = Key::generate().unwrap();
        let text = Key::pem(&der);
        assert!(text.lines().all(|line| line.len() <= 64));
        let public = Key::from_pkcs8(&der, "x").unwrap().public();
        assert_eq!(Key::from_pem(&text, "x").unwrap().public(), public);
    }

    #[test]
    fn openssh_keys_are_read_and_those_with_a_passphrase_are_refused() {
        // A key made for this test: the seed is 32 times 7.
        let public = Key::from_seed_alone(&[7; 32]).public();
        let text = openssh("none", &public);
        assert_eq!(Key::from_pem(&text, "x").unwrap().public(), public);
        let error = Key::from_pem(&openssh("aes256-ctr", &public), "id").unwrap_err();
        assert!(error.to_string().contains("passphrase"), "{error}");
        for wrong in
            ["", "-----BEGIN PRIVATE KEY-----\n%\n-----END PRIVATE KEY-----", &text[..text.len() / 2]]
        {
            assert!(Key::from_pem(wrong, "x").is_err());
        }
    }

    fn openssh(cipher: &str, public: &[u8; 32]) -> String {
        let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let private = [
            vec![0; 8],
            string(b"ssh-ed25519"),
            string(public),
            string(&[[7; 32], *public].concat()),
            string(b"comment"),
        ]
        .concat();
        let all = [
            b"openssh-key-v1\0".to_vec(),
            string(cipher.as_bytes()),
            string(b"none"),
            string(b""),
            vec![0, 0, 0, 1],
            string(b"public"),
            string(&private),
        ]
        .concat();
        format!("-----BEGIN {OPENSSH}-----\n{}\n-----END {OPENSSH}-----\n", STANDARD.encode(all))
    }
}
