//! Accounts, their buckets and tokens, and the log of requests. With a file, everything except the call log
//! survives a restart.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use keyturn_emulator::Faults;
use serde::{Deserialize, Serialize};

use crate::Rule;
use crate::faults::Fault;

/// One account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The bearer token that may administer tokens.
    pub admin: String,
    /// Buckets of all jurisdictions; the S3 endpoint shows each of them as empty.
    pub buckets: Vec<Bucket>,
    /// All tokens that were created here, oldest first, including deleted and expired ones.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// Number of tokens that were created here so far.
    #[serde(default)]
    pub made: u64,
}

/// A bucket of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bucket {
    /// Name, as it is in the path of S3 requests.
    pub name: String,
    /// Jurisdiction, such as `eu`; `default` if it has none.
    #[serde(default = "default_jurisdiction")]
    pub jurisdiction: String,
}

fn default_jurisdiction() -> String {
    "default".to_owned()
}

/// An API token of an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// 32 hexadecimal digits; also R2's access key ID.
    pub id: String,
    /// Name that its creator chose; several tokens may have the same name.
    pub name: String,
    /// Secret bearer token for Cloudflare's API, which shows it only in the answer to the creation.
    pub value: String,
    /// Time of its creation by the emulator's clock, in whole seconds.
    pub issued_on: DateTime<Utc>,
    /// Time at which it expires, by the emulator's clock; `None` if it does not expire.
    pub expires_on: Option<DateTime<Utc>>,
    /// Time of its deletion; S3 learns of it later.
    pub deleted_at: Option<DateTime<Utc>>,
    /// The policies as the request gave them.
    pub policies: serde_json::Value,
}

impl Token {
    /// Returns R2's secret access key for this token.
    pub fn secret_access_key(&self) -> String {
        hex::encode(digest(&SHA256, self.value.as_bytes()))
    }
}

/// Settings of the emulator's behaviour.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Delay until S3 knows of a new or a deleted token, in milliseconds.
    pub propagation_ms: i64,
    /// Maximum number of tokens of an account.
    pub most_tokens: usize,
    /// Seconds by which the clock is ahead.
    pub offset_seconds: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { propagation_ms: 0, most_tokens: 500, offset_seconds: 0 }
    }
}

/// One request, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Time at which the request was handled, by the emulator's clock.
    pub at: DateTime<Utc>,
    /// Operation, such as `CreateToken` or `ListObjects`.
    pub operation: String,
    /// ID of a token, its name in a creation, or a bucket.
    pub about: String,
    /// HTTP status, or 0 without an answer.
    pub status: u16,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub accounts: BTreeMap<String, Account>,
    #[serde(default)]
    pub settings: Settings,
    #[serde(default)]
    pub faults: Faults<Fault>,
}

#[derive(Default)]
struct Inner {
    kept: Kept,
    calls: Vec<Call>,
}

/// The whole state of the emulator.
#[derive(Default)]
pub struct World {
    inner: Mutex<Inner>,
    file: Option<PathBuf>,
}

