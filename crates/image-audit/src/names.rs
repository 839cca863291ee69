//! Names that indicate a secret, and values that are not secret although the name says so.

/// The strength of a name as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Any literal under this name is a secret.
    Strong,
    /// Only a literal that looks random is a secret: `…_KEY` may be a key of a cache, or the name of one.
    Weak,
}

const STRONG: [&str; 22] = [
    "PASSWORD",
    "PASSWORDS",
    "PASSWD",
    "PASSPHRASE",
    "PASSCODE",
    "PASS",
    "PWD",
    "PW",
    "PSK",
    "SECRET",
    "SECRETS",
    "TOKEN",
    "TOKENS",
    "APIKEY",
    "APIKEYS",
    "CREDENTIAL",
    "CREDENTIALS",
    "CREDS",
    "STOREPASS",
    "KEYPASS",
    "REQUIREPASS",
    "PAT",
];

/// Endings of words without a separator: `PGPASSWORD`, `authtoken`.
const STRONG_ENDINGS: [&str; 9] =
    ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "APIKEY", "ACCESSKEY", "SECRETKEY", "PRIVATEKEY"];

const WEAK: [&str; 6] = ["KEY", "KEYS", "AUTH", "SALT", "COOKIE", "JWT"];

/// Words that make a key a secret: `API_KEY`, `SECRET_KEY`.
const KEYS_THAT_ARE_SECRET: [&str; 8] =
    ["API", "SECRET", "PRIVATE", "ENCRYPTION", "SIGNING", "MASTER", "ACCOUNT", "SHARED"];

/// Words for a key that is public, or that is not a key.
const KEYS_THAT_ARE_NONE: [&str; 27] = [
    "PUBLIC",
    "PUB",
    "PUBLISHABLE",
    "GPG",
    "PGP",
    "APT",
    "RPM",
    "SITE",
    "HOST",
    "PRIMARY",
    "FOREIGN",
    "UNIQUE",
    "SORT",
    "PARTITION",
    "SHARD",
    "CACHE",
    "ROUTING",
    "RECV",
    "IMPORT",
    "RELEASE",
    "TRUSTED",
    "FETCH",
    "SEND",
    "EXPORT",
    "MAINTAINER",
    "GNUPG",
    "VERIFY",
];

/// Words after the secret word in names *about* a secret: its place, its lifetime.
const ABOUT: [&str; 85] = [
    "FILE",
    "FILES",
    "FILENAME",
    "PATH",
    "PATHS",
    "DIR",
    "DIRECTORY",
    "FOLDER",
    "ID",
    "IDS",
    "URL",
    "URLS",
    "URI",
    "ENDPOINT",
    "HOST",
    "PORT",
    "NAME",
    "NAMES",
    "TYPE",
    "KIND",
    "LENGTH",
    "LEN",
    "SIZE",
    "BYTES",
    "BITS",
    "MIN",
    "MAX",
    "LIMIT",
    "COUNT",
    "TTL",
    "EXPIRY",
    "EXPIRE",
    "EXPIRES",
    "EXPIRATION",
    "IN",
    "LIFETIME",
    "TIMEOUT",
    "INTERVAL",
    "ALGORITHM",
    "ALGO",
    "ALG",
    "HEADER",
    "HEADERS",
    "PREFIX",
    "SUFFIX",
    "ENABLED",
    "ENABLE",
    "DISABLED",
    "REQUIRED",
    "POLICY",
    "VERSION",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA512",
    "MD5",
    "CHECKSUM",
    "FINGERPRINT",
    "SERVER",
    "SERVERS",
    "RING",
    "STORE",
    "MANAGER",
    "BACKEND",
    "PROVIDER",
    "DRIVER",
    "ARN",
    "REF",
    "AUDIENCE",
    "ISSUER",
    "REGEX",
    "PATTERN",
    "FORMAT",
    "COLUMN",
    "FIELD",
    "PARAM",
    "PARALLELISM",
    "LOCATION",
    "MOUNT",
    "ROTATION",
    "STDIN",
    "PROMPT",
    "HELPER",
    "METHOD",
    "ENCODING",
];

