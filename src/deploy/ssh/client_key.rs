//! The private key of an account on a docker host, in every format of a `.pem` file: OpenSSH's own, PKCS#8, PKCS#1
//! (`BEGIN RSA PRIVATE KEY`, which EC2 issues) and SEC1 (`BEGIN EC PRIVATE KEY`).
//!
//! RSA keys sign with aws-lc-rs and SHA-2 only: the `rsa` crate has an unfixed timing leak (RUSTSEC-2023-0071), and
//! every current sshd refuses SHA-1 signatures. No error of this file quotes any part of the key.

use std::sync::Arc;

use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::rsa::KeyPairComponents;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::Mpint;
use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::ssh_key::public::{KeyData, RsaPublicKey};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::modulo::remainder;

/// A private key that can log in.
pub struct ClientKey {
    public: PublicKey,
    secret: Secret,
}

enum Secret {
    /// An Ed25519 or ECDSA key, with which the SSH library signs.
    Library(Arc<PrivateKey>),
    Rsa(Arc<RsaKeyPair>),
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientKey({})", self.fingerprint())
    }
}

/// The reason why a key cannot be used. The text says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientKeyError {
    /// The file has no private key in PEM format, or is not UTF-8.
    #[error(
        "holds no private key; put the text from -----BEGIN … PRIVATE KEY----- to -----END … PRIVATE KEY----- there"
    )]
    NoPrivateKey,
    /// The file has a public key and no private key.
    #[error("is a public key; the private one is needed")]
    PublicKey,
    /// The private key is encrypted.
    #[error(
        "is protected by a passphrase, which keyturn cannot enter; remove it with `ssh-keygen -p -N ''` on \
         a copy of the key, or create a key for keyturn"
    )]
    Passphrase,
    /// The file is in PuTTY's own format.
    #[error("is a PuTTY key; convert it with `puttygen KEY.ppk -O private-openssh-new -o KEY.pem`")]
    Putty,
    /// The private key has this type, such as `DSA`, with which keyturn cannot log in.
    #[error("is of the type {0}, which keyturn cannot use; create another key with `ssh-keygen -t ed25519`")]
    Type(String),
    /// The RSA key is damaged, or has fewer than 2048 or more than 8192 bits.
    #[error(
        "is an RSA key that is damaged or has less than 2048 or more than 8192 bits; create another key \
         with `ssh-keygen -t ed25519`"
    )]
    Rsa,
    /// The private key cannot be decoded; holds the format that was expected, for the message.
    #[error("is damaged: it does not decode as a {0}")]
    Damaged(&'static str),
}

/// One block of a PEM file.
struct Pem {
    label: String,
    encrypted: bool,
    content: Zeroizing<Vec<u8>>,
}

impl ClientKey {
    /// Reads a private key from the content of a file. Text around the key is ignored, as are other PEM blocks
    /// (`openssl ecparam` writes the curve first).
    pub fn parse(file: &[u8]) -> Result<Self, ClientKeyError> {
        let text = std::str::from_utf8(file).map_err(|_| ClientKeyError::NoPrivateKey)?;
        if text.trim_start().starts_with("PuTTY-User-Key-File") {
            return Err(ClientKeyError::Putty);
        }
        let Some(pem) = private_block(text)? else {
            let public = text.contains("PUBLIC KEY-----")
                || text.trim_start().split(' ').next().is_some_and(|word| Algorithm::new(word).is_ok());
            return Err(if public { ClientKeyError::PublicKey } else { ClientKeyError::NoPrivateKey });
        };
        if pem.encrypted {
            return Err(ClientKeyError::Passphrase);
        }
        match pem.label.as_str() {
            "OPENSSH PRIVATE KEY" => {
                let key = PrivateKey::from_bytes(&pem.content)
                    .map_err(|_| ClientKeyError::Damaged("key of OpenSSH"))?;
                Self::from_library(key)
            }
            "RSA PRIVATE KEY" => {
                Self::from_rsa(RsaKeyPair::from_der(&pem.content).map_err(|_| ClientKeyError::Rsa)?)
            }
            "EC PRIVATE KEY" => {
                Self::from_library(russh::keys::pkcs8::decode_pkcs8(&pem.content, None).map_err(|_| {
                    ClientKeyError::Damaged("SEC1 key on one of the curves P-256, P-384 and P-521")
                })?)
            }
            "PRIVATE KEY" => {
                if let Ok(pair) = RsaKeyPair::from_pkcs8(&pem.content) {
                    return Self::from_rsa(pair);
                }
                // The object identifier of rsaEncryption, 1.2.840.113549.1.1.1: an RSA key that was just refused.
                let rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
                if pem.content.windows(rsa.len()).take(32).any(|window| window == rsa) {
                    return Err(ClientKeyError::Rsa);
                }
                Self::from_library(
                    russh::keys::pkcs8::decode_pkcs8(&pem.content, None)
                        .map_err(|_| ClientKeyError::Damaged("PKCS#8 key for Ed25519, ECDSA or RSA"))?,
                )
            }
            other => Err(ClientKeyError::Type(other.trim_end_matches(" PRIVATE KEY").to_owned())),
        }
    }

