//! The values that are taken out of log lines before anybody is shown them: what the host's secrets publish, what they
//! published before, and the passwords within.

use keyturn_api::ManagedSecret;
use keyturn_image_audit::managed::ManagedValues;
use keyturn_secret_value::SecretValue;
use kube::ResourceExt;

use super::{DockerHosts, MOST_SEARCHED, TaskError};
use crate::deploy::collection::Collection;
use crate::deploy::wish::Wish;
use crate::generator;

/// Versions of the secret that the lines are about: what is logged of it is an older value.
const OF_THE_SUSPECTED: usize = 5;
/// Versions of the host's other secrets, which may have been rotated for the same incident.
const OF_OTHERS: usize = 2;

impl DockerHosts {
    /// Fingerprints of them, those of the suspected secret first: a host of very many secrets has more than a task can
    /// carry. Where one cannot be read, nothing is collected.
    pub(super) async fn secret_in_logs(
        &self,
        collection: &Collection,
        wishes: &[Wish],
        secrets: &[ManagedSecret],
    ) -> Result<ManagedValues, TaskError> {
        let mut values = Vec::new();
        let is_suspected = |wish: &&Wish| wish.secret == collection.about.secret;
        let others = wishes.iter().filter(|wish| !is_suspected(wish));
        for wish in wishes.iter().filter(is_suspected).chain(others) {
            let most = if is_suspected(&wish) { OF_THE_SUSPECTED } else { OF_OTHERS };
            let secret = secrets.iter().find(|secret| secret.name_any() == wish.secret);
            let store = self.store_of(wish);
            let mut versions = store.history(&wish.path).await?;
            versions.retain(|version| version.number <= wish.version);
            for version in versions.iter().rev().take(most) {
                // One that was deleted meanwhile cannot be told any more.
                let Some(value) = store.read(&wish.path, Some(version.number)).await? else { continue };
                let within = secret.and_then(|secret| within(secret, &wish.path, &value));
                values.extend(within.map(|within| (wish.path.clone(), within)));
                values.push((wish.path.clone(), value));
            }
            if values.len() >= MOST_SEARCHED {
                break;
            }
        }
        Ok(ManagedValues::new(&values, &self.key()?))
    }
}

/// The generated value within a text that is published around it.
fn within(secret: &ManagedSecret, path: &str, published: &SecretValue) -> Option<SecretValue> {
    let parameter = secret.spec.ssm.parameters.iter().find(|parameter| parameter.path == path)?;
    let template = parameter.value.as_deref()?;
    if let Some(postgres) = &secret.spec.generate.postgres {
        let login = generator::login(&postgres.roles(), &[(parameter, published)]);
        return login.map(|(_, password)| password);
    }
    let pair = || generator::pair(&[(parameter, published)]).map(|login| login.password);
    generator::extract(Some(template), published).or_else(pair)
}