/// Returns the strength of a name, if it indicates a secret.
pub(crate) fn strength(name: &str) -> Option<Strength> {
    let words = words(name);
    let at = words.iter().rposition(|word| strong(word) || WEAK.contains(&word.as_str()))?;
    let (before, after) = (&words[..at], &words[at + 1..]);
    // An access key's ID is half of a pair, so it counts if it looks random.
    if words.ends_with(&["ACCESS".into(), "KEY".into(), "ID".into()]) {
        return Some(Strength::Weak);
    }
    if after.iter().any(|word| ABOUT.contains(&word.as_str())) {
        return None;
    }
    let word = words[at].as_str();
    if ["KEY", "KEYS"].contains(&word) {
        let none = before.iter().any(|word| KEYS_THAT_ARE_NONE.contains(&word.as_str()));
        let secret = before.last().is_some_and(|word| KEYS_THAT_ARE_SECRET.contains(&word.as_str()));
        let access = before.ends_with(&["SECRET".into(), "ACCESS".into()]);
        return match (secret || access, none) {
            (true, _) => Some(Strength::Strong),
            (false, true) => None,
            (false, false) => Some(Strength::Weak),
        };
    }
    // PWD is the working directory, PASS an ordinary word, and PAT a person's name.
    if ["PWD", "PW", "PASS", "PAT"].contains(&word)
        && (before.is_empty() || before == ["OLD"] || !after.is_empty())
    {
        return None;
    }
    Some(if strong(word) { Strength::Strong } else { Strength::Weak })
}

fn strong(word: &str) -> bool {
    STRONG.contains(&word) || STRONG_ENDINGS.iter().any(|ending| word.ends_with(ending))
}

/// Splits `dbPassword`, `DB_PASSWORD` or `db.password2` into DB and PASSWORD.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut previous = '_';
    for c in name.chars() {
        let begins = c.is_ascii_uppercase() && previous.is_ascii_lowercase();
        if !c.is_ascii_alphanumeric() || begins {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_ascii_alphanumeric(), words.last_mut()) {
            word.push(c.to_ascii_uppercase());
        }
        previous = c;
    }
    let digits = |c: char| c.is_ascii_digit();
    words
        .into_iter()
        .map(|word| if word.starts_with("SHA") { word } else { word.trim_end_matches(digits).to_owned() })
        .filter(|word| !word.is_empty())
        .collect()
}

/// True if a literal under such a name is a secret.
pub(crate) fn is_secret(strength: Strength, name: &str, value: &str) -> bool {
    let value = value.trim();
    if value.is_empty()
        || is_reference(value)
        || is_placeholder(value)
        || is_public(value)
        || is_location(value)
    {
        return false;
    }
    let password =
        words(name).iter().any(|word| word.contains("PASS") || ["PWD", "PW", "PSK"].contains(&word.as_str()));
    match strength {
        Strength::Weak => looks_random(value),
        Strength::Strong if password => !is_switch(value),
        // Excludes a number of tokens, a list of names, and a sentence about the token.
        Strength::Strong => {
            !is_switch(value)
                && value.len() >= 4
                && !value.chars().all(|c| c.is_ascii_digit() || ".,".contains(c))
                && value.split_whitespace().count() < 3
        }
    }
}

/// True for a reference that another program replaces with a value: `$TOKEN`, `${TOKEN}`, `$(cat …)`, `{{ token }}`.
pub(crate) fn is_reference(value: &str) -> bool {
    let variable = value.strip_prefix('$').is_some_and(|rest| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        rest.is_empty() || rest.starts_with(['{', '(', '$', '@', '*']) || rest.chars().all(word)
    });
    let template =
        value.starts_with("{{") || value.starts_with('`') || value.starts_with("%(") || value == "%s";
    let scheme = [
        "vault:",
        "arn:aws:",
        "ssm:",
        "op://",
        "sm://",
        "awssm://",
        "gcp-secret",
        "secretsmanager:",
        "secret://",
    ];
    variable || template || value.contains("${") || value.contains("$(") || starts_with_any(value, &scheme)
}

/// True for a placeholder, written where a secret is expected.
pub(crate) fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let framed =
        (value.starts_with('<') && value.ends_with('>')) || (value.starts_with('[') && value.ends_with(']'));
    let masked =
        value.len() > 2 && value.chars().all(|c| matches!(c, '*' | 'x' | 'X' | '.' | '-' | '#' | '…' | '0'));
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let telling = |word: &&str| {
        [
            "changeme",
            "changeit",
            "dummy",
            "fake",
            "placeholder",
            "redacted",
            "example",
            "sample",
            "todo",
            "tbd",
            "unused",
            "ignored",
            "undefined",
            "unset",
            "null",
            "none",
            "nil",
            "replaceme",
            "notset",
            "insert",
            "your",
            "mock",
            "nothing",
        ]
        .contains(word)
    };
    let change_me = words.windows(2).any(|pair| matches!(pair, ["change" | "replace", "me" | "this" | "it"]));
    // A placeholder word next to a random text does not make it harmless: django-insecure-…, example-8f3a….
    let random = words.iter().any(|word| word.len() >= 16 && looks_random(word));
    framed || masked || ((change_me || words.iter().any(telling)) && !random)
}

