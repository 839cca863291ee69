//! Progress of the response to an incident for one secret. It is derived from the evidence for the status; the
//! protocol never acts on it.

use chrono::{DateTime, Utc};
use keyturn_api::conditions::{self as c, Said, Truth};
use keyturn_api::managed_secret::{CompromiseStatus, ManagedSecretStatus};
use keyturn_api::time::{from_kubernetes, to_kubernetes, to_text};
use keyturn_api::{ManagedSecret, Reason};
use keyturn_rotation::observed::{HostEvidence, Observed};
use keyturn_rotation::protocol::{self, Desired, Revocation};

use super::progress::Progress;

/// Returns the progress; `None` if no incident concerns the secret. Times of an earlier status are kept, since later
/// evidence may lack them.
pub(super) fn follow(
    object: &ManagedSecret,
    status: &ManagedSecretStatus,
    desired: &Desired<'_>,
    observed: Option<&Observed>,
    progress: &Progress,
    now: DateTime<Utc>,
) -> Option<CompromiseStatus> {
    let reported_at = protocol::reported_at(desired)?;
    let latest = desired.incidents.iter().filter(|incident| incident.reported_at == reported_at);
    let revoke_by = to_kubernetes(latest.map(|incident| incident.revoke_at).min()?);
    let before = object.status.as_ref().and_then(|status| status.compromise.as_ref());
    let before = before.filter(|before| from_kubernetes(&before.reported_at) == reported_at);
    if let Some(contained) = before.filter(|before| before.contained_at.is_some()) {
        let adopted_at = contained
            .adopted_at
            .clone()
            .or_else(|| observed.and_then(|observed| adopted_at(desired, observed)).map(to_kubernetes));
        return Some(CompromiseStatus { revoke_by, adopted_at, ..contained.clone() });
    }
    let mut now_is = CompromiseStatus {
        reported_at: to_kubernetes(reported_at),
        revoke_by,
        rotated_at: None,
        adopted_at: None,
        revoked_at: None,
        contained_at: None,
        message: String::new(),
    };
    let rotated = match observed {
        Some(observed) if protocol::is_rotated(desired, observed) => {
            now_is.rotated_at = status.last_rotation_time.clone();
            now_is.adopted_at = adopted_at(desired, observed).map(to_kubernetes);
            match protocol::revocation(desired, observed) {
                // A late request of an earlier rotation could still publish its value, until that rotation is closed.
                Revocation::None if observed.records.len() > 1 => {}
                Revocation::None => now_is.contained_at = now_is.adopted_at.clone(),
                Revocation::Open => {}
                Revocation::Done => {
                    let seen = before.and_then(|before| before.revoked_at.clone());
                    now_is.revoked_at = Some(seen.unwrap_or_else(|| to_kubernetes(now)));
                    now_is.contained_at = now_is.revoked_at.clone();
                }
            }
            true
        }
        Some(_) => false,
        // The evidence could not be read: earlier results still hold.
        None => {
            if let Some(before) = before {
                now_is = CompromiseStatus { revoke_by: now_is.revoke_by, ..before.clone() };
            }
            now_is.rotated_at.is_some()
        }
    };
    if now_is.contained_at.is_none() {
        now_is.message = left_to_do(&now_is, desired, progress, rotated);
    }
    Some(now_is)
}

/// Returns the time of the last proof that a host has left the old values, or `None` while a host has not proven it.
/// Without hosts, it is the time when the oldest published value was made.
fn adopted_at(desired: &Desired<'_>, observed: &Observed) -> Option<DateTime<Utc>> {
    let recorded = observed.records.values().flat_map(|record| &record.hosts);
    let counts = |host: &&HostEvidence| {
        desired.hosts.contains(&host.name) || host.exists && recorded.clone().any(|name| *name == host.name)
    };
    let mut last = observed.parameters.iter().filter_map(|p| p.latest()).map(|seen| seen.made_at()).min()?;
    for host in observed.hosts.iter().filter(counts) {
        for parameter in &observed.parameters {
            let enough = desired.retirement.verify_is_enough;
            if !host.has_left_the_old(parameter, parameter.latest(), enough) {
                return None;
            }
            last = last.max(host.proofs.get(&parameter.path)?.at);
        }
    }
    Some(last)
}

fn left_to_do(is: &CompromiseStatus, desired: &Desired<'_>, progress: &Progress, rotated: bool) -> String {
    let what = match progress.message() {
        message if message.is_empty() && rotated => {
            "Waiting for the hosts to prove that they run the new value".to_owned()
        }
        message => message,
    };
    let revocation = match (&is.revoked_at, desired.strategy) {
        (None, Some(_)) => {
            format!(". The old login is revoked by {} at the latest", to_text(from_kubernetes(&is.revoke_by)))
        }
        _ => String::new(),
    };
    format!("{what}{revocation}")
}

/// Returns the condition Compromised.
pub(super) fn said(
    is: Option<&CompromiseStatus>,
    desired: &Desired<'_>,
    observed: Option<&Observed>,
    progress: &Progress,
) -> Option<Said> {
    let is = is?;
    let reported = to_text(from_kubernetes(&is.reported_at));
    if let Some(at) = &is.contained_at {
        let at = to_text(from_kubernetes(at));
        let message = format!("Reported {reported}. Since {at} no value from before the report can be used");
        return Some((c::COMPROMISED, Truth::False, Reason::Contained, message));
    }
    let reason = match &progress.blocked {
        _ if progress.observed_only.is_some() => Reason::Observe,
        Some(blocked) => blocked.trouble.reason,
        None if is.rotated_at.is_none() => Reason::Rotating,
        None if is.adopted_at.is_none() => Reason::Deploying,
        None => Reason::Revoking,
    };
    let superuser = observed
        .and_then(|o| o.target.as_ref())
        .filter(|target| desired.strategy.is_some() && !target.superusers.is_empty());
    let superuser = superuser.map_or_else(String::new, |target| {
        let names: Vec<&str> = target.superusers.iter().map(String::as_str).collect();
        format!(". keyturn does not revoke superusers: give {} another password by hand", names.join(", "))
    });
    let message = format!("Reported {reported}. {}{superuser}", is.message);
    Some((c::COMPROMISED, Truth::True, reason, message))
}
