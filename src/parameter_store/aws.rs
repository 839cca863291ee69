//! Parameter Stores by region over the AWS default chain: environment, profile, web identity (IRSA), container
//! (EKS Pod Identity), instance metadata. `AWS_ENDPOINT_URL_SSM`, `AWS_ENDPOINT_URL` and proxy variables count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::ParameterStore;
use super::budget::{Budget, Rates, SsmCalls};
use super::ssm::{CallLimits, SsmParameterStore, WriteGuard};

/// Shorter than the idle time after which AWS closes a connection: a Put on a connection that was just closed fails
/// without telling whether it was applied.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);

/// The account's Parameter Stores, one per region, each with a request budget of its own, since AWS counts by region.
pub struct Stores {
    config: SdkConfig,
    /// Where the key of the stamps lies.
    staging: String,
    limits: CallLimits,
    rates: Rates,
    calls: SsmCalls,
    guard: WriteGuard,
    by_region: Mutex<HashMap<String, Arc<SsmParameterStore>>>,
}

impl Stores {
    /// Reads the environment once. Credentials are resolved and renewed when calls need them, so this cannot fail.
    pub async fn from_environment(staging: &str, limits: CallLimits, rates: Rates, calls: SsmCalls) -> Self {
        let config =
            aws_config::defaults(BehaviorVersion::latest()).http_client(shared_http_client()).load().await;
        Self::new(config, staging, limits, rates, calls)
    }

    /// Stores over a configuration that is already there.
    pub fn new(config: SdkConfig, staging: &str, limits: CallLimits, rates: Rates, calls: SsmCalls) -> Self {
        let config = match config.http_client() {
            Some(_) => config,
            None => config.to_builder().http_client(shared_http_client()).build(),
        };
        let guard: WriteGuard = Arc::new(|| true);
        Self { config, staging: staging.to_owned(), limits, rates, calls, guard, by_region: Mutex::default() }
    }

    /// Asks `guard` right before each request that writes, in every region opened from now on.
    pub fn guarded_by(mut self, guard: WriteGuard) -> Self {
        self.guard = guard;
        self
    }

    /// The region that the environment names, if any.
    pub fn default_region(&self) -> Option<&str> {
        self.config.region().map(AsRef::as_ref)
    }

    /// The Parameter Store of a region; the same one for every caller.
    pub fn region(&self, region: &str) -> Arc<dyn ParameterStore> {
        // A panic elsewhere leaves the map whole.
        let mut by_region = self.by_region.lock().unwrap_or_else(PoisonError::into_inner);
        by_region.entry(region.to_owned()).or_insert_with(|| Arc::new(self.open(region))).clone()
    }

    fn open(&self, region: &str) -> SsmParameterStore {
        let config = aws_sdk_ssm::config::Builder::from(&self.config).region(Region::new(region.to_owned()));
        let budget = Arc::new(Budget::new(self.rates));
        SsmParameterStore::new(config, &self.staging, self.limits, budget, self.calls.clone())
            .guarded_by(self.guard.clone())
    }
}

/// One connection pool for all regions and for whatever fetches credentials.
pub(crate) fn shared_http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .pool_idle_timeout(IDLE_CONNECTION);
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    })
}
