//! Values that are redacted from the output of hosts before anybody can see it: the published and earlier values of the
//! host's secrets, the passwords inside these values, and the credentials of administrators.

use std::collections::BTreeSet;

use keyturn_api::ManagedSecret;
use keyturn_image_audit::managed::{ManagedValues, Unsearched};
use keyturn_secret_value::SecretValue;
use kube::ResourceExt;

use super::TaskError;
use crate::deploy::collection::Collection;
use crate::deploy::wish::Wish;
use crate::docker_host::DockerHosts;
use crate::source;

/// Maximum number of values that log lines are searched for. With the fingerprints of more values, the Secret with the
/// task would be too large.
const MOST_IN_LOGS: usize = 1024;

impl DockerHosts {
    /// Returns fingerprints of every version that SSM has of the host's secrets, up to the published one. The versions
    /// of the suspected secret come first, since the log lines are about that secret. If SSM does not answer, nothing
    /// is collected. If there are more values than the maximum, no line is shown.
    pub(super) async fn secret_in_logs(
        &self,
        collection: &Collection,
        wishes: &[Wish],
        secrets: &[ManagedSecret],
    ) -> Result<ManagedValues, TaskError> {
        let mut unsearched = None;
        let mut values = Vec::new();
        for (wish, version) in self.versions(collection, wishes).await? {
            if values.len() >= MOST_IN_LOGS {
                unsearched = Some(Unsearched::TooMany);
                break;
            }
            let value = match self.store_of(wish).read(&wish.path, Some(version)).await {
                // A version that was deleted meanwhile cannot be read any more.
                Ok(None) => continue,
                Ok(Some(value)) => value,
                // The KMS key of an old version may be disabled, so such a version is left out. Without the published
                // version nothing is collected: it must be readable to be deployed.
                Err(error) if error.needs_a_person() && version != wish.version => {
                    unsearched.get_or_insert(Unsearched::Unreadable);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            values.extend(within(secrets, wish, &value).map(|within| (wish.path.clone(), within)));
            values.push((wish.path.clone(), value));
        }
        let managed = ManagedValues::new(&values, &self.key()?);
        let managed = match unsearched {
            Some(why) => managed.without(why),
            None => managed,
        };
        Ok(self.without_admin_secrets(managed, wishes, secrets).await)
    }

    /// Lists the versions of the suspected secret, then those of the other secrets. In both parts the newest version
    /// of each parameter comes first, then the second newest of each, and so on.
    async fn versions<'a>(
        &self,
        collection: &Collection,
        wishes: &'a [Wish],
    ) -> Result<Vec<(&'a Wish, i64)>, TaskError> {
        let mut versions = Vec::new();
        for wish in wishes {
            let mut of_wish = self.store_of(wish).history(&wish.path).await?;
            of_wish.retain(|version| version.number <= wish.version);
            let is_other = wish.secret != collection.about.secret;
            let newest_first = of_wish.iter().rev().enumerate();
            versions.extend(newest_first.map(|(age, version)| ((is_other, age), wish, version.number)));
        }
        versions.sort_by_key(|(place, _, _)| *place);
        Ok(versions.into_iter().map(|(_, wish, number)| (wish, number)).collect())
    }

    /// Adds the administrators' credentials for the secrets of these wishes to the values that are redacted. If a
    /// credential cannot be read, output is not shown, and everything else continues.
    pub(super) async fn without_admin_secrets(
        &self,
        mut managed: ManagedValues,
        wishes: &[Wish],
        secrets: &[ManagedSecret],
    ) -> ManagedValues {
        let names: BTreeSet<&str> = wishes.iter().map(|wish| wish.secret.as_str()).collect();
        let mut found = Vec::new();
        for secret in secrets.iter().filter(|secret| names.contains(secret.name_any().as_str())) {
            match self.ports.targets.admin_secret(secret, self.settings.region_of(secret)).await {
                Ok(admin) => found.extend(admin.map(|admin| ("administrator".to_owned(), admin))),
                Err(error) => {
                    tracing::info!(
                        secret = secret.name_any(),
                        %error,
                        "the administrator's credential cannot be read to redact it: output of hosts is not shown"
                    );
                    managed = managed.without(Unsearched::Unreadable);
                }
            }
        }
        managed.hiding(&found)
    }
}

/// Extracts the generated value from a published text; `None` if no template puts text around the value.
pub(super) fn within(secrets: &[ManagedSecret], wish: &Wish, published: &SecretValue) -> Option<SecretValue> {
    let secret = secrets.iter().find(|secret| secret.name_any() == wish.secret)?;
    let parameter = secret.spec.ssm.parameters.iter().find(|parameter| parameter.path == wish.path)?;
    parameter.value.as_ref()?;
    source::of(&secret.spec.generate).ok()?.extract(parameter, published)
}
