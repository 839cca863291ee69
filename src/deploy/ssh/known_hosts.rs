//! Checks a host key against known_hosts.
//!
//! The rules are those of OpenSSH's client (`hostfile.c`, `sshconnect.c`): russh's own helper accepts revoked keys,
//! refuses the second key of a rollover and supports neither patterns nor authorities. `tests/ssh` compares this
//! file with `ssh` itself. Where the two differ on purpose, this file is stricter:
//! - a certificate without principals is valid for no host, while OpenSSH accepts it for all hosts;
//! - a marker may be followed by a TAB (OpenSSH 9 skips such a line, so that a revocation would not count).

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::host_certificate;
use crate::api::docker_host::known_hosts_lines;

/// The meaning of a line's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    /// The key belongs to a host.
    Host,
    /// `@cert-authority`: the key signs the certificates of hosts.
    Authority,
    /// `@revoked`: the key must never be accepted.
    Revoked,
}

#[derive(Debug)]
struct Line {
    /// The line number, from 1, counted over all given lines.
    number: usize,
    marker: Marker,
    hosts: String,
    key: KeyData,
}

/// The parsed lines. A line that cannot be parsed is left out and has no effect, as in OpenSSH; its number is in
/// [`KnownHosts::unreadable`].
#[derive(Debug, Default)]
pub struct KnownHosts {
    lines: Vec<Line>,
    unreadable: Vec<usize>,
}

/// Host key algorithms to offer to a host, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKeyAlgorithms {
    /// Algorithms for plain keys; those of the host's keys in known_hosts come first.
    pub keys: Vec<Algorithm>,
    /// Empty unless an authority is trusted for the host.
    pub certificates: Vec<Algorithm>,
}

/// A host key that no line confirms. The text says what the host offered and which line would accept it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct HostKeyRefused {
    /// The host's name in the form of known_hosts: `host` or `[host]:port`.
    pub host: String,
    /// The key type, such as `ssh-ed25519`.
    pub key_type: String,
    /// The fingerprint, `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The line for known_hosts that accepts the offered key.
    pub line: String,
    /// The reason for the refusal.
    pub why: WhyRefused,
}

/// The reason why no line confirms the key. Lines are counted from 1, over all entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyRefused {
    /// No line is about this host. `unreadable` has the numbers of the lines that could not be parsed.
    Unknown {
        /// Numbers of the lines that could not be parsed.
        unreadable: Vec<usize>,
    },
    /// These lines have other keys for this host.
    Changed {
        /// Numbers of the lines that have another key for the host.
        lines: Vec<usize>,
    },
    /// The only lines about this host have keys of these types, which cannot be verified.
    Unverifiable {
        /// Numbers of the lines about the host.
        lines: Vec<usize>,
        /// Types of the keys in these lines, sorted, each once.
        key_types: Vec<String>,
    },
    /// This line revokes the offered key, or the authority that signed it.
    Revoked {
        /// Number of the line.
        line: usize,
    },
    /// A trusted authority signed the host's certificate, but the certificate is not valid for this host.
    Certificate {
        /// The reason, to follow the words "a certificate that".
        problem: String,
    },
}

