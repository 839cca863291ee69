//! Reads CloudTrail's LookupEvents one page at a time, below the rate limit that all callers in the AWS account share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::config::retry::RetryConfig;
use aws_sdk_cloudtrail::config::timeout::TimeoutConfig;
use aws_sdk_cloudtrail::error::ProvideErrorMetadata;
use aws_sdk_cloudtrail::primitives::DateTime as AwsTime;
use aws_sdk_cloudtrail::types::{LookupAttribute, LookupAttributeKey};
use keyturn_reconcile::incident::event;
use keyturn_reconcile::incident::reading::Query;
use keyturn_reconcile::incident::trail::{Page, Trail, TrailError};
use tokio::time::Instant;

/// Minimum time between two calls: AWS allows two a second for each account and region.
const BETWEEN_CALLS: Duration = Duration::from_millis(600);
const PAGE: i32 = 50;
const ATTEMPT: Duration = Duration::from_secs(8);

/// CloudTrail by region, with the AWS default credential chain. `AWS_ENDPOINT_URL_CLOUDTRAIL` is respected.
pub struct CloudTrail {
    config: SdkConfig,
    regions: Mutex<HashMap<String, Arc<InRegion>>>,
}

struct InRegion {
    client: Client,
    next_call: tokio::sync::Mutex<Instant>,
}

impl CloudTrail {
    /// Reads the environment once; credentials are resolved when calls need them.
    pub async fn from_environment() -> Self {
        let http = crate::parameter_store::aws::shared_http_client();
        Self::new(aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await)
    }

    /// Uses an existing configuration.
    pub fn new(config: SdkConfig) -> Self {
        Self { config, regions: Mutex::default() }
    }

    fn region(&self, name: &str) -> Arc<InRegion> {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || {
            let timeouts =
                TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).operation_timeout(ATTEMPT);
            let config = aws_sdk_cloudtrail::config::Builder::from(&self.config)
                .region(Region::new(name.to_owned()))
                .timeout_config(timeouts.build())
                .retry_config(RetryConfig::disabled())
                .build();
            let next_call = tokio::sync::Mutex::new(Instant::now());
            Arc::new(InRegion { client: Client::from_conf(config), next_call })
        };
        regions.entry(name.to_owned()).or_insert_with(open).clone()
    }
}

#[async_trait]
impl Trail for CloudTrail {
    async fn page(&self, query: &Query, token: Option<&str>) -> Result<Page, TrailError> {
        let region = self.region(&query.region);
        {
            let mut next_call = region.next_call.lock().await;
            tokio::time::sleep_until(*next_call).await;
            *next_call = Instant::now() + BETWEEN_CALLS;
        }
        let of = || query.region.clone();
        let attribute = LookupAttribute::builder()
            .attribute_key(LookupAttributeKey::EventName)
            .attribute_value(&query.event)
            .build()
            .map_err(|error| TrailError::Failed { region: of(), detail: error.to_string() })?;
        let answer = region
            .client
            .lookup_events()
            .lookup_attributes(attribute)
            .start_time(AwsTime::from_secs(query.from.timestamp()))
            .end_time(AwsTime::from_secs(query.to.timestamp()))
            .max_results(PAGE)
            .set_next_token(token.map(str::to_owned))
            .send()
            .await;
        match answer {
            Ok(page) => {
                let calls = page.events().iter().map(|event| event.cloud_trail_event().and_then(event::read));
                Ok(Page { calls: calls.collect(), next: page.next_token().map(str::to_owned) })
            }
            Err(error) => Err(match error.code() {
                Some("ThrottlingException" | "Throttling" | "TooManyRequestsException") => {
                    TrailError::Throttled { region: of() }
                }
                Some("AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation") => {
                    TrailError::Denied { region: of() }
                }
                _ => TrailError::Failed { region: of(), detail: reasons(&error) },
            }),
        }
    }
}

/// Returns an error and its causes as one line of text.
fn reasons(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