/// True for certificates, public keys, publishable keys and fingerprints of keys.
fn is_public(value: &str) -> bool {
    let prefixes = [
        "-----BEGIN CERTIFICATE",
        "-----BEGIN PUBLIC",
        "-----BEGIN PGP PUBLIC",
        "ssh-rsa ",
        "ssh-ed25519 ",
        "ecdsa-sha2-",
        "pk_live_",
        "pk_test_",
        "sha256:",
        "sha512:",
        "age1",
    ];
    let hex = |word: &str| word.bytes().all(|c| c.is_ascii_digit() || (b'A'..=b'F').contains(&c));
    let id = |word: &str| {
        let word = word.strip_prefix("0x").unwrap_or(word);
        [8, 16, 40].contains(&word.len()) && hex(word)
    };
    let fingerprints = value.split([' ', ',', '\n']).filter(|word| !word.is_empty()).all(id);
    starts_with_any(value, &prefixes) || fingerprints
}

/// True for a path or URL that contains no credential.
fn is_location(value: &str) -> bool {
    let roots = [
        "/run/",
        "/var/",
        "/etc/",
        "/opt/",
        "/usr/",
        "/app",
        "/home/",
        "/root/",
        "/tmp/",
        "/data",
        "/mnt/",
        "/secrets",
        "/vault",
        "/srv/",
        "/config",
        "/certs",
        "/keys",
        "/proc/",
        "/dev/",
        "/workspace",
        "/code",
        "./",
        "../",
        "~/",
        "file:",
        "s3://",
        "gs://",
    ];
    let ends =
        [".pem", ".key", ".crt", ".json", ".txt", ".jks", ".p12", ".asc", ".gpg", ".pub", ".yml", ".yaml"];
    let address = starts_with_any(value, &["http://", "https://", "hkp://", "hkps://"])
        && !value.contains('@')
        && !value.contains('?');
    let file = !value.contains(char::is_whitespace) && ends.iter().any(|end| value.ends_with(end));
    starts_with_any(value, &roots) || file || address
}

fn is_switch(value: &str) -> bool {
    [
        "0",
        "1",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "required",
        "optional",
        "disabled",
        "enabled",
        "auto",
        "default",
        "bearer",
        "basic",
        "jwt",
        "env",
        "vault",
        "file",
        "sha256",
        "sha512",
        "scram-sha-256",
        "md5",
        "never",
        "always",
        "allow",
        "deny",
        "prompt",
    ]
    .contains(&value.to_ascii_lowercase().as_str())
}

fn starts_with_any(value: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| value.starts_with(prefix))
}

/// True if a value is long, mixed and of high entropy. This alone proves nothing: digests look the same.
pub(crate) fn looks_random(value: &str) -> bool {
    let digits = value.bytes().any(|c| c.is_ascii_digit());
    let letters = value.bytes().any(|c| c.is_ascii_alphabetic());
    let one_word = !value.contains(char::is_whitespace);
    value.len() >= 16 && digits && letters && one_word && entropy(value) >= 3.0
}

/// Returns the Shannon entropy in bits per character.
pub(crate) fn entropy(value: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let total = f64::from(u32::try_from(value.len()).unwrap_or(u32::MAX));
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / total);
    shares.map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_say() {
        use Strength::{Strong, Weak};
        for (names, expected) in [
            (
                "DB_PASSWORD PGPASSWORD dbPassword RUNNER_TOKEN TOKEN2 SECRET_KEY API_KEY GPG_PASSPHRASE",
                Some(Strong),
            ),
            (
                "MYSQL_PWD DB_PASS _authToken R2_SECRET_ACCESS_KEY SECRET_KEY_BASE GPG_PRIVATE_KEY",
                Some(Strong),
            ),
            ("WEBHOOK_KEY R2_ACCESS_KEY_ID ERLANG_COOKIE AccessKey", Some(Weak)),
            ("PATH LANG PYTHONPATH PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED PWD OLDPWD", None),
            (
                "GPG_KEY GPG_KEYS PYTHON_VERSION PYTHON_SHA256 KEYRING_PATH MONKEY_PATCH BYPASS TOKENIZERS_PARALLELISM",
                None,
            ),
            (
                "PUBLIC_KEY CACHE_KEY DB_PASSWORD_FILE TOKEN_URL SECRET_NAME MAX_TOKEN_LENGTH PASSWORD_MIN_LENGTH",
                None,
            ),
        ] {
            for name in names.split(' ') {
                assert_eq!(strength(name), expected, "{name}");
            }
        }
    }
}