impl fmt::Display for HostKeyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offered the host key {} {}", self.host, self.key_type, self.fingerprint)?;
        let confirm =
            "if that key is right (compare with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on the host)";
        match &self.why {
            WhyRefused::Unknown { unreadable } => {
                write!(f, ", and no line of knownHosts is about this host")?;
                if !unreadable.is_empty() {
                    write!(f, " ({} cannot be read)", numbered(unreadable))?;
                }
                write!(f, "; {confirm}, add the line: {}", self.line)
            }
            WhyRefused::Changed { lines } => {
                write!(
                    f,
                    ", but {} of knownHosts {} another key for it; {confirm}, replace the line by: {}",
                    numbered(lines),
                    if lines.len() == 1 { "has" } else { "have" },
                    self.line
                )
            }
            WhyRefused::Unverifiable { lines, key_types } => {
                write!(
                    f,
                    ", and {} of knownHosts {} for it, which keyturn cannot use: it verifies only \
                     ssh-ed25519 and ecdsa-sha2-nistp256/384/521; {confirm}, add the line: {}",
                    numbered(lines),
                    if lines.len() == 1 {
                        format!("has an {} key", key_types.join(", "))
                    } else {
                        format!("have keys of {}", key_types.join(", "))
                    },
                    self.line
                )
            }
            WhyRefused::Revoked { line } => {
                write!(
                    f,
                    ", which line {line} of knownHosts revokes; give the host a new key, or remove that line"
                )
            }
            WhyRefused::Certificate { problem } => {
                write!(
                    f,
                    " with a certificate that {problem}; sign the host's key again, or, {confirm}, add the line: {}",
                    self.line
                )
            }
        }
    }
}

fn numbered(lines: &[usize]) -> String {
    let list: Vec<String> = lines.iter().map(ToString::to_string).collect();
    format!("line{} {}", if lines.len() == 1 { "" } else { "s" }, list.join(", "))
}

/// The result for one spelling of the host's name.
enum Finding {
    Accepted,
    Revoked(usize),
    /// Lines with other keys.
    Changed(Vec<usize>),
    /// Lines about this host, all with keys that cannot be verified.
    Unverifiable(Vec<usize>),
    Unknown,
}

