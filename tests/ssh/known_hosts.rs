//! Compares OpenSSH's `ssh` and keyturn: for the same known_hosts and the same host they must agree.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use keyturn::deploy::ssh::known_hosts::KnownHosts;
use russh::keys::{Certificate, PublicKey, PublicKeyOrCertificate};
use tempfile::TempDir;

use crate::sshd::{configuration, keygen, public_key, run, sshd_program};

/// The keys of one test: host keys, strangers' keys, authorities.
struct Keys {
    dir: TempDir,
}

impl Keys {
    fn make() -> Self {
        let dir = TempDir::new().unwrap();
        for (name, key_type) in [
            ("host_ed25519", "ed25519"),
            ("host_ecdsa", "ecdsa"),
            ("other_ed25519", "ed25519"),
            ("other_ecdsa", "ecdsa"),
            ("ca", "ed25519"),
            ("other_ca", "ecdsa"),
            ("ca_rsa", "rsa"),
        ] {
            keygen(&dir.path().join(name), &["-t", key_type]);
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> &str {
        self.dir.path().join(name).to_str().unwrap().to_owned().leak()
    }

    fn public(&self, name: &str) -> String {
        public_key(&self.dir.path().join(name))
    }

    /// Signs the host's ed25519 key and writes `<name>-cert.pub`.
    fn certify(&self, name: &str, authority: &str, args: &[&str]) {
        for suffix in ["", ".pub"] {
            fs::copy(self.path(&format!("host_ed25519{suffix}")), self.path(&format!("{name}{suffix}")))
                .unwrap();
        }
        let public = self.path(&format!("{name}.pub"));
        run("ssh-keygen", &[&["-q", "-s", self.path(authority), "-I", "id"], args, &[public]].concat());
    }

    /// Replaces `{name}` in known_hosts by the public key of that name.
    fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for name in ["host_ed25519", "host_ecdsa", "other_ed25519", "other_ecdsa", "ca", "other_ca", "ca_rsa"]
        {
            text = text.replace(&format!("{{{name}}}"), &self.public(name));
        }
        text
    }

    /// Returns true if OpenSSH's client accepts the host. The host is an sshd at the other end of a pipe, so that it
    /// can have any name and port.
    fn openssh_accepts(&self, lines: &str, host: &str, port: u16, certificate: Option<&str>) -> bool {
        let case = TempDir::new_in(self.dir.path()).unwrap();
        let file = |name: &str| case.path().join(name).to_str().unwrap().to_owned();
        let more = certificate
            .map(|name| format!("HostCertificate {}-cert.pub", self.path(name)))
            .unwrap_or_default();
        let config = configuration(self.dir.path(), &["host_ed25519", "host_ecdsa"], &more);
        fs::write(file("sshd_config"), config).unwrap();
        fs::write(file("known_hosts"), lines).unwrap();
        let output = Command::new("ssh")
            .args(["-F", "/dev/null", "-p", &port.to_string()])
            .args(["-o", &format!("ProxyCommand={} -i -f {}", sshd_program(), file("sshd_config"))])
            .args(["-o", &format!("UserKnownHostsFile={}", file("known_hosts"))])
            .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", "BatchMode=yes", "-o", "PreferredAuthentications=none", host, "true"])
            .stdin(Stdio::null())
            .output()
            .expect("ssh is needed for this test: install openssh-client");
        let said = String::from_utf8_lossy(&output.stderr);
        match (said.contains("Permission denied"), said.contains("Host key verification failed")) {
            (true, false) => true,
            (false, true) => false,
            _ => panic!("ssh neither accepted nor refused {host}:{port} with\n{lines}\nbut said {said}"),
        }
    }

    /// Returns true if keyturn accepts what the host offers for the algorithms that keyturn requests.
    fn keyturn_accepts(&self, lines: &str, host: &str, port: u16, certificate: Option<&str>) -> bool {
        let known = KnownHosts::parse(&[lines]);
        let wanted = known.algorithms(host, port);
        let key = |name: &str| PublicKey::from_openssh(&self.public(name)).unwrap();
        let offered: PublicKeyOrCertificate = match certificate {
            Some(name) if !wanted.certificates.is_empty() => {
                let path = format!("{}-cert.pub", self.path(name));
                Certificate::read_file(Path::new(&path)).unwrap().into()
            }
            _ => {
                let keys = [key("host_ed25519"), key("host_ecdsa")];
                let first = wanted
                    .keys
                    .iter()
                    .find_map(|algorithm| keys.iter().find(|key| key.algorithm() == *algorithm))
                    .unwrap();
                first.clone().into()
            }
        };
        let now = chrono::Utc::now().timestamp().try_into().unwrap();
        known.check(host, port, &offered, now).is_ok()
    }

    fn agree(&self, cases: &[(&str, &str, u16, Option<&str>, bool)]) {
        std::thread::scope(|scope| {
            for (lines, host, port, certificate, accepted) in cases {
                scope.spawn(move || {
                    let filled = self.fill(lines);
                    let openssh = self.openssh_accepts(&filled, host, *port, *certificate);
                    let ours = self.keyturn_accepts(&filled, host, *port, *certificate);
                    let case = format!("{host}:{port} with certificate {certificate:?} and\n{lines}");
                    assert_eq!(openssh, *accepted, "OpenSSH on {case}");
                    assert_eq!(ours, *accepted, "keyturn on {case}");
                });
            }
        });
    }
}

fn hashed(keys: &Keys, name: &str) -> String {
    let file = keys.path("to_hash").to_owned();
    fs::write(&file, format!("{name} {}\n", keys.public("host_ed25519"))).unwrap();
    run("ssh-keygen", &["-q", "-H", "-f", &file]);
    let line = fs::read_to_string(&file).unwrap();
    assert!(line.starts_with("|1|"), "{line}");
    line
}

#[test]
fn openssh_and_keyturn_agree_on_keys() {
    let keys = Keys::make();
    let (plain, with_port) = (hashed(&keys, "db.example"), hashed(&keys, "[db.example]:2222"));
    let bad_hash = plain.replacen("|1|", "|1|!", 1);
    keys.agree(&[
        ("", "db.example", 22, None, false),
        ("db.example {host_ed25519}", "db.example", 22, None, true),
        ("db.example {host_ed25519} a comment # and more", "db.example", 22, None, true),
        ("  \t db.example {host_ed25519}", "db.example", 22, None, true),
        ("# db.example {host_ed25519}", "db.example", 22, None, false),
        ("db.example {host_ed25519}", "DB.Example", 22, None, true),
        ("DB.EXAMPLE {host_ed25519}", "db.example", 22, None, true),
        ("db.example {other_ed25519}", "db.example", 22, None, false),
        ("other.example {host_ed25519}", "db.example", 22, None, false),
        // If only one type is recorded, the host proves itself with that type.
        ("db.example {host_ecdsa}", "db.example", 22, None, true),
        ("db.example {other_ecdsa}", "db.example", 22, None, false),
        ("db.example {other_ed25519}\ndb.example {host_ecdsa}", "db.example", 22, None, false),
        ("db.example {ca_rsa}", "db.example", 22, None, false),
        ("db.example {ca_rsa}\ndb.example {host_ed25519}", "db.example", 22, None, true),
        // A host has several keys of one type during a rollover.
        ("db.example {other_ed25519}\ndb.example {host_ed25519}", "db.example", 22, None, true),
        ("db.example {host_ed25519}\ndb.example {other_ed25519}", "db.example", 22, None, true),
        // Lists, patterns, negation.
        ("a,db.example,192.0.2.1 {host_ed25519}", "db.example", 22, None, true),
        ("*.example {host_ed25519}", "db.example", 22, None, true),
        ("d?.example {host_ed25519}", "db.example", 22, None, true),
        ("d?.example {host_ed25519}", "dbb.example", 22, None, false),
        ("* {host_ed25519}", "db.example", 22, None, true),
        ("*.example,!db.example {host_ed25519}", "db.example", 22, None, false),
        ("!db.example,*.example {host_ed25519}", "db.example", 22, None, false),
        ("!other.example,*.example {host_ed25519}", "db.example", 22, None, true),
        ("!db.example {host_ed25519}", "other.example", 22, None, false),
        // Ports.
        ("[db.example]:2222 {host_ed25519}", "db.example", 2222, None, true),
        ("[db.example]:2222 {host_ed25519}", "db.example", 2223, None, false),
        ("[db.example]:2222 {host_ed25519}", "db.example", 22, None, false),
        ("[*.example]:* {host_ed25519}", "db.example", 2222, None, true),
        ("db.example {host_ed25519}", "db.example", 2222, None, true),
        ("db.example {host_ed25519}\n[db.example]:2222 {other_ed25519}", "db.example", 2222, None, false),
        ("[db.example]:22 {host_ed25519}", "db.example", 22, None, false),
        // Hashed names.
        (&plain, "db.example", 22, None, true),
        (&plain, "other.example", 22, None, false),
        (&with_port, "db.example", 2222, None, true),
        (&with_port, "db.example", 22, None, false),
        (&bad_hash, "db.example", 22, None, false),
        // Revoked keys.
        ("db.example {host_ed25519}\n@revoked * {host_ed25519}", "db.example", 22, None, false),
        ("@revoked db.example {host_ed25519}\ndb.example {host_ed25519}", "db.example", 22, None, false),
        ("@revoked other.example {host_ed25519}\ndb.example {host_ed25519}", "db.example", 22, None, true),
        ("@revoked db.example {other_ed25519}\ndb.example {host_ed25519}", "db.example", 22, None, true),
        (
            "[db.example]:2222 {host_ed25519}\n@revoked [db.example]:2222 {host_ed25519}",
            "db.example",
            2222,
            None,
            false,
        ),
        // An unreadable line does not affect other lines.
        ("db.example ssh-ed25519 garbage\ndb.example {host_ed25519}", "db.example", 22, None, true),
        ("db.example\ndb.example {host_ed25519}", "db.example", 22, None, true),
        ("@unknown-marker db.example {host_ed25519}", "db.example", 22, None, false),
        ("@revoked @cert-authority db.example {ca}\ndb.example {host_ed25519}", "db.example", 22, None, true),
        ("db.example\t{host_ed25519}", "db.example", 22, None, true),
        // An authority's key is not a host key.
        ("@cert-authority db.example {host_ed25519}", "db.example", 22, None, false),
    ]);
}

#[test]
fn openssh_and_keyturn_agree_on_what_is_between_the_lines() {
    let keys = Keys::make();
    keys.agree(&[
        // The format of ssh-keyscan.
        (
            "# db.example:22 SSH-2.0-OpenSSH_9.9\ndb.example {host_ed25519}\n# db.example:22 SSH-2.0-OpenSSH_9.9\n",
            "db.example",
            22,
            None,
            true,
        ),
        ("\n \t\n\ndb.example {host_ed25519}\n\n", "db.example", 22, None, true),
        (" \t # {other_ed25519}\n\tdb.example {host_ed25519}", "db.example", 22, None, true),
        ("db.example \t {host_ed25519}", "db.example", 22, None, true),
        // The line breaks of a Windows machine.
        ("# keys\r\n\r\ndb.example {host_ed25519}\r\nwww.example {other_ed25519}\r\n", "db.example", 22, None, true),
        ("db.example {host_ed25519} comment\r\n", "db.example", 22, None, true),
        ("db.example {host_ed25519}\r\n@revoked * {host_ed25519}\r\n", "db.example", 22, None, false),
        // A text whose lines were joined is one comment.
        ("# db.example:22 SSH-2.0-OpenSSH_9.9 db.example {host_ed25519}", "db.example", 22, None, false),
        ("#db.example {host_ed25519}\n# {host_ed25519}\r\n", "db.example", 22, None, false),
    ]);
}

#[test]
fn openssh_and_keyturn_agree_on_certificates() {
    let keys = Keys::make();
    let host = ["-h", "-n", "db.example,www.example"];
    keys.certify("valid", "ca", &host);
    keys.certify("rsa_signed", "ca_rsa", &host);
    keys.certify("ecdsa_signed", "other_ca", &host);
    keys.certify("expired", "ca", &[&host[..], &["-V", "20200101:20210101"]].concat());
    keys.certify("not_yet", "ca", &[&host[..], &["-V", "20900101:20910101"]].concat());
    keys.certify("other_name", "ca", &["-h", "-n", "other.example"]);
    keys.certify("glob_name", "ca", &["-h", "-n", "*.example"]);
    keys.certify("critical", "ca", &[&host[..], &["-O", "critical:x=y"]].concat());
    let trusted = "@cert-authority *.example {ca}";
    keys.agree(&[
        (trusted, "db.example", 22, Some("valid"), true),
        (trusted, "www.example", 22, Some("valid"), true),
        (trusted, "DB.example", 22, Some("valid"), true),
        (trusted, "mail.example", 22, Some("valid"), false),
        (trusted, "db.other", 22, Some("valid"), false),
        (trusted, "db.example", 22, None, false),
        (trusted, "db.example", 2222, Some("valid"), true),
        ("@cert-authority [*.example]:2222 {ca}", "db.example", 2222, Some("valid"), true),
        ("@cert-authority *.example {other_ca}", "db.example", 22, Some("valid"), false),
        (
            "@cert-authority *.example {other_ca}\n@cert-authority * {ca}",
            "db.example",
            22,
            Some("valid"),
            true,
        ),
        ("*.example {ca}", "db.example", 22, Some("valid"), false),
        ("@cert-authority *.example {ca_rsa}", "db.example", 22, Some("rsa_signed"), true),
        ("@cert-authority *.example {other_ca}", "db.example", 22, Some("ecdsa_signed"), true),
        (trusted, "db.example", 22, Some("expired"), false),
        (trusted, "db.example", 22, Some("not_yet"), false),
        (trusted, "db.example", 22, Some("other_name"), false),
        (trusted, "db.example", 22, Some("glob_name"), false),
        (trusted, "db.example", 22, Some("critical"), false),
        // If a certificate is not valid, the key itself may still be listed.
        (
            "@cert-authority *.example {ca}\ndb.example {host_ed25519}",
            "db.example",
            22,
            Some("expired"),
            true,
        ),
        (
            "@cert-authority *.example {other_ca}\ndb.example {host_ed25519}",
            "db.example",
            22,
            Some("valid"),
            true,
        ),
        ("db.example {host_ed25519}", "db.example", 22, Some("valid"), true),
        // Revoking the authority or the key also revokes the certificate.
        ("@cert-authority * {ca}\n@revoked * {ca}", "db.example", 22, Some("valid"), false),
        ("@cert-authority * {ca}\n@revoked * {host_ed25519}", "db.example", 22, Some("valid"), false),
    ]);
}

#[test]
fn a_certificate_without_principals_is_valid_for_no_host() {
    let keys = Keys::make();
    keys.certify("for_all", "ca", &["-h"]);
    assert!(!keys.keyturn_accepts(&keys.fill("@cert-authority * {ca}"), "db.example", 22, Some("for_all")));
}

#[test]
fn a_certificate_of_a_user_is_no_host_certificate() {
    let keys = Keys::make();
    keys.certify("of_user", "ca", &["-n", "db.example"]);
    assert!(!keys.keyturn_accepts(&keys.fill("@cert-authority * {ca}"), "db.example", 22, Some("of_user")));
}
