//! Proves what containers run, by keyed fingerprints: the pod does not know a value, and the host does not reveal one.

use std::collections::BTreeMap;

use super::host::Line;
use crate::api::docker_host::Proof;
use crate::deploy::report::ReportParameter;
use crate::deploy::task::{Task, TaskParameter};

/// The comparison of one variable with one parameter.
pub(super) struct Check {
    /// Index of the parameter in the task.
    parameter: usize,
    variable: String,
    inner_pad: String,
    outer_pad: String,
    mac: String,
    trimmed_mac: Option<String>,
}

impl Check {
    /// Returns one check for each variable of each parameter; `None` if a key is not 64 hexadecimal digits.
    pub(super) fn all(task: &Task) -> Option<Vec<Self>> {
        let mut checks = Vec::new();
        for (parameter, TaskParameter { env, key, mac, trimmed_mac, .. }) in
            task.parameters.iter().enumerate()
        {
            let key = hex::decode(key).ok().filter(|key| key.len() == 32)?;
            for variable in env {
                checks.push(Self {
                    parameter,
                    variable: variable.clone(),
                    inner_pad: pad(&key, 0x36),
                    outer_pad: pad(&key, 0x5c),
                    mac: mac.clone(),
                    trimmed_mac: trimmed_mac.clone(),
                });
            }
        }
        Some(checks)
    }

    /// Returns the check in the format that the host script reads.
    pub(super) fn line(&self) -> String {
        format!(
            "{} {} {} {} {} {}",
            self.parameter,
            self.variable,
            self.inner_pad,
            self.outer_pad,
            self.mac,
            self.trimmed_mac.as_deref().unwrap_or("-")
        )
    }
}

/// Returns the key of an HMAC, padded to a block of SHA-256 and XORed with `with` (RFC 2104), as a format string for
/// printf: the shell then needs no arithmetic.
fn pad(key: &[u8], with: u8) -> String {
    let block = key.iter().copied().chain(std::iter::repeat(0)).take(64);
    block
        .map(|byte| match byte ^ with {
            b'%' => "%%".to_owned(),
            byte => format!("\\{byte:03o}"),
        })
        .collect()
}

/// The values that the containers of a host run.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// The result for each parameter of the task, in the task's order.
    pub parameters: Vec<ReportParameter>,
    /// Containers with one of the variables, each with its number of restarts and whether docker waits to restart it.
    containers: BTreeMap<String, (u64, bool)>,
}

impl Proofs {
    /// Evaluates an answer of the host.
    pub(super) fn of(task: &Task, lines: &[Line]) -> Self {
        let mut same: BTreeMap<usize, usize> = BTreeMap::new();
        let mut differs: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut containers = BTreeMap::new();
        for line in lines {
            match line {
                Line::Same { check, .. } => *same.entry(*check).or_default() += 1,
                Line::Differs { check, container } => {
                    differs.entry(*check).or_default().push(container.to_string())
                }
                Line::Container { name, restarting, restarts } => {
                    containers.insert(name.to_string(), (*restarts, *restarting));
                }
                _ => {}
            }
        }
        let parameters = task
            .parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| {
                let mut differs_in = differs.remove(&index).unwrap_or_default();
                differs_in.sort();
                differs_in.dedup();
                let proof = match (differs_in.is_empty(), same.contains_key(&index)) {
                    (false, _) => Proof::Differs,
                    (true, true) => Proof::Proven,
                    (true, false) => Proof::Incomparable,
                };
                differs_in.truncate(5);
                ReportParameter {
                    path: parameter.path.clone(),
                    version: parameter.version,
                    proof,
                    differs_in,
                }
            })
            .collect();
        Self { parameters, containers }
    }

    /// Returns the containers that may not be running: docker waits to restart them, or has restarted them since
    /// `before`. Without an earlier state, every container that was ever restarted is in doubt.
    pub(super) fn restarting(&self, before: Option<&Self>) -> Vec<String> {
        let settled = |name: &str, restarts: u64| match before.and_then(|before| before.containers.get(name))
        {
            Some((earlier, _)) => *earlier == restarts,
            None => restarts == 0,
        };
        let in_doubt =
            |(name, (restarts, waiting)): &(&String, &(u64, bool))| *waiting || !settled(name, *restarts);
        self.containers.iter().filter(in_doubt).map(|(name, _)| name.clone()).collect()
    }

    /// Returns the parameters for which at least one container runs another value.
    pub(super) fn differing(&self) -> impl Iterator<Item = &ReportParameter> {
        self.parameters.iter().filter(|parameter| parameter.proof == Proof::Differs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_was_started_again_once_is_in_doubt_until_it_stays_up() {
        let look = |restarts, restarting| Proofs {
            containers: BTreeMap::from([("app".to_owned(), (restarts, restarting))]),
            ..Proofs::default()
        };
        let in_doubt = |now: &Proofs, before: Option<&Proofs>| !now.restarting(before).is_empty();
        assert!(!in_doubt(&look(0, false), None));
        assert!(in_doubt(&look(0, true), None));
        assert!(in_doubt(&look(1, false), None));
        assert!(!in_doubt(&look(1, false), Some(&look(1, true))));
        assert!(in_doubt(&look(2, false), Some(&look(1, false))));
        assert!(in_doubt(&look(1, true), Some(&look(1, true))));
    }

    #[test]
    fn pads_are_those_of_rfc_2104_in_octal() {
        let mut key = [0u8; 32];
        key[0] = 0x36; // becomes 0
        key[1] = 0x36 ^ b'%';
        let pad = pad(&key, 0x36);
        assert!(pad.starts_with(r"\000%%\066\066"), "{pad}");
        assert!(pad.ends_with(r"\066"), "{pad}");
        assert_eq!(pad.matches('\\').count(), 63);
    }
}
