//! Opens an account of Cloudflare for a secret: reads the administering token. The addresses of Cloudflare's services
//! are arguments of the controller.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;

use super::{CloudflareR2, Connection, Endpoints, Limits};
use crate::api::ManagedSecret;
use crate::api::source::cloudflare_r2::{ADMINISTRATOR, CloudflareR2Spec};
use crate::secret_value::SecretValue;
use crate::source::access::{Access, namespace_of};
use crate::source::{Open, Target, TargetError};

/// Arguments of the R2 sources.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Address of Cloudflare's API
    #[arg(
        long,
        env = "KEYTURN_CLOUDFLARE_API_URL",
        value_parser = url,
        default_value = "https://api.cloudflare.com/client/v4"
    )]
    cloudflare_api_url: String,

    /// Address of R2's S3 endpoint. keyturn replaces `{account}` and `{jurisdiction}` (empty, `.eu` or `.fedramp`)
    #[arg(
        long,
        env = "KEYTURN_R2_ENDPOINT",
        value_parser = r2_endpoint,
        default_value = "https://{account}{jurisdiction}.r2.cloudflarestorage.com"
    )]
    r2_endpoint: String,
}

impl Arguments {
    /// Returns the flags that take an address, each with its address.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("--cloudflare-api-url", self.cloudflare_api_url.as_str()),
            ("--r2-endpoint", self.r2_endpoint.as_str()),
        ]
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints { api: self.cloudflare_api_url.clone(), s3: self.r2_endpoint.clone() }
    }
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    if rest.is_empty() || rest.contains(char::is_whitespace) {
        return Err("must be a URL such as https://api.cloudflare.com/client/v4".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn r2_endpoint(text: &str) -> Result<String, String> {
    if text.matches("{account}").count() != 1 || text.matches("{jurisdiction}").count() > 1 {
        return Err(
            "must name {account} once, such as https://{account}{jurisdiction}.r2.cloudflarestorage.com"
                .into(),
        );
    }
    url(text)
}

/// Opens the accounts of all R2 sources, with one client for all: an account that is throttled pauses for all of them.
pub(crate) struct Opener {
    connection: Arc<Connection>,
}

impl Opener {
    pub(crate) fn new(arguments: &Arguments, grace: Duration) -> Result<Self, TargetError> {
        let connection = Connection::new(arguments.endpoints(), Limits::below(grace))?;
        Ok(Self { connection })
    }
}

#[async_trait]
impl Open for Opener {
    type Spec = CloudflareR2Spec;

    async fn open(
        &self,
        access: &Access,
        object: &ManagedSecret,
        spec: &CloudflareR2Spec,
        _region: &str,
    ) -> Result<Arc<dyn Target>, TargetError> {
        let admin = token(access, object, spec).await?;
        let admin = SecretValue::new(admin.expose().trim().to_owned());
        // A token that is never rotated again expires, but late enough for an overdue rotation.
        let period = object.spec.rotation.period.as_ref().and_then(|period| period.to_delta());
        let lifetime = period.map(|period| period * 2);
        let connection = self.connection.clone();
        Ok(Arc::new(CloudflareR2::new(spec, connection, admin, access.owner(object), lifetime)?))
    }

    async fn admin_secret(
        &self,
        access: &Access,
        object: &ManagedSecret,
        spec: &CloudflareR2Spec,
        _region: &str,
    ) -> Result<Option<SecretValue>, TargetError> {
        token(access, object, spec).await.map(Some)
    }
}

async fn token(
    access: &Access,
    object: &ManagedSecret,
    spec: &CloudflareR2Spec,
) -> Result<SecretValue, TargetError> {
    access.secret_text(namespace_of(object), &spec.token_secret_ref, ADMINISTRATOR).await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(given: &[&str]) -> Result<Arguments, String> {
        let program = ["keyturn"];
        let parsed = Cli::try_parse_from(program.iter().chain(given));
        parsed.map(|cli| cli.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn cloudflare_answers_where_the_operator_says_and_otherwise_at_its_own_addresses() {
        assert_eq!(parse(&[]).unwrap().endpoints(), Endpoints::default());
        let own = ["--cloudflare-api-url=http://10.0.0.1:1/v4/", "--r2-endpoint=http://10.0.0.1/{account}"];
        let arguments = parse(&own).unwrap();
        let (api, s3) = ("http://10.0.0.1:1/v4", "http://10.0.0.1/{account}");
        assert_eq!(arguments.endpoints(), Endpoints { api: api.to_owned(), s3: s3.to_owned() });
        assert_eq!(arguments.addresses(), [("--cloudflare-api-url", api), ("--r2-endpoint", s3)]);
        for bad in [
            "--cloudflare-api-url=api.cloudflare.com",
            "--r2-endpoint=https://r2.example",
            "--r2-endpoint={account}",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
