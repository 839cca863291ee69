//! Parameter Stores by region with the AWS default credential chain: environment, profile, web identity (IRSA),
//! container (EKS Pod Identity), instance metadata. `AWS_ENDPOINT_URL_SSM`, `AWS_ENDPOINT_URL` and proxy variables are
//! respected.

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
/// without showing whether it was applied.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);

/// The account's Parameter Stores, one per region. Each has its own request budget, since AWS counts requests by
/// region.
pub struct Stores {
    config: SdkConfig,
    /// The staging path, which has the key of the stamps.
    staging: String,
    limits: CallLimits,
    rates: Rates,
    calls: SsmCalls,
    guard: WriteGuard,
    by_region: Mutex<HashMap<String, Arc<SsmParameterStore>>>,
}

impl Stores {
    /// Reads the environment once. It cannot fail: credentials are resolved and renewed when calls need them.
    pub async fn from_environment(staging: &str, limits: CallLimits, rates: Rates, calls: SsmCalls) -> Self {
        let config =
            aws_config::defaults(BehaviorVersion::latest()).http_client(shared_http_client()).load().await;
        Self::new(config, staging, limits, rates, calls)
    }

    /// Uses an existing configuration.
    pub fn new(config: SdkConfig, staging: &str, limits: CallLimits, rates: Rates, calls: SsmCalls) -> Self {
        let config = match config.http_client() {
            Some(_) => config,
            None => config.to_builder().http_client(shared_http_client()).build(),
        };
        let guard: WriteGuard = Arc::new(|| true);
        Self { config, staging: staging.to_owned(), limits, rates, calls, guard, by_region: Mutex::default() }
    }

    /// Calls `guard` right before each write request, in every region that is opened from now on.
    pub fn guarded_by(mut self, guard: WriteGuard) -> Self {
        self.guard = guard;
        self
    }

    /// Returns the region that the environment names, if any.
    pub fn default_region(&self) -> Option<&str> {
        self.config.region().map(AsRef::as_ref)
    }

    /// Returns the Parameter Store of a region; every caller gets the same one.
    pub fn region(&self, region: &str) -> Arc<dyn ParameterStore> {
        // The map stays valid if a thread panics while it holds the lock.
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

/// Creates one connection pool for all regions and for the sources of credentials.
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