impl KnownHosts {
    /// Parses the entries; one entry may hold several lines.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Self {
        let mut known = Self::default();
        let mut before = 0;
        for entry in entries.iter().map(AsRef::as_ref) {
            for (number, line) in known_hosts_lines(entry) {
                match parse_line(before + number, line) {
                    Some(line) => known.lines.push(line),
                    None => known.unreadable.push(before + number),
                }
            }
            before += entry.lines().count().max(1);
        }
        known
    }

    /// Returns the numbers of the lines that could not be parsed.
    pub fn unreadable(&self) -> &[usize] {
        &self.unreadable
    }

    /// Checks the key that a host offered at `now` (seconds since 1970).
    pub fn check(
        &self,
        host: &str,
        port: u16,
        offered: &PublicKeyOrCertificate,
        now: u64,
    ) -> Result<(), Box<HostKeyRefused>> {
        let key = offered.public_key();
        let refused = |why| {
            Box::new(HostKeyRefused {
                host: host_name(host, port),
                key_type: key.algorithm().as_str().to_owned(),
                fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
                line: known_hosts_line(host, port, &key),
                why,
            })
        };

        let mut problem = None;
        if let PublicKeyOrCertificate::Certificate(certificate) = offered {
            let finding = self.look_up(host, port, |name| {
                self.judge(name, Marker::Authority, certificate.signature_key(), key.key_data())
            });
            match finding {
                Finding::Accepted => match host_certificate::check(certificate, host, now) {
                    Ok(()) => return Ok(()),
                    Err(wrong) => problem = Some(wrong),
                },
                Finding::Revoked(line) => return Err(refused(WhyRefused::Revoked { line })),
                Finding::Changed(_) | Finding::Unverifiable(_) | Finding::Unknown => {}
            }
        }
        // The key is compared with the lines for plain keys too: a host with a certificate that no authority confirms
        // may still be listed by its key.
        let finding =
            self.look_up(host, port, |name| self.judge(name, Marker::Host, key.key_data(), key.key_data()));
        let why = match (finding, problem) {
            (Finding::Accepted, _) => return Ok(()),
            (Finding::Revoked(line), _) => WhyRefused::Revoked { line },
            (_, Some(problem)) => WhyRefused::Certificate { problem },
            (Finding::Changed(lines), None) => WhyRefused::Changed { lines },
            (Finding::Unverifiable(lines), None) => {
                let key_types = self.key_types(&lines);
                WhyRefused::Unverifiable { lines, key_types }
            }
            (Finding::Unknown, None) => WhyRefused::Unknown { unreadable: self.unreadable.clone() },
        };
        Err(refused(why))
    }

    fn key_types(&self, lines: &[usize]) -> Vec<String> {
        let of = self.lines.iter().filter(|line| lines.contains(&line.number));
        let mut types: Vec<String> = of.map(|line| line.key.algorithm().as_str().to_owned()).collect();
        types.sort();
        types.dedup();
        types
    }

    /// Looks up a port other than 22 as `[host]:port`, and as plain `host` if no line has that.
    fn look_up(&self, host: &str, port: u16, judge: impl Fn(&str) -> Finding) -> Finding {
        let found = judge(&host_name(host, port));
        if port == 22 || !matches!(found, Finding::Unknown) {
            return found;
        }
        judge(&host_name(host, 22))
    }

    /// Compares `wanted` with the lines of this host that have `marker`. A line that revokes `wanted` or `host_key`
    /// overrides every other line.
    fn judge(&self, name: &str, marker: Marker, wanted: &KeyData, host_key: &KeyData) -> Finding {
        let (mut changed, mut unverifiable) = (Vec::new(), Vec::new());
        let mut accepted = false;
        for line in self.about(name) {
            if line.marker == Marker::Revoked && (line.key == *wanted || line.key == *host_key) {
                return Finding::Revoked(line.number);
            }
            if line.marker == marker {
                if line.key == *wanted {
                    accepted = true;
                } else if marker == Marker::Host {
                    // keyturn does not ask the host for a key of a type that it cannot verify, so the host may well
                    // have this key.
                    let verifiable = verifiable_algorithms().contains(&line.key.algorithm());
                    let lines = if verifiable { &mut changed } else { &mut unverifiable };
                    lines.push(line.number);
                }
            }
        }
        match (accepted, changed.is_empty(), unverifiable.is_empty()) {
            (true, _, _) => Finding::Accepted,
            (false, false, _) => Finding::Changed(changed),
            (false, true, false) => Finding::Unverifiable(unverifiable),
            (false, true, true) => Finding::Unknown,
        }
    }

    fn about<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| names_host(&line.hosts, name))
    }

    /// Returns the algorithms with the types that are recorded for the host first, so that a host with several keys
    /// offers a known one. RSA host keys are not offered: verifying them would need the `rsa` crate.
    pub fn algorithms(&self, host: &str, port: u16) -> HostKeyAlgorithms {
        let with_port = host_name(host, port);
        let plain = host_name(host, 22);
        let mut lines: Vec<&Line> = self.about(&with_port).collect();
        if lines.is_empty() {
            lines = self.about(&plain).collect();
        }
        let recorded = |algorithm: &Algorithm| {
            lines.iter().any(|line| line.marker == Marker::Host && line.key.algorithm() == *algorithm)
        };
        let (known, other): (Vec<_>, Vec<_>) = verifiable_algorithms().into_iter().partition(recorded);
        let trusts_authority = lines.iter().any(|line| line.marker == Marker::Authority);
        HostKeyAlgorithms {
            keys: known.into_iter().chain(other).collect(),
            certificates: if trusts_authority { verifiable_algorithms() } else { Vec::new() },
        }
    }
}

/// Returns the host key algorithms that the SSH library can verify, in OpenSSH's order of preference.
fn verifiable_algorithms() -> Vec<Algorithm> {
    let curve = |curve| Algorithm::Ecdsa { curve };
    vec![
        Algorithm::Ed25519,
        curve(EcdsaCurve::NistP256),
        curve(EcdsaCurve::NistP384),
        curve(EcdsaCurve::NistP521),
    ]
}

/// Returns the name under which known_hosts lists a host.
pub fn host_name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// Returns the line of known_hosts that accepts a key.
pub fn known_hosts_line(host: &str, port: u16, key: &PublicKey) -> String {
    let blob = key.to_bytes().map(|bytes| BASE64.encode(bytes)).unwrap_or_default();
    format!("{} {} {blob}", host_name(host, port), key.algorithm().as_str())
}