impl World {
    /// Reads the state from the file, if there is one.
    pub fn open(file: Option<PathBuf>) -> std::io::Result<Self> {
        let kept = match file.as_ref().map(std::fs::read) {
            Some(Ok(bytes)) => serde_json::from_slice(&bytes)?,
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Some(Err(_)) | None => Kept::default(),
        };
        Ok(Self { inner: Mutex::new(Inner { kept, ..Inner::default() }), file })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&self.lock().kept)
    }

    /// Changes the state that is kept, and writes it to the file.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        let mut inner = self.lock();
        let changed = change(&mut inner.kept);
        if let Some(file) = &self.file {
            // A half-written file after a kill would be worse than an old one.
            let new = file.with_extension("new");
            let written = serde_json::to_vec(&inner.kept).map_err(std::io::Error::from).and_then(|bytes| {
                let mut to = std::fs::OpenOptions::new();
                to.write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(&bytes)
            });
            if let Err(error) = written.and_then(|()| std::fs::rename(&new, file)) {
                eprintln!("{} cannot be written: {error}", file.display());
            }
        }
        changed
    }

    /// Returns the time by the emulator's clock: the system's plus `offset_seconds`.
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::seconds(self.lock().kept.settings.offset_seconds)
    }

    /// Creates an account, or replaces its administrator and buckets; its tokens stay.
    pub fn put_account(&self, id: &str, admin: &str, buckets: &[Bucket]) {
        self.change(|kept| {
            let account = kept.accounts.entry(id.to_owned()).or_default();
            admin.clone_into(&mut account.admin);
            account.buckets = buckets.to_vec();
        });
    }

    /// Creates a token as a person would, and returns it: a pair that was in use before keyturn.
    pub fn make_token(&self, account: &str, name: &str, policies: serde_json::Value) -> Option<Token> {
        let now = self.now();
        self.change(|kept| {
            let account = kept.accounts.get_mut(account)?;
            account.made += 1;
            let token = Token {
                id: random_hex(16),
                name: name.to_owned(),
                value: random_hex(20),
                issued_on: now.trunc_subsecs(0),
                expires_on: None,
                deleted_at: None,
                policies,
            };
            account.tokens.push(token.clone());
            Some(token)
        })
    }

    /// Deletes a token as a person would.
    pub fn delete_token(&self, account: &str, id: &str) -> bool {
        let now = self.now();
        self.change(|kept| {
            let tokens = kept.accounts.get_mut(account).map(|account| account.tokens.iter_mut());
            let found =
                tokens.into_iter().flatten().find(|token| token.id == id && token.deleted_at.is_none());
            found.map(|token| token.deleted_at = Some(now)).is_some()
        })
    }

    /// Returns the tokens of an account that are not deleted, oldest first.
    pub fn tokens(&self, account: &str) -> Vec<Token> {
        self.read(|kept| {
            let tokens = kept.accounts.get(account).map(|account| account.tokens.iter());
            tokens.into_iter().flatten().filter(|token| token.deleted_at.is_none()).cloned().collect()
        })
    }

    /// Returns the number of tokens that were ever created in an account.
    pub fn made(&self, account: &str) -> u64 {
        self.read(|kept| kept.accounts.get(account).map_or(0, |account| account.made))
    }

    /// Replaces all settings.
    pub fn set_settings(&self, settings: Settings) {
        self.change(|kept| kept.settings = settings);
    }

    /// Adds a rule after the others; the first rule that matches is used.
    pub fn add_fault(&self, rule: Rule) {
        self.change(|kept| kept.faults.add(rule));
    }

    /// Removes all rules, of every account.
    pub fn clear_faults(&self) {
        self.change(|kept| kept.faults.clear());
    }

    /// Clears the rules that name this account.
    pub fn clear_faults_of(&self, account: &str) {
        self.change(|kept| kept.faults.clear_on(account));
    }

    /// Returns the rules in force, oldest first.
    pub fn faults(&self) -> Vec<Rule> {
        self.read(|kept| kept.faults.rules().to_vec())
    }

    pub(crate) fn hit(&self, operation: &str, account: &str) -> Option<Fault> {
        let none = self.read(|kept| kept.faults.rules().is_empty());
        if none { None } else { self.change(|kept| kept.faults.hit(operation, account)) }
    }

    pub(crate) fn log(&self, call: Call) {
        self.lock().calls.push(call);
    }

    /// Returns a copy of the log, oldest request first.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// Clears the log of requests.
    pub fn clear_calls(&self) {
        self.lock().calls.clear();
    }

    /// Restores the state of the first start.
    pub fn reset(&self) {
        self.change(|kept| *kept = Kept::default());
        self.clear_calls();
    }
}

/// Returns this many random bytes in hexadecimal.
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    // Without randomness the emulator is useless.
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    hex::encode(random)
}
