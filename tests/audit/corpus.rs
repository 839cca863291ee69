//! Labelled images: the secrets in each of them are known.

use super::image::{Builder, Outputs, Step, built};
use super::{later, negatives, positives};

/// An image and the secrets in it.
#[derive(Clone)]
pub(crate) struct Case {
    pub name: String,
    pub outputs: Outputs,
    /// The same image on an empty base, where only the steps can mislead a search for words.
    pub from_scratch: Outputs,
    /// The secrets in it; empty if the image is clean.
    pub planted: Vec<String>,
}

/// Numbers that are the same in every run (xorshift64*), so that a failure can be reproduced.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns this many characters of an alphabet.
    pub(crate) fn of(&mut self, alphabet: &str, length: usize) -> String {
        let letters = alphabet.as_bytes();
        let mut text: String = (0..length)
            .map(|_| char::from(letters[usize::try_from(self.next() % letters.len() as u64).unwrap()]))
            .collect();
        // Includes a digit and a letter, as nearly all real tokens of this length do.
        if length > 8 && letters.contains(&b'7') && letters.contains(&b'a') {
            text.replace_range(length / 2..length / 2 + 2, "7a");
        }
        text
    }

    pub(crate) fn alphanumeric(&mut self, length: usize) -> String {
        self.of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", length)
    }

    pub(crate) fn hex(&mut self, length: usize) -> String {
        self.of("0123456789abcdef", length)
    }

    pub(crate) fn base64url(&mut self, length: usize) -> String {
        self.of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", length)
    }
}

pub(crate) fn env(name: &'static str, value: impl Into<String>) -> Step {
    Step::Env(name, value.into())
}

pub(crate) fn run(command: impl Into<String>) -> Step {
    Step::Run(command.into())
}

/// Returns the base images. None of them contains a secret, and each contains something that a search for words
/// mistakes for one.
fn bases() -> Vec<(&'static str, Vec<Step>)> {
    let path = || env("PATH", "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
    vec![
        (
            "python",
            vec![
                path(),
                env("LANG", "C.UTF-8"),
                env("GPG_KEY", "7169605F62C751356D054A26A821E680E5FA6305"),
                env("PYTHON_VERSION", "3.13.1"),
                env("PYTHON_SHA256", "9cf9427bee9e2242e3877dd0f6b641c1853ca461f39d6503ce260a59c80bf0d9"),
                run(
                    "set -eux; wget -O python.tar.xz \"https://www.python.org/ftp/python/$PYTHON_VERSION/Python.tar.xz\"; echo \"$PYTHON_SHA256 *python.tar.xz\" | sha256sum -c -; GNUPGHOME=\"$(mktemp -d)\"; export GNUPGHOME; gpg --batch --keyserver hkps://keys.openpgp.org --recv-keys \"$GPG_KEY\"; gpg --batch --verify python.tar.xz.asc python.tar.xz",
                ),
                env("PYTHONDONTWRITEBYTECODE", "1"),
                env("PYTHONUNBUFFERED", "1"),
                env("PYTHONPATH", "/app"),
                Step::Cmd(vec!["python3".into()]),
            ],
        ),
        (
            "node",
            vec![
                path(),
                env("NODE_VERSION", "22.12.0"),
                env("YARN_VERSION", "1.22.22"),
                run(
                    "ARCH= && export GNUPGHOME=\"$(mktemp -d)\" && for key in C0D6248439F1D5604AAFFB4021D900FFDB233756 DD792F5973C6DE52C432CBDAC77ABFA00DDBF2B7 ; do { gpg --batch --keyserver hkps://keys.openpgp.org --recv-keys \"$key\" && gpg --batch --fingerprint \"$key\"; } ; done",
                ),
                Step::Entrypoint(vec!["docker-entrypoint.sh".into()]),
            ],
        ),
        ("alpine", vec![path(), Step::Cmd(vec!["/bin/sh".into()])]),
        (
            "debian",
            vec![
                path(),
                run(
                    "apt-get update && apt-get install -y curl gnupg && curl -fsSL https://download.docker.com/linux/debian/gpg -o /etc/apt/keyrings/docker.asc && echo \"deb [signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian bookworm stable\" > /etc/apt/sources.list.d/docker.list",
                ),
            ],
        ),
    ]
}

/// Returns every form on a separate base, by both builders.
pub(crate) fn cases() -> Vec<Case> {
    [built_from("secret", positives::forms), built_from("clean", negatives::forms)].concat()
}

/// Returns the same for the forms that were written later.
pub(crate) fn later_cases() -> Vec<Case> {
    [built_from("secret", later::secrets), built_from("clean", later::clean)].concat()
}

fn built_from(kind: &str, forms: fn(&mut Random) -> Vec<positives::Form>) -> Vec<Case> {
    let bases = bases();
    let mut cases = Vec::new();
    for (round, builder) in [Builder::Classic, Builder::BuildKit].into_iter().enumerate() {
        let mut random = Random::new(1 + round as u64);
        for (index, (name, steps, planted)) in forms(&mut random).into_iter().enumerate() {
            let (base, below) = &bases[(index + round) % bases.len()];
            let name = format!("{kind}/{name}/{base}/{builder:?}").to_lowercase();
            let all: Vec<Step> =
                below.iter().cloned().chain([Step::Copy(".")]).chain(steps.clone()).collect();
            let outputs = built("registry.example/team/app", &all, builder);
            let from_scratch = built("registry.example/team/app", &steps, builder);
            cases.push(Case { name, outputs, from_scratch, planted });
        }
    }
    cases
}
