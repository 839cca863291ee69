//! The values that are taken out of what hosts print before anybody is shown it: what the host's secrets publish, what
//! they published before, the passwords within, and what they are administered with.

use std::collections::BTreeSet;

use keyturn_api::ManagedSecret;
use keyturn_image_audit::managed::{ManagedValues, Unsearched};
use keyturn_secret_value::SecretValue;
use kube::ResourceExt;

use super::{DockerHosts, TaskError};
use crate::deploy::collection::Collection;
use crate::deploy::wish::Wish;
use crate::generator;

/// Values that log lines are searched for: with the fingerprints of more, the task's Secret would be too large.
const MOST_IN_LOGS: usize = 1024;

impl DockerHosts {
    /// Fingerprints of every version that SSM has of the host's secrets, first those of the suspected one, which is what
    /// the lines are about. Where SSM does not answer, nothing is collected; where there is more to be searched for than is
    /// possible, no line is shown.
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
                // One that was deleted meanwhile cannot be told any more.
                Ok(None) => continue,
                Ok(Some(value)) => value,
                // Of a key that was disabled, for one: what is published can be read, or nothing would have been deployed.
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

    /// The versions of the suspected secret, then those of the others, the newest of each first.
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

    /// The same, and what the secrets of these wishes are administered with. Where that cannot be read nothing is shown,
    /// and everything else goes on.
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
                    tracing::info!(secret = secret.name_any(), %error, "what hosts print is not shown");
                    managed = managed.without(Unsearched::Unreadable);
                }
            }
        }
        managed.hiding(&found)
    }
}

/// The generated value within a text that is published around it.
pub(super) fn within(secrets: &[ManagedSecret], wish: &Wish, published: &SecretValue) -> Option<SecretValue> {
    let secret = secrets.iter().find(|secret| secret.name_any() == wish.secret)?;
    let parameter = secret.spec.ssm.parameters.iter().find(|parameter| parameter.path == wish.path)?;
    let template = parameter.value.as_deref()?;
    if let Some(postgres) = &secret.spec.generate.postgres {
        let login = generator::login(&postgres.roles(), &[(parameter, published)]);
        return login.map(|(_, password)| password);
    }
    let pair = || generator::pair(&[(parameter, published)]).map(|login| login.password);
    generator::extract(Some(template), published).or_else(pair)
}