    fn from_library(key: PrivateKey) -> Result<Self, ClientKeyError> {
        if key.is_encrypted() {
            return Err(ClientKeyError::Passphrase);
        }
        match key.key_data() {
            KeypairData::Ed25519(_) | KeypairData::Ecdsa(_) => {
                let public = PublicKey::new(key.public_key().key_data().clone(), "");
                Ok(Self { public, secret: Secret::Library(Arc::new(key)) })
            }
            KeypairData::Rsa(pair) => Self::from_rsa(rsa_with_crt(pair).ok_or(ClientKeyError::Rsa)?),
            other => Err(ClientKeyError::Type(
                other.algorithm().map(|a| a.as_str().to_owned()).unwrap_or_else(|_| "unknown".to_owned()),
            )),
        }
    }

    fn from_rsa(pair: RsaKeyPair) -> Result<Self, ClientKeyError> {
        let public = pair.public_key();
        let n = Mpint::from_positive_bytes(public.modulus().big_endian_without_leading_zero());
        let e = Mpint::from_positive_bytes(public.exponent().big_endian_without_leading_zero());
        let public = RsaPublicKey::new(e, n).map_err(|_| ClientKeyError::Rsa)?;
        Ok(Self { public: PublicKey::new(KeyData::Rsa(public), ""), secret: Secret::Rsa(Arc::new(pair)) })
    }

