//! The report of a deploy Job: one JSON document in the termination message (at most 4096 bytes), and an exit code.

use keyturn_api::docker_host::{Proof, RunResult};
use serde::{Deserialize, Serialize};

/// The result in the report of a run that is in progress. If the pod is killed, the report keeps this result.
pub const UNDER_WAY: RunResult = RunResult::Lost;

/// Returns the exit code of the process for a result: 0 for success; each other result has its own. The Job's
/// podFailurePolicy uses the code to decide if another pod retries. Exit codes of remote commands are never passed on.
pub fn exit_code(result: RunResult) -> i32 {
    match result {
        RunResult::Succeeded => 0,
        RunResult::Lost => 1,
        RunResult::Unreachable => 10,
        RunResult::ConnectionLost => 11,
        RunResult::Busy => 12,
        RunResult::HostKeyRefused => 20,
        RunResult::AuthenticationFailed => 21,
        RunResult::BadInput => 22,
        RunResult::HostUnfit => 23,
        RunResult::Outdated => 24,
        RunResult::DeployFailed => 30,
        RunResult::VerifyFailed => 31,
        RunResult::DeployTimedOut => 32,
        RunResult::DeployInterrupted => 33,
        RunResult::NotAdopted => 34,
        RunResult::CollectFailed => 35,
    }
}

/// The result of a run, as the pod writes it into its termination message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The result of the run; [`UNDER_WAY`] until its end.
    pub outcome: RunResult,
    /// Text for a person: what happened and what to do. It never holds a value or output of the scripts.
    pub message: String,
    /// Exit code of the script that failed; `None` if no script failed or its exit code is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_exit: Option<i32>,
    /// True when the verify script passed and no container is in a restart loop, no matter what the comparison showed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verified: bool,
    /// The part that this Job had in the run of the script: the Job started the script, waited for a running script, or
    /// found that the script had already succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<DeployKind>,
    /// Result of the comparison for each parameter. Serialised in groups, since a termination message has little
    /// room.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "grouped")]
    pub parameters: Vec<ReportParameter>,
    /// The result of every parameter of the run that `parameters` does not list for lack of room; `None` if it lists
    /// all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Proof>,
    /// Result of the image audit; absent if the run audited no images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Box<ImagesReport>>,
    /// Result of collecting log lines; `None` if the run collected none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Box<LogsReport>>,
}

/// Log lines that were collected, with secrets redacted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsReport {
    /// Number of lines in the file on the host.
    pub lines: u64,
    /// Size of that file in bytes.
    pub bytes: u64,
    /// True when the script printed more than is kept.
    #[serde(default)]
    pub cut: bool,
    /// SHA-256 of the file on the host.
    pub digest: String,
    /// Path of the file on the host that has all of the lines.
    pub file: String,
    /// The first lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<String>,
    /// The last lines, without those that are among the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<String>,
}

impl LogsReport {
    /// Removes one line from the middle of the excerpt. Returns false if there was no line to remove.
    pub fn pop(&mut self) -> bool {
        if self.first.len() > self.last.len() {
            return self.first.pop().is_some();
        }
        !self.last.is_empty() && {
            self.last.remove(0);
            true
        }
    }

    /// Returns the lines to show, with a note in the middle about the number of lines that are left out.
    pub fn excerpt(&self) -> Vec<String> {
        let shown = u64::try_from(self.first.len() + self.last.len()).unwrap_or(u64::MAX);
        let left_out = self.lines.saturating_sub(shown);
        let gap = (left_out > 0).then(|| format!("[{left_out} lines are left out here]"));
        self.first.iter().cloned().chain(gap).chain(self.last.iter().cloned()).collect()
    }
}

/// Result of an audit of the images that the containers run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagesReport {
    /// Number of images.
    pub images: usize,
    /// Number of findings that the DockerHost allows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub allowed: usize,
    /// Number of findings that are left out, since the report has no room for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// The reason why not every image could be audited; `None` if all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Result of reading the files of the layers, if this run did so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersReport>,
    /// The beginnings of the IDs of all images ([`short_id`]). Empty unless other runs of the host read the layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// The images with findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<ImageReport>,
}

/// Result of reading the files of the images' layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayersReport {
    /// Number of files that were read, of all images together.
    pub files: u64,
    /// The reason why not every file could be read; `None` if all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Returns the beginning of an image's ID. It is enough to distinguish the images of a host, and a report has little
/// room.
pub fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// An image in which secrets were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// Name of the image with which the container was started.
    pub name: String,
    /// ID of the image.
    pub digest: String,
    /// The secrets that were found, without those that the DockerHost allows.
    pub findings: Vec<ReportFinding>,
}

/// One finding, without the value that was found. Serialised as one string, since there is little room: `<rule>
/// <fingerprint> <parameter or -> <place>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ReportFinding {
    /// Id of the rule that matched, such as `aws-access-key`; see docs/image-audit.md.
    pub rule: String,
    /// Identifier of the finding for `audit.allow`, 16 hexadecimal digits. It does not depend on the value.
    pub fingerprint: String,
    /// Path of the parameter that publishes the value; `None` if keyturn does not manage the value.
    pub parameter: Option<String>,
    /// Place in the image, such as `history layer 4 NPM_TOKEN` or `label build-info`.
    pub place: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl From<ReportFinding> for String {
    fn from(finding: ReportFinding) -> Self {
        let parameter = finding.parameter.as_deref().unwrap_or("-");
        format!("{} {} {parameter} {}", finding.rule, finding.fingerprint, finding.place)
    }
}