fn parse_line(number: usize, line: &str) -> Option<Line> {
    let blank = [' ', '\t'];
    let (marker, rest) = match line.strip_prefix('@') {
        Some(marked) => {
            let (word, rest) = marked.split_once(blank)?;
            let marker = match word {
                "cert-authority" => Marker::Authority,
                "revoked" => Marker::Revoked,
                _ => return None,
            };
            (marker, rest.trim_start_matches(blank))
        }
        None => (Marker::Host, line),
    };
    let (hosts, rest) = rest.split_once(blank)?;
    if hosts.starts_with('|') && split_hashed(hosts).is_none() {
        return None;
    }
    let mut words = rest.split(blank).filter(|word| !word.is_empty());
    let (key_type, blob) = (words.next()?, words.next()?);
    let key = PublicKey::from_bytes(&BASE64.decode(blob).ok()?).ok()?;
    if key.algorithm().as_str() != key_type {
        return None;
    }
    Some(Line { number, marker, hosts: hosts.to_owned(), key: key.key_data().clone() })
}

/// True if the host field of a line matches `name` (in lower case, `[host]:port` for a port other than 22).
fn names_host(field: &str, name: &str) -> bool {
    if field.starts_with('|') {
        return split_hashed(field).is_some_and(|(salt, hash)| {
            // OpenSSH's format is HMAC-SHA1; it hides names and authenticates nothing.
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
            hmac::sign(&key, name.as_bytes()).as_ref() == hash
        });
    }
    let mut matched = false;
    for pattern in field.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if glob(pattern.to_lowercase().as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

fn split_hashed(field: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (salt, hash) = field.strip_prefix("|1|")?.split_once('|')?;
    let (salt, hash) = (BASE64.decode(salt).ok()?, BASE64.decode(hash).ok()?);
    (salt.len() == 20 && hash.len() == 20).then_some((salt, hash))
}

/// Matches a pattern in which `*` stands for any characters and `?` for one. Takes time linear in the text for each
/// star, so that no pattern takes long.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    star = Some((star_p, star_t + 1));
                    p = star_p + 1;
                    t = star_t + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(blob: &str) -> PublicKeyOrCertificate {
        PublicKey::from_bytes(&BASE64.decode(blob).unwrap()).unwrap().into()
    }

    fn check(lines: &[String], host: &str, port: u16) -> Result<(), Box<HostKeyRefused>> {
        KnownHosts::parse(lines).check(host, port, &key(ED25519), 0)
    }

    #[test]
    fn globs_match_like_those_of_openssh() {
        for (pattern, text, matches) in [
            ("*", "a.b", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.example", "x.y.example", true),
            ("*.example", "example", false),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*c", "axxbyybzz", false),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_refusal_names_the_offered_key_and_the_line_that_would_accept_it() {
        let lines = vec!["# comment".to_owned(), format!("db.example ssh-ed25519 {OTHER}")];
        let refused = check(&lines, "DB.example", 22).unwrap_err();
        assert_eq!(refused.why, WhyRefused::Changed { lines: vec![2] });
        assert_eq!(refused.line, format!("db.example ssh-ed25519 {ED25519}"));
        assert!(refused.to_string().contains(&refused.fingerprint), "{refused}");
        assert!(refused.to_string().contains("line 2"), "{refused}");

        let mut mended = lines;
        mended[1] = refused.line;
        assert_eq!(check(&mended, "db.example", 22), Ok(()));
    }

    /// Returns an RSA key of 2048 bits in the format of known_hosts.
    fn rsa() -> String {
        let mut blob = Vec::new();
        for part in [b"ssh-rsa".to_vec(), vec![1, 0, 1], [vec![0], vec![0xc5; 256]].concat()] {
            blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            blob.extend(part);
        }
        format!("ssh-rsa {}", BASE64.encode(blob))
    }

    #[test]
    fn a_key_of_a_type_that_is_never_asked_for_is_no_changed_key() {
        let lines = vec![format!("db.example {}", rsa())];
        let refused = check(&lines, "db.example", 22).unwrap_err();
        let why = WhyRefused::Unverifiable { lines: vec![1], key_types: vec!["ssh-rsa".to_owned()] };
        assert_eq!(refused.why, why);
        let said = refused.to_string();
        assert!(
            said.contains("line 1 of knownHosts has an ssh-rsa key for it, which keyturn cannot use"),
            "{said}"
        );
        assert!(said.ends_with(&format!("add the line: db.example ssh-ed25519 {ED25519}")), "{said}");
        let mended = [lines[0].clone(), refused.line];
        assert_eq!(check(&mended, "db.example", 22), Ok(()));
    }

    #[test]
    fn beside_a_changed_key_the_line_of_another_type_is_not_named() {
        let lines = vec![format!("db.example {}", rsa()), format!("db.example ssh-ed25519 {OTHER}")];
        let refused = check(&lines, "db.example", 22).unwrap_err();
        assert_eq!(refused.why, WhyRefused::Changed { lines: vec![2] });
    }

    #[test]
    fn lines_are_counted_over_all_items() {
        let block = format!("# db.example:22 SSH-2.0-OpenSSH_9.9\r\nwww.example ssh-ed25519 {ED25519}\r\n");
        let refused =
            check(&[block, String::new(), format!("db.example ssh-ed25519 {OTHER}")], "db.example", 22);
        assert_eq!(refused.unwrap_err().why, WhyRefused::Changed { lines: vec![4] });
    }

    #[test]
    fn a_refusal_at_another_port_gives_a_line_with_that_port() {
        let refused = check(&[], "db.example", 2222).unwrap_err();
        assert_eq!(refused.line, format!("[db.example]:2222 ssh-ed25519 {ED25519}"));
        assert_eq!(check(&[refused.line], "db.example", 2222), Ok(()));
    }

    #[test]
    fn a_bad_line_fails_alone_and_is_named() {
        let lines = vec![
            "db.example ssh-ed25519 !!!".to_owned(),
            "|1|bad ssh-ed25519 x".to_owned(),
            "alone".to_owned(),
            format!("@unheard-of db.example ssh-ed25519 {ED25519}"),
            format!("db.example ecdsa-sha2-nistp256 {ED25519}"),
        ];
        let refused = check(&lines, "db.example", 22).unwrap_err();
        assert_eq!(refused.why, WhyRefused::Unknown { unreadable: vec![1, 2, 3, 4, 5] });
        let mut with_good = lines;
        with_good.push(format!("db.example ssh-ed25519 {ED25519}"));
        assert_eq!(check(&with_good, "db.example", 22), Ok(()));
    }

    #[test]
    fn a_revocation_after_a_tab_counts() {
        let lines = vec![
            format!("db.example\tssh-ed25519\t{ED25519}\tcomment"),
            format!("@revoked\tdb.example\tssh-ed25519\t{ED25519}"),
        ];
        assert_eq!(check(&lines[..1], "db.example", 22), Ok(()));
        assert_eq!(check(&lines, "db.example", 22).unwrap_err().why, WhyRefused::Revoked { line: 2 });
    }

    #[test]
    fn recorded_types_are_offered_first_and_certificates_only_where_an_authority_is_trusted() {
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
        let known = KnownHosts::parse(&[format!("db.example {ecdsa}")]);
        let offered = known.algorithms("db.example", 22);
        assert_eq!(offered.keys[0], Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 });
        assert_eq!(offered.certificates, vec![]);
        assert_eq!(known.algorithms("other.example", 22).keys[0], Algorithm::Ed25519);

        let authority = KnownHosts::parse(&[format!("@cert-authority *.example ssh-ed25519 {ED25519}")]);
        assert!(!authority.algorithms("db.example", 22).certificates.is_empty());
        assert!(authority.algorithms("db.other", 22).certificates.is_empty());
    }
}
