//! Tests that every format of private key logs in to a real sshd.

use std::fs;
use std::path::Path;

use base64::Engine;
use keyturn::deploy::ssh::client_key::{ClientKey, ClientKeyError};
use keyturn::deploy::ssh::connection::{Exit, SshError};

use crate::sshd::{Sshd, keygen, public_key, run};

async fn logs_in(sshd: &Sshd, form: &str, file: &Path, public: &str) {
    let content = fs::read(file).unwrap();
    let lines = String::from_utf8(content.clone()).unwrap();
    let variants = [
        ("as it is", content),
        ("with CRLF", lines.replace('\n', "\r\n").into_bytes()),
        ("without the last line break", lines.trim_end().as_bytes().to_vec()),
        ("with text around", format!("Bag Attributes: none\n\n{lines}\nbye\n").into_bytes()),
    ];
    sshd.authorize(public);
    for (variant, content) in variants {
        let key = ClientKey::parse(&content).unwrap_or_else(|error| panic!("{form} {variant}: {error}"));
        let connection = sshd
            .connect_with(&key, &[sshd.known_hosts_line("host_ed25519")])
            .await
            .unwrap_or_else(|error| panic!("{form} {variant}: {error}"));
        let exit = connection.exec("exit 7", b"", 0, |_, _| {}).await.unwrap();
        assert_eq!(exit, Exit::Code(7), "{form} {variant}");
    }
}

#[tokio::test]
async fn every_form_of_key_that_ssh_keygen_writes_logs_in() {
    let sshd = Sshd::start();
    for (key_type, bits) in [
        ("ed25519", None),
        ("ecdsa", Some("256")),
        ("ecdsa", Some("384")),
        ("ecdsa", Some("521")),
        ("rsa", Some("2048")),
        ("rsa", Some("3072")),
    ] {
        for format in ["RFC4716", "PKCS8", "PEM"] {
            if key_type == "ed25519" && format != "RFC4716" {
                continue; // ssh-keygen has only its own format for it
            }
            let form = format!("{key_type} {bits:?} {format}");
            let file = sshd.path(&form.replace(['(', ')', '"', ' '], "_"));
            let size: Vec<&str> = bits.iter().flat_map(|bits| ["-b", bits]).collect();
            keygen(&file, &[&["-t", key_type, "-m", format][..], &size].concat());
            logs_in(&sshd, &form, &file, &public_key(&file)).await;
        }
    }
}

#[tokio::test]
async fn every_form_of_key_that_openssl_writes_logs_in() {
    let sshd = Sshd::start();
    let path = |name: &str| sshd.path(name).to_str().unwrap().to_owned();

    let ed25519 = path("openssl_ed25519");
    run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", &ed25519]);
    let pem = run("openssl", &["pkey", "-in", &ed25519, "-pubout"]);
    let base64 = base64::engine::general_purpose::STANDARD;
    let der = base64.decode(pem.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
    let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    blob.extend_from_slice(&der[der.len() - 32..]);
    let public = format!("ssh-ed25519 {}", base64.encode(blob));
    logs_in(&sshd, "openssl ed25519", Path::new(&ed25519), &public).await;

    for curve in ["prime256v1", "secp384r1", "secp521r1"] {
        // This command writes a block with the curve before the key.
        let file = path(curve);
        run("openssl", &["ecparam", "-name", curve, "-genkey", "-out", &file]);
        assert!(fs::read_to_string(&file).unwrap().contains("EC PARAMETERS"));
        run("chmod", &["600", &file]);
        let public = run("ssh-keygen", &["-y", "-f", &file]);
        logs_in(&sshd, curve, Path::new(&file), public.trim()).await;
    }

    for (form, args) in [("traditional", &["-traditional"][..]), ("pkcs8", &[])] {
        let file = path(form);
        run("openssl", &[&["genrsa", "-out", &file][..], args, &["2048"]].concat());
        run("chmod", &["600", &file]);
        let public = run("ssh-keygen", &["-y", "-f", &file]);
        logs_in(&sshd, form, Path::new(&file), public.trim()).await;
    }
}

#[tokio::test]
async fn rsa_keys_log_in_where_only_one_sha2_signature_is_allowed() {
    for algorithm in ["rsa-sha2-256", "rsa-sha2-512"] {
        let sshd = Sshd::start_with(&format!("PubkeyAcceptedAlgorithms {algorithm}"));
        let file = sshd.path("rsa");
        keygen(&file, &["-t", "rsa", "-b", "2048"]);
        logs_in(&sshd, algorithm, &file, &public_key(&file)).await;
    }
}

#[tokio::test]
async fn sha1_signatures_are_never_made() {
    let sshd = Sshd::start_with("PubkeyAcceptedAlgorithms ssh-rsa");
    let file = sshd.path("rsa");
    keygen(&file, &["-t", "rsa", "-b", "2048"]);
    sshd.authorize(&public_key(&file));
    let key = ClientKey::parse(&fs::read(&file).unwrap()).unwrap();
    let refused = sshd.connect_with(&key, &[sshd.known_hosts_line("host_ed25519")]).await.err().unwrap();
    assert!(matches!(refused, SshError::AuthenticationFailed { .. }), "{refused}");
    for (algorithm, tried) in [("rsa-sha2-512", true), ("rsa-sha2-256", true), ("ssh-rsa", false)] {
        let attempt = format!("signature algorithm {algorithm} not in");
        assert_eq!(sshd.log().contains(&attempt), tried, "{algorithm}: {}", sshd.log());
    }
    assert!(!sshd.log().contains("Accepted publickey"), "{}", sshd.log());
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_the_reason() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let refusal = |file: &str| ClientKey::parse(&fs::read(file).unwrap()).unwrap_err();

    for (name, args) in [
        ("openssh", &["-t", "ed25519", "-N", "passphrase"][..]),
        ("pem_rsa", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "passphrase"]),
        ("pem_ec", &["-t", "ecdsa", "-m", "PEM", "-N", "passphrase"]),
        ("pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", "passphrase"]),
    ] {
        keygen(&dir.path().join(name), args);
        assert_eq!(refusal(&path(name)), ClientKeyError::Passphrase, "{name}");
    }

    for format in ["RFC4716", "PEM", "PKCS8"] {
        let name = format!("short_{format}");
        keygen(&dir.path().join(&name), &["-t", "rsa", "-b", "1024", "-m", format]);
        assert_eq!(refusal(&path(&name)), ClientKeyError::Rsa, "{format}");
    }

    run("openssl", &["genpkey", "-algorithm", "x25519", "-out", &path("x25519")]);
    assert!(matches!(refusal(&path("x25519")), ClientKeyError::Damaged(_)));

    keygen(&dir.path().join("cut"), &["-t", "ed25519"]);
    let whole = fs::read_to_string(path("cut")).unwrap();
    for cut in [whole.len() / 2, whole.find("-----END").unwrap()] {
        assert!(matches!(
            ClientKey::parse(&whole.as_bytes()[..cut]).unwrap_err(),
            ClientKeyError::Damaged(_)
        ));
    }
    assert_eq!(refusal(&path("cut.pub")), ClientKeyError::PublicKey);
}