impl TryFrom<String> for ReportFinding {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut words = text.splitn(4, ' ').map(str::to_owned);
        let (Some(rule), Some(fingerprint), Some(parameter), Some(place)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("a finding is not `rule fingerprint parameter place`");
        };
        Ok(Self { rule, fingerprint, parameter: Some(parameter).filter(|path| path != "-"), place })
    }
}

/// The part that this Job has in the run of the deploy script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeployKind {
    /// The script was started for this Job: by this pod, or before a pod or connection of this Job was lost.
    Started,
    /// The script was already running for another Job of the same revision; this Job waited for its end.
    Attached,
    /// The script had succeeded for another Job of the same revision, so it was not run again.
    Replayed,
}

/// Result of the comparison for one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportParameter {
    /// Path of the parameter.
    pub path: String,
    /// The version that the containers have to run.
    pub version: i64,
    /// Result of comparing the containers with that version.
    pub proof: Proof,
    /// Names of the containers that run another value; at most five.
    pub differs_in: Vec<String>,
}

/// Serialises parameters in groups: `{"Proven": {"/musehub/production/": ["DB_PASSWORD=3", …]}, "Differs": {…:
/// ["RUNNER_TOKEN=5 app runner"]}}`. This takes a quarter of the room that one object per parameter would take. The
/// order within a group is kept.
mod grouped {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::{Proof, ReportParameter};

    type Groups = BTreeMap<String, BTreeMap<String, Vec<String>>>;

    pub(super) fn serialize<S: Serializer>(
        parameters: &[ReportParameter],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut groups = Groups::new();
        for parameter in parameters {
            let (folder, name) =
                parameter.path.split_at(parameter.path.rfind('/').map_or(0, |slash| slash + 1));
            let mut entry = format!("{name}={}", parameter.version);
            for container in &parameter.differs_in {
                entry = format!("{entry} {container}");
            }
            let group = groups.entry(format!("{:?}", parameter.proof)).or_default();
            group.entry(folder.to_owned()).or_default().push(entry);
        }
        groups.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<ReportParameter>, D::Error> {
        let mut parameters = Vec::new();
        for (proof, folders) in Groups::deserialize(deserializer)? {
            let proof = Proof::deserialize(de::value::StrDeserializer::<D::Error>::new(&proof))?;
            for (folder, entries) in folders {
                for entry in entries {
                    let malformed = || de::Error::custom("an entry is not `name=version container…`");
                    let mut words = entry.split(' ');
                    let (name, version) =
                        words.next().and_then(|word| word.rsplit_once('=')).ok_or_else(malformed)?;
                    parameters.push(ReportParameter {
                        path: format!("{folder}{name}"),
                        version: version.parse().map_err(|_| malformed())?,
                        proof,
                        differs_in: words.map(str::to_owned).collect(),
                    });
                }
            }
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_it_was_written() {
        let parameter = |path: &str, version, proof, differs_in: &[&str]| ReportParameter {
            path: path.to_owned(),
            version,
            proof,
            differs_in: differs_in.iter().map(|name| (*name).to_owned()).collect(),
        };
        let finding = |rule: &str, parameter: Option<&str>, place: &str| ReportFinding {
            rule: rule.to_owned(),
            fingerprint: "28e972a69e4a2b67".to_owned(),
            parameter: parameter.map(str::to_owned),
            place: place.to_owned(),
        };
        let report = Report {
            outcome: RunResult::NotAdopted,
            message: "…".to_owned(),
            script_exit: None,
            verified: true,
            deploy: Some(DeployKind::Started),
            parameters: vec![
                parameter("/app/RUNNER_TOKEN", 5, Proof::Differs, &["app", "runner"]),
                parameter("top", 1, Proof::Incomparable, &[]),
                parameter("/app/B", 3, Proof::Proven, &[]),
                parameter("/app/A", 12, Proof::Proven, &[]),
                parameter("/other/A", 4, Proof::Proven, &[]),
            ],
            others: Some(Proof::Incomparable),
            images: Some(Box::new(ImagesReport {
                images: 3,
                allowed: 1,
                problem: Some("app:2: gone".to_owned()),
                found: vec![ImageReport {
                    name: "app:1".to_owned(),
                    digest: "sha256:0a".to_owned(),
                    findings: vec![
                        finding("secret-name", None, "history layer 4 NPM_TOKEN"),
                        finding("managed-value", Some("/app/DB_PASSWORD"), "label build-info"),
                    ],
                }],
                ..ImagesReport::default()
            })),
            logs: Some(Box::new(LogsReport {
                lines: 40,
                bytes: 4000,
                cut: true,
                digest: "0a".repeat(32),
                file: "/home/x/leak.log".to_owned(),
                first: vec!["first".to_owned()],
                last: vec!["last".to_owned()],
            })),
        };
        assert_eq!(
            report.logs.as_ref().unwrap().excerpt(),
            ["first", "[38 lines are left out here]", "last"]
        );
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains(r#""Proven":{"/app/":["B=3","A=12"],"/other/":["A=4"]}"#), "{json}");
        assert!(
            json.contains(r#""managed-value 28e972a69e4a2b67 /app/DB_PASSWORD label build-info""#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for parameters in [
            r#"{"Sure":{"/a/":["B=3"]}}"#,
            r#"{"Proven":{"/a/":["B"]}}"#,
            r#"{"Proven":{"/a/":["B=x"]}}"#,
            "[]",
        ] {
            let json = format!(r#"{{"outcome":"Succeeded","message":"","parameters":{parameters}}}"#);
            assert!(serde_json::from_str::<Report>(&json).is_err(), "{json}");
        }
    }
}
