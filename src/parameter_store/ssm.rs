//! Implements [`ParameterStore`] with AWS SSM.
//!
//! The SDK's own retries are off for every call: they would send a timed-out Put again, and bypass the request budget.
//! Instead this module retries a request a few times, with backoff, and only if it was certainly not applied: it was
//! throttled (including TooManyUpdates, which the SDK never retries), it was never sent, or it was a read. A write
//! without an answer is [`StoreError::Unknown`] at once, after exactly one request; the caller has to read the history
//! to find out what happened.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation::put_parameter::builders::PutParameterFluentBuilder;
use aws_sdk_ssm::types::{ParameterStringFilter, ParameterTier, ParameterType};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use zeroize::Zeroize as _;

use super::answers::{Shown, malformed, shape, shape_of_the_latest, shown, time};
use super::budget::{Budget, Quota, SsmCalls};
use super::failure::Failure;
use super::filters::{Wanted, filter, filter_form};
use super::seal::{self, Said, Seal};
use super::{
    Created, FolderEntry, Kept, Listed, NAMES_IN_A_CALL, NewVersion, ParameterStore, StoreError,
    are_the_same, description,
};
use crate::rotation::observed::{Shape, Version};
use crate::secret_value::SecretValue;

/// SSM's largest page of DescribeParameters and GetParameterHistory.
const PAGE: i32 = 50;
/// SSM's largest page of GetParametersByPath.
const PAGE_OF_VALUES: i32 = 10;
/// Number of pages of one listing that are requested at the same time, as far as the request budget allows.
const LISTED_TOGETHER: usize = 4;
/// Number of retries of one call.
const RETRIES: u32 = 5;
const FIRST_RETRY_AFTER: Duration = Duration::from_millis(200);
/// Length of the key of the stamps.
const KEY_BYTES: usize = 32;

/// Time limits of a call. The grace period must be much longer than [`CallLimits::longest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Time to connect.
    pub connect: Duration,
    /// Time of one request, from connecting to the last byte of the answer.
    pub attempt: Duration,
    /// Age of a call after which it sends no further request; the wait for the request budget counts too.
    pub total: Duration,
}

impl CallLimits {
    /// Returns the longest time after the beginning of a call for which one of its requests can still be alive.
    pub fn longest(&self) -> Duration {
        self.total + self.attempt
    }

    /// Returns limits well below the grace period: about half of it, and never longer than SSM needs.
    pub fn below(grace: Duration) -> Self {
        let ample = Self::default();
        let attempt = ample.attempt.min(grace / 5);
        Self { connect: ample.connect.min(attempt / 2), attempt, total: ample.total.min(grace / 3) }
    }
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(10),
            total: Duration::from_secs(45),
        }
    }
}

/// Returns true when a write may still be sent. It is called once the write has its turn: leadership may have been lost
/// during the wait for the request budget.
pub type WriteGuard = Arc<dyn Fn() -> bool + Send + Sync>;

/// The Parameter Store of one account and region.
pub struct SsmParameterStore {
    client: Client,
    budget: Arc<Budget>,
    limits: CallLimits,
    calls: SsmCalls,
    guard: WriteGuard,
    /// Path of the key of the stamps.
    key_path: String,
    seal: OnceCell<Seal>,
    /// The version of each path whose value was last verified against its stamp: its number, and SSM's time of it.
    checked: Mutex<HashMap<String, (i64, DateTime<Utc>)>>,
}

/// Properties that all requests of one call share.
struct Call<'a> {
    operation: &'static str,
    quota: Quota,
    path: &'a str,
    /// A value that messages must not quote.
    secret: Option<&'a SecretValue>,
    /// Error codes that count as an answer to this call.
    answers: &'static [&'static str],
}

