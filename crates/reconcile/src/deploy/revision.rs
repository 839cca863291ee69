//! Short hashes that serve as names. A hash depends only on its input, so everybody who hashes the same input gets the
//! same name.

use aws_lc_rs::digest::{SHA256, digest};
use keyturn_api::docker_host::DockerHostSpec;

use super::wish::Wish;

/// Returns the revision: 16 hexadecimal digits that identify a set of versions and the script that deploys them. It
/// needs no counter, since the same set always has the same revision. The hash includes the time at which each value
/// was made: a parameter that was deleted and created again repeats its version numbers.
pub fn revision(parameters: &[Wish], script: &str) -> String {
    let line = |wish: &Wish| format!("{}={}@{}", wish.path, wish.version, wish.published_at.timestamp());
    let mut lines: Vec<String> = parameters.iter().map(line).collect();
    lines.sort();
    short_hash(&[&lines.join("\n"), script])
}

/// Hash of the endpoint, the jump host and the compose project. A proof counts only for the containers of this target.
pub fn target(spec: &DockerHostSpec) -> String {
    let jump = spec.ssh.jump.as_ref().map(|jump| format!("{}:{}", jump.host, jump.port.unwrap_or(22)));
    short_hash(&[
        &format!("{}:{}", spec.ssh.host, spec.ssh.port()),
        jump.as_deref().unwrap_or_default(),
        &spec.docker.compose_project,
    ])
}

/// Hash of the settings of the image audit.
pub fn audit_settings(spec: &DockerHostSpec) -> String {
    let text = serde_json::to_string(&spec.audit).expect("settings have string keys only");
    short_hash(&[&text])
}

/// Returns the first 16 hexadecimal digits of the SHA-256 of the parts, joined by a zero byte. No part contains that
/// byte, so two different lists never give the same input.
pub(super) fn short_hash(parts: &[&str]) -> String {
    hex::encode(&digest(&SHA256, parts.join("\0").as_bytes()).as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use keyturn_api::managed_secret::Origin;

    use super::*;
    use crate::deploy::testing::*;
    use crate::deploy::wish::wishes;

    #[test]
    fn a_revision_names_the_versions_and_the_script_whatever_their_order() {
        let one =
            |path: &str, version| published(secret("one", &[path]), &[(path, version, Origin::Rotated)]);
        let one = wishes("web", &[one("/app/TOKEN", 3), one("/app/OTHER", 1)]);
        assert_eq!(one.len(), 2);
        let mut reversed = one.clone();
        reversed.reverse();
        let mut newer = one.clone();
        newer[0].version += 1;
        assert_eq!(revision(&one, "a"), revision(&reversed, "a"));
        assert_ne!(revision(&one, "a"), revision(&one, "b"));
        assert_ne!(revision(&one, "a"), revision(&newer, "a"));
        assert_eq!(revision(&one, "a").len(), 16);
    }

    #[test]
    fn a_target_is_another_when_the_endpoint_or_the_project_is() {
        let spec = host("web").spec;
        let mut script = spec.clone();
        script.deploy.script = "other.sh".into();
        script.ssh.port = Some(22);
        assert_eq!(target(&spec), target(&script));
        let mut project = spec.clone();
        project.docker.compose_project = "staging".into();
        let mut port = spec.clone();
        port.ssh.port = Some(2222);
        assert_ne!(target(&spec), target(&project));
        assert_ne!(target(&spec), target(&port));
    }
}
