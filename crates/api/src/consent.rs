//! Consent of a Secret: keyturn uses a Secret of the cluster only if a label of that Secret allows the purpose. Without
//! this rule, people who cannot read a Secret could name it in a keyturn object and so have its content used or shown.

use std::collections::BTreeMap;
use std::fmt;

use super::reason::Reason;
use super::trouble::Trouble;

/// Label of a Secret that keyturn may use; its value is one [`Purpose`].
pub const USABLE_BY: &str = "keyturn.dev/usable-by";

/// Purpose for which a Secret may be used. Each Secret has one purpose, so two purposes need two Secrets. This keeps a
/// credential for one kind of server from being sent to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose(&'static str);

impl Purpose {
    /// The Secret's key logs in to a docker host or to its jump host.
    pub const SSH: Purpose = Purpose("ssh");
    /// The Secret holds the address of a notification sink.
    pub const NOTIFICATION: Purpose = Purpose("notification");

    /// Creates the purpose of a source, from the value of the label.
    pub(crate) const fn new(label: &'static str) -> Self {
        Self(label)
    }

    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// Reason why keyturn does not use a Secret. It contains nothing of the Secret, not even its labels: readers of the
/// message may have no right to see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    namespace: String,
    name: String,
    purpose: Purpose,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Missing,
    NoLabel,
    OtherPurpose,
}

impl Refusal {
    /// Returns the trouble for a condition.
    pub fn trouble(&self) -> Trouble {
        let reason = match self.why {
            Why::Missing => Reason::SecretMissing,
            Why::NoLabel | Why::OtherPurpose => Reason::SecretNotLabelled,
        };
        Trouble::permanent(reason, self.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, purpose, why } = self;
        let purpose = purpose.as_str();
        let command = format!("`kubectl label secret -n {namespace} {name} {USABLE_BY}={purpose}`");
        match why {
            Why::Missing => write!(
                f,
                "Secret {name} does not exist in namespace {namespace}: create it, and allow its use as {purpose}: {command}"
            ),
            Why::NoLabel => write!(
                f,
                "Secret {name} of namespace {namespace} is not read, since it does not allow its use as {purpose}. \
                 If it is meant for that, run {command}"
            ),
            Why::OtherPurpose => write!(
                f,
                "Secret {name} of namespace {namespace} is not read, since its label {USABLE_BY} allows another use \
                 than {purpose}. A Secret has one use: name a Secret that is labelled {USABLE_BY}={purpose}"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// Decides if a Secret with these labels may be used for the purpose; `labels` is `None` when the Secret does not
/// exist.
pub fn check(
    namespace: &str,
    name: &str,
    labels: Option<&BTreeMap<String, String>>,
    purpose: Purpose,
) -> Result<(), Refusal> {
    let why = match labels.map(|labels| labels.get(USABLE_BY).map(String::as_str)) {
        None => Why::Missing,
        Some(None | Some("")) => Why::NoLabel,
        Some(Some(given)) if given == purpose.as_str() => return Ok(()),
        Some(Some(_)) => Why::OtherPurpose,
    };
    Err(Refusal { namespace: namespace.to_owned(), name: name.to_owned(), purpose, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{self, postgres};

    fn all() -> Vec<Purpose> {
        source::purposes().chain([Purpose::SSH, Purpose::NOTIFICATION]).collect()
    }

    fn with(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(USABLE_BY.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_secret_is_used_for_the_purpose_of_its_label_and_no_other() {
        assert!(all().len() > 2, "sources use Secrets too");
        for purpose in all() {
            for given in all() {
                let decided = check("prod", "db", Some(&with(given.as_str())), purpose);
                assert_eq!(decided.is_ok(), given == purpose, "{given:?} for {purpose:?}");
            }
            for given in ["", "true", "SSH", "postgres", "ssh.postgres-admin.cloudflare.notification"] {
                let decided = check("prod", "db", Some(&with(given)), purpose);
                assert_eq!(
                    decided.unwrap_err().trouble().reason,
                    Reason::SecretNotLabelled,
                    "{given:?} for {purpose:?}"
                );
            }
            let unlabelled = BTreeMap::from([("app".to_owned(), purpose.as_str().to_owned())]);
            assert!(check("prod", "db", Some(&unlabelled), purpose).is_err());
            assert_eq!(
                check("prod", "db", None, purpose).unwrap_err().trouble().reason,
                Reason::SecretMissing
            );
        }
    }

    #[test]
    fn a_refusal_prints_the_command_that_gives_consent() {
        let command = "`kubectl label secret -n prod db-admin keyturn.dev/usable-by=postgres-admin`";
        for labels in [None, Some(&BTreeMap::new())] {
            let refusal = check("prod", "db-admin", labels, postgres::ADMINISTRATOR).unwrap_err().to_string();
            assert!(refusal.contains(command), "{refusal}");
        }
    }

    #[test]
    fn a_refusal_shows_nothing_that_the_secret_holds() {
        let refusal = check("prod", "db", Some(&with("hunter2")), Purpose::SSH).unwrap_err();
        assert!(!format!("{refusal} {refusal:?}").contains("hunter2"), "{refusal:?}");
        assert!(refusal.to_string().contains("name a Secret that is labelled keyturn.dev/usable-by=ssh"));
    }
}