    /// Returns `ssh-ed25519 SHA256:…`, for finding the key in authorized_keys and in sshd's log.
    pub fn fingerprint(&self) -> String {
        format!("{} {}", self.public.algorithm().as_str(), self.public.fingerprint(HashAlg::Sha256))
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the signer: the library itself, or a [`RsaSigner`] for an RSA key.
    pub(super) fn signer(&self) -> Signer {
        match &self.secret {
            Secret::Library(key) => Signer::Library(key.clone()),
            Secret::Rsa(pair) => Signer::Rsa(RsaSigner(pair.clone())),
        }
    }
}

pub(super) enum Signer {
    Library(Arc<PrivateKey>),
    Rsa(RsaSigner),
}

/// Signs logins with an RSA key.
pub(super) struct RsaSigner(Arc<RsaKeyPair>);

#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error("the connection ended")]
    Connection(#[from] russh::SendError),
    #[error("the RSA key could not sign")]
    Rsa,
}

impl RsaSigner {
    /// Appends the signature to the signed data, in SSH's encoding.
    fn sign(&self, hash: Option<HashAlg>, mut data: Vec<u8>) -> Result<Vec<u8>, SignError> {
        let (name, encoding) = match hash {
            Some(HashAlg::Sha512) => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
            Some(HashAlg::Sha256) => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
            _ => return Err(SignError::Rsa),
        };
        let mut signature = vec![0; self.0.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        self.0.sign(encoding, &random, &data, &mut signature).map_err(|_| SignError::Rsa)?;
        let mut blob = Vec::new();
        name.encode(&mut blob).map_err(|_| SignError::Rsa)?;
        signature.encode(&mut blob).map_err(|_| SignError::Rsa)?;
        blob.encode(&mut data).map_err(|_| SignError::Rsa)?;
        Ok(data)
    }
}

impl russh::Signer for RsaSigner {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        self.sign(hash, data)
    }
}

/// Completes an RSA key: OpenSSH's format leaves out two numbers that signing needs, d mod (p−1) and d mod (q−1).
fn rsa_with_crt(pair: &RsaKeypair) -> Option<RsaKeyPair> {
    let private = pair.private();
    let bytes = |number: &Mpint| number.as_positive_bytes().map(|b| Zeroizing::new(b.to_vec()));
    let (d, p, q, q_inverse) =
        (bytes(private.d())?, bytes(private.p())?, bytes(private.q())?, bytes(private.iqmp())?);
    let less_one = |prime: &Zeroizing<Vec<u8>>| {
        let mut less = prime.clone();
        // A prime above 2 is odd, so the subtraction needs no borrow.
        let last = less.last_mut().filter(|byte| **byte & 1 == 1)?;
        *last -= 1;
        Some(less)
    };
    let d_p = remainder(&d, &less_one(&p)?)?;
    let d_q = remainder(&d, &less_one(&q)?)?;
    RsaKeyPair::from_components(&KeyPairComponents {
        public_key: RsaPublicKeyComponents {
            n: pair.public().n().as_positive_bytes()?.to_vec(),
            e: pair.public().e().as_positive_bytes()?.to_vec(),
        },
        d: d.as_slice(),
        p: p.as_slice(),
        q: q.as_slice(),
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: q_inverse.as_slice(),
    })
    .ok()
}

/// Returns the first PEM block that is a private key.
fn private_block(text: &str) -> Result<Option<Pem>, ClientKeyError> {
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        if !label.ends_with("PRIVATE KEY") {
            continue;
        }
        let mut encrypted = label == "ENCRYPTED PRIVATE KEY";
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        let mut ended = false;
        for line in lines.by_ref() {
            if line.starts_with("-----END ") {
                ended = true;
                break;
            }
            match line.split_once(':') {
                Some((header, value)) => encrypted |= header == "Proc-Type" && value.contains("ENCRYPTED"),
                None => body.push_str(line),
            }
        }
        if !ended {
            return Err(ClientKeyError::Damaged("PEM file: the line -----END …----- is missing"));
        }
        let content = match BASE64.decode(body.as_bytes()) {
            Ok(content) => Zeroizing::new(content),
            // The headers of an encrypted block may be folded; its content is not needed.
            Err(_) if encrypted => Zeroizing::default(),
            Err(_) => return Err(ClientKeyError::Damaged("PEM file")),
        };
        return Ok(Some(Pem { label: label.to_owned(), encrypted, content }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> ClientKeyError {
        ClientKey::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_no_private_key_is_named_for_what_it_is() {
        assert_eq!(error(""), ClientKeyError::NoPrivateKey);
        assert_eq!(error("hunter2"), ClientKeyError::NoPrivateKey);
        assert_eq!(error("ssh-ed25519 AAAA me@home"), ClientKeyError::PublicKey);
        assert_eq!(
            error("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
            ClientKeyError::PublicKey
        );
        assert_eq!(error("PuTTY-User-Key-File-3: ssh-ed25519\n"), ClientKeyError::Putty);
        assert_eq!(
            error("-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----"),
            ClientKeyError::Type("DSA".to_owned())
        );
    }

    #[test]
    fn no_error_quotes_the_content() {
        let canary = "Q0FOQVJZCg";
        for label in ["OPENSSH PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"] {
            for body in [canary.to_owned(), format!("{canary}=="), format!("{canary}\n:{canary}")] {
                for end in ["", "\n-----END X-----"] {
                    let error = error(&format!("-----BEGIN {label}-----\n{body}{end}"));
                    assert!(!format!("{error} {error:?}").contains(canary), "{error}");
                    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
                }
            }
        }
    }
}