impl SsmParameterStore {
    /// Creates a store from a client configuration (region, credentials, endpoint). Its timeouts and retries are
    /// replaced.
    pub fn new(
        config: aws_sdk_ssm::config::Builder,
        staging: &str,
        limits: CallLimits,
        budget: Arc<Budget>,
        calls: SsmCalls,
    ) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(limits.connect)
            .operation_attempt_timeout(limits.attempt)
            .operation_timeout(limits.attempt)
            .build();
        let config = config.timeout_config(timeouts).retry_config(RetryConfig::disabled()).build();
        Self {
            client: Client::from_conf(config),
            budget,
            limits,
            calls,
            guard: Arc::new(|| true),
            key_path: seal::key_path(staging),
            seal: OnceCell::new(),
            checked: Mutex::default(),
        }
    }

    /// Calls `guard` right before each write request, which is not sent if the guard refuses.
    pub fn guarded_by(mut self, guard: WriteGuard) -> Self {
        self.guard = guard;
        self
    }

    /// Sends a request until it is answered, must not be retried, or has no time left. `Ok(None)` means one of the
    /// call's `answers`.
    async fn call<T, E, F>(&self, call: Call<'_>, send: impl Fn() -> F) -> Result<Option<T>, StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let deadline = Instant::now() + self.limits.total;
        let write = matches!(call.quota, Quota::Put | Quota::Delete);
        let mut last: Option<Failure> = None;
        for retry in 0..=RETRIES {
            if retry > 0 {
                let pause = pause_before(retry);
                if Instant::now() + pause >= deadline {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            if tokio::time::timeout_at(deadline, self.budget.turn(call.quota)).await.is_err() {
                break;
            }
            if write && !(self.guard)() {
                return Err(StoreError::Unavailable {
                    operation: call.operation,
                    path: call.path.to_owned(),
                    detail: "not sent, since this replica does not lead any more".to_owned(),
                });
            }
            let error = match send().await {
                Ok(answer) => {
                    self.calls.count(call.operation, "ok");
                    return Ok(Some(answer));
                }
                Err(error) => error,
            };
            let failure = Failure::of(&error, write, call.secret);
            if failure.code.as_deref().is_some_and(|code| call.answers.contains(&code)) {
                self.calls.count(call.operation, "ok");
                return Ok(None);
            }
            self.calls.count(call.operation, failure.result());
            if !failure.is_worth_another_try() {
                return Err(failure.into_error(call.operation, call.path));
            }
            last = Some(failure);
        }
        Err(match last {
            Some(failure) => failure.into_error(call.operation, call.path),
            None => StoreError::OutOfBudget {
                operation: call.operation,
                path: call.path.to_owned(),
                seconds: self.limits.total.as_secs(),
            },
        })
    }

    /// Returns the key of the stamps, and creates it if there is none. `None` if there is none and this replica must
    /// not create it.
    async fn seal(&self) -> Result<Option<&Seal>, StoreError> {
        if let Some(seal) = self.seal.get() {
            return Ok(Some(seal));
        }
        let path = &self.key_path;
        let mut key = self.get(path, None).await?;
        if key.is_none() {
            if !(self.guard)() {
                return Ok(None);
            }
            let new = NewVersion {
                path,
                value: &random_key(path)?,
                text: "Key of the stamps in descriptions: anybody who has it can forge them".to_owned(),
                stamp: None,
                kms_key_id: None,
            };
            self.create(new).await?;
            key = self.get(path, None).await?;
        }
        let (value, made_at) = key.ok_or_else(|| StoreError::Unavailable {
            operation: "GetParameter",
            path: path.clone(),
            detail: "the key of the stamps was created, but SSM reads do not show it yet (eventual \
                     consistency)"
                .to_owned(),
        })?;
        Ok(Some(self.seal.get_or_init(|| async { Seal::new(&value, made_at) }).await))
    }

    /// Parses a version's description; returns it with the tag of the value for which its stamp was made.
    async fn understand(&self, path: &str, shown: Shown) -> Result<(Version, Option<String>), StoreError> {
        let Shown { number, modified, description } = shown;
        let said = match description::parse(&description) {
            None => Said::plain(&description),
            Some(written) => match self.seal().await? {
                Some(seal) => seal.judge(path, written, modified),
                // As long as there is no key, stamps without a seal count as those of an earlier release.
                None => {
                    let is_ours = written.seal.is_none();
                    Said::stamped(written, is_ours)
                }
            },
        };
        let Said { text, stamp, claim, value } = said;
        Ok((Version { number, modified, text, stamp, claim }, value))
    }

    /// Demotes the stamp of the latest version to a claim if it was made for another value.
    async fn compare_value(
        &self,
        path: &str,
        latest: &mut Version,
        tag: Option<String>,
    ) -> Result<(), StoreError> {
        let version = (latest.number, latest.modified);
        let checked = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(tag), Some(stamp)) = (tag, latest.stamp.clone()) else { return Ok(()) };
        // A stamp made for another version proves nothing anyway.
        if stamp.version != latest.number || checked().get(path) == Some(&version) {
            return Ok(());
        }
        let value = match self.read(path, Some(latest.number)).await {
            Ok(Some(value)) => value,
            // Nobody can read the value, and nobody was given it, so the stamp is believed.
            Ok(None) | Err(StoreError::Denied { .. } | StoreError::Rejected { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(seal) = self.seal().await? else { return Ok(()) };
        if seal.is_of(path, &value, &tag) {
            checked().insert(path.to_owned(), version);
        } else {
            (latest.stamp, latest.claim) = (None, Some(stamp.owner));
        }
        Ok(())
    }

    /// Returns the value of a version, or of the latest one, and SSM's time of it.
    async fn get(
        &self,
        path: &str,
        version: Option<i64>,
    ) -> Result<Option<(SecretValue, DateTime<Utc>)>, StoreError> {
        let name = match version {
            Some(version) => format!("{path}:{version}"),
            None => path.to_owned(),
        };
        let call = Call {
            operation: "GetParameter",
            quota: Quota::Read,
            path: &name,
            secret: None,
            answers: &["ParameterNotFound", "ParameterVersionNotFound"],
        };
        let answer =
            self.call(call, || self.client.get_parameter().name(&name).with_decryption(true).send()).await?;
        let Some(answer) = answer else { return Ok(None) };
        let parameter = answer.parameter.ok_or_else(|| malformed("GetParameter", &name))?;
        let modified = parameter.last_modified_date().and_then(time);
        let value = parameter.value.map(SecretValue::new);
        value.zip(modified).map(Some).ok_or_else(|| malformed("GetParameter", &name))
    }

    /// Builds the Put request, without `overwrite` and `tier`.
    async fn put(&self, new: &NewVersion<'_>) -> Result<PutParameterFluentBuilder, StoreError> {
        let description = match &new.stamp {
            None => new.text.clone(),
            Some(stamp) => {
                let seal = self.seal().await?.ok_or_else(|| StoreError::Unavailable {
                    operation: "PutParameter",
                    path: new.path.to_owned(),
                    detail: "not sent, since this replica does not lead any more".to_owned(),
                })?;
                seal.describe(new.path, new.value, &new.text, stamp)
            }
        };
        Ok(self
            .client
            .put_parameter()
            .name(new.path)
            .value(new.value.expose())
            .r#type(ParameterType::SecureString)
            .description(description)
            .set_key_id(new.kms_key_id.map(str::to_owned)))
    }

    /// Returns all versions that SSM keeps, and the tag of the value for which the latest version's stamp was made.
    async fn understand_history(&self, path: &str) -> Result<(Kept, Option<String>), StoreError> {
        let kept = self.shown_history(path).await?;
        let shape = shape_of_the_latest(&kept);
        let (mut versions, mut tag) = (Vec::with_capacity(kept.len()), None);
        for (shown, _) in kept {
            let (version, of_its_value) = self.understand(path, shown).await?;
            versions.push(version);
            tag = of_its_value;
        }
        Ok((Kept { versions, shape }, tag))
    }

    /// Returns SSM's data of every version that it keeps, oldest first; empty if the parameter does not exist.
    async fn shown_history(&self, path: &str) -> Result<Vec<(Shown, Shape)>, StoreError> {
        const OPERATION: &str = "GetParameterHistory";
        let mut kept: Vec<(Shown, Shape)> = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let call = Call {
                operation: OPERATION,
                quota: Quota::Read,
                path,
                secret: None,
                answers: &["ParameterNotFound"],
            };
            let page = self
                .call(call, || {
                    self.client
                        .get_parameter_history()
                        .name(path)
                        .with_decryption(false)
                        .max_results(PAGE)
                        .set_next_token(token.clone())
                        .send()
                })
                .await?;
            let Some(page) = page else { return Ok(Vec::new()) };
            for entry in page.parameters() {
                let shown = shown(entry.version(), entry.last_modified_date(), entry.description());
                kept.push((shown.ok_or_else(|| malformed(OPERATION, path))?, shape(entry)));
            }
            token = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        kept.sort_by_key(|(shown, _)| shown.number);
        kept.dedup_by_key(|(shown, _)| shown.number);
        Ok(kept)
    }

    /// Reads all pages of DescribeParameters with one filter; returns the paths, and SSM's data about each.
    async fn describe(&self, filter: ParameterStringFilter) -> Result<Vec<(String, Shown)>, StoreError> {
        const OPERATION: &str = "DescribeParameters";
        let about = filter.values().join(", ");
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let call = Call {
                operation: OPERATION,
                quota: Quota::Describe,
                path: &about,
                secret: None,
                answers: &[],
            };
            let page = self
                .call(call, || {
                    self.client
                        .describe_parameters()
                        .parameter_filters(filter.clone())
                        .max_results(PAGE)
                        .set_next_token(token.clone())
                        .send()
                })
                .await?
                .ok_or_else(|| malformed(OPERATION, &about))?;
            for metadata in page.parameters() {
                let name = metadata.name().ok_or_else(|| malformed(OPERATION, &about))?;
                let shown = shown(metadata.version(), metadata.last_modified_date(), metadata.description())
                    .ok_or_else(|| malformed(OPERATION, name))?;
                found.push((name.to_owned(), shown));
            }
            // Filtered pages may be empty and still have a successor; only a missing token ends the list.
            token = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                return Ok(found);
            }
        }
    }
}

#[async_trait]
impl ParameterStore for SsmParameterStore {
    async fn list(&self, wanted: &[String]) -> Result<Vec<Listed>, StoreError> {
        let wanted = Wanted::new(wanted);
        let folders =
            wanted.folders.chunks(NAMES_IN_A_CALL).map(|folders| filter("Path", "Recursive", folders));
        let names = wanted.names.chunks(NAMES_IN_A_CALL).map(|names| filter("Name", "Equals", names));
        let filters: Vec<ParameterStringFilter> = folders.chain(names).collect::<Result<_, _>>()?;
        let found = stream::iter(filters).map(|filter| self.describe(filter)).buffered(LISTED_TOGETHER);
        let found: Vec<Vec<(String, Shown)>> = found.try_collect().await?;
        // Each parameter once, in order of path.
        let found: BTreeMap<String, Shown> = found.into_iter().flatten().collect();
        let mut listed = Vec::with_capacity(found.len());
        for (path, shown) in found {
            let (latest, _) = self.understand(&path, shown).await?;
            listed.push(Listed { path, latest });
        }
        Ok(listed)
    }

    async fn read_folder(&self, folder: &str) -> Result<Vec<FolderEntry>, StoreError> {
        const OPERATION: &str = "GetParametersByPath";
        let path = filter_form(folder);
        let (mut found, mut token) = (Vec::new(), None::<String>);
        loop {
            let call =
                Call { operation: OPERATION, quota: Quota::Read, path: folder, secret: None, answers: &[] };
            let page = self
                .call(call, || {
                    self.client
                        .get_parameters_by_path()
                        .path(path)
                        .recursive(true)
                        .with_decryption(true)
                        .max_results(PAGE_OF_VALUES)
                        .set_next_token(token.clone())
                        .send()
                })
                .await?
                .ok_or_else(|| malformed(OPERATION, folder))?;
            token = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            for parameter in page.parameters.unwrap_or_default() {
                let modified = parameter.last_modified_date().and_then(time);
                let (path, value) = (parameter.name, parameter.value.map(SecretValue::new));
                let staged = path.zip(value).zip(modified);
                let ((path, value), modified) = staged.ok_or_else(|| malformed(OPERATION, folder))?;
                found.push(FolderEntry { path, modified, value });
            }
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    async fn kept(&self, path: &str) -> Result<Kept, StoreError> {
        let (mut kept, tag) = self.understand_history(path).await?;
        if let Some(latest) = kept.versions.last_mut() {
            self.compare_value(path, latest, tag).await?;
        }
        Ok(kept)
    }

    async fn keeps(&self, path: &str, versions: &[&Version]) -> Result<bool, StoreError> {
        let (kept, _) = self.understand_history(path).await?;
        let is_so = are_the_same(&kept.versions, versions);
        if let Some(latest) = kept.versions.last().filter(|_| is_so) {
            // Since this process put its own value, nobody has put another one.
            let checked = &mut self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            checked.insert(path.to_owned(), (latest.number, latest.modified));
        }
        Ok(is_so)
    }

    async fn read(&self, path: &str, version: Option<i64>) -> Result<Option<SecretValue>, StoreError> {
        Ok(self.get(path, version).await?.map(|(value, _)| value))
    }

    async fn create(&self, new: NewVersion<'_>) -> Result<Created, StoreError> {
        let call = Call {
            operation: "PutParameter",
            quota: Quota::Put,
            path: new.path,
            secret: Some(new.value),
            answers: &["ParameterAlreadyExists"],
        };
        let put = self.put(&new).await?.overwrite(false).tier(ParameterTier::Standard);
        let answer = self.call(call, || put.clone().send()).await?;
        Ok(if answer.is_some() { Created::Created } else { Created::Exists })
    }

    async fn overwrite(&self, new: NewVersion<'_>) -> Result<i64, StoreError> {
        let call = Call {
            operation: "PutParameter",
            quota: Quota::Put,
            path: new.path,
            secret: Some(new.value),
            answers: &[],
        };
        // No tier is given: an Advanced parameter stays Advanced, while Standard would be refused as a downgrade.
        let put = self.put(&new).await?.overwrite(true);
        let answer = self.call(call, || put.clone().send()).await?;
        // The write was answered without a version, so its outcome is unknown.
        answer.map(|answer| answer.version()).filter(|&version| version > 0).ok_or_else(|| {
            StoreError::Unknown {
                operation: "PutParameter",
                path: new.path.to_owned(),
                detail: "SSM answered without a version".to_owned(),
            }
        })
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let call = Call {
            operation: "DeleteParameter",
            quota: Quota::Delete,
            path,
            secret: None,
            answers: &["ParameterNotFound"],
        };
        self.call(call, || self.client.delete_parameter().name(path).send()).await.map(drop)
    }
}

fn random_key(path: &str) -> Result<SecretValue, StoreError> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Unavailable {
        operation: "PutParameter",
        path: path.to_owned(),
        detail: format!("the operating system gives no random bytes: {error}"),
    })?;
    let key = SecretValue::new(hex::encode(bytes));
    bytes.zeroize();
    Ok(key)
}

/// Returns the backoff before a retry: 200 ms, doubled for each further retry, minus a random part of up to half of it
/// so that workers do not retry in step.
fn pause_before(retry: u32) -> Duration {
    let full = FIRST_RETRY_AFTER * 2_u32.saturating_pow(retry.saturating_sub(1));
    let random = getrandom::u32().unwrap_or_default();
    full - full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
#[path = "ssm_tests.rs"]
mod tests;
