//! Validates a host certificate of a trusted authority for a host: the checks that the SSH library leaves to its
//! caller.

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
};
use russh::keys::signature::Verifier;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg};

/// Checks everything except whether the authority is trusted. The error completes the phrase "a certificate that
/// …".
pub(super) fn check(certificate: &Certificate, host: &str, now: u64) -> Result<(), String> {
    if certificate.cert_type() != CertType::Host {
        return Err("is for a user, not for a host".to_owned());
    }
    if now < certificate.valid_after() {
        return Err("is not valid yet".to_owned());
    }
    if now >= certificate.valid_before() {
        return Err("has expired".to_owned());
    }
    let host = host.to_lowercase();
    if !certificate.valid_principals().contains(&host) {
        return Err(format!("is not valid for the name {host}"));
    }
    if !certificate.critical_options().is_empty() {
        return Err("has critical options, and none are defined for hosts".to_owned());
    }
    if signed_by_its_authority(certificate) {
        Ok(())
    } else {
        Err("has no valid signature of its authority".to_owned())
    }
}

fn signed_by_its_authority(certificate: &Certificate) -> bool {
    let (Ok(encoded), Some(signature_length)) = (certificate.to_bytes(), signature_length(certificate))
    else {
        return false;
    };
    // The signature is the last field and covers everything before it.
    let Some(signed) = encoded.len().checked_sub(signature_length).and_then(|end| encoded.get(..end)) else {
        return false;
    };
    let signature = certificate.signature();
    match certificate.signature_key() {
        KeyData::Rsa(key) => {
            // The `rsa` crate is not part of the build, so ssh-key cannot verify this. SHA-1 is not accepted.
            let parameters: &'static RsaParameters = match signature.algorithm() {
                Algorithm::Rsa { hash: Some(HashAlg::Sha256) } => &RSA_PKCS1_2048_8192_SHA256,
                Algorithm::Rsa { hash: Some(HashAlg::Sha512) } => &RSA_PKCS1_2048_8192_SHA512,
                _ => return false,
            };
            let (Some(n), Some(e)) = (key.n().as_positive_bytes(), key.e().as_positive_bytes()) else {
                return false;
            };
            RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature.as_bytes()).is_ok()
        }
        key @ (KeyData::Ed25519(_) | KeyData::Ecdsa(_)) => key.verify(signed, signature).is_ok(),
        _ => false,
    }
}

/// Returns the length of the signature field, including its length prefix.
fn signature_length(certificate: &Certificate) -> Option<usize> {
    use russh::keys::ssh_encoding::Encode;
    certificate.signature().encoded_len_prefixed().ok()
}
