//! What a deploy Job answers: one JSON document in the termination message (at most 4096 bytes), and an exit code.

use keyturn_api::docker_host::Proof;
use serde::{Deserialize, Serialize};

/// How a run ended. Each has an exit code of its own (remote exit codes never pass through), so that the Job's
/// podFailurePolicy can tell what is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The run is still going on; a message that stays here means that the pod was killed.
    Running,
    Succeeded,
    /// No TCP connection or no SSH handshake in time.
    Unreachable,
    /// The connection broke and the deployment's outcome could not be learned.
    ConnectionLost,
    /// Another deployment holds the host's lock.
    Busy,
    /// No line of known_hosts vouches for the key that the host offered.
    HostKeyRefused,
    /// The host did not accept the client key.
    AuthenticationFailed,
    /// The task or a key in it cannot be used.
    BadInput,
    /// The host cannot run the work: no docker, no sudo, disk full.
    HostUnfit,
    /// The journal holds a newer version of some path.
    Outdated,
    /// The deploy script exited with a code other than 0.
    DeployFailed,
    /// The deploy script ran longer than it may.
    DeployTimedOut,
    /// The deploy script was running when the host went away; whether it ended well is not known.
    DeployInterrupted,
    /// The verify script did not succeed in its time.
    VerifyFailed,
    /// At least one container runs another value than the one published.
    NotAdopted,
    /// The log lines could not be collected.
    CollectFailed,
}

impl Outcome {
    pub fn exit_code(self) -> i32 {
        match self {
            Outcome::Succeeded => 0,
            Outcome::Running => 1,
            Outcome::Unreachable => 10,
            Outcome::ConnectionLost => 11,
            Outcome::Busy => 12,
            Outcome::HostKeyRefused => 20,
            Outcome::AuthenticationFailed => 21,
            Outcome::BadInput => 22,
            Outcome::HostUnfit => 23,
            Outcome::Outdated => 24,
            Outcome::DeployFailed => 30,
            Outcome::VerifyFailed => 31,
            Outcome::DeployTimedOut => 32,
            Outcome::DeployInterrupted => 33,
            Outcome::NotAdopted => 34,
            Outcome::CollectFailed => 35,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub outcome: Outcome,
    /// For a person: what happened and what to do. Never a value, never output of the scripts.
    pub message: String,
    /// Exit code of the script that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_exit: Option<i32>,
    /// Whether the verify script passed and no container ends and is started again, whatever the comparison showed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verified: bool,
    /// Whether the script ran in this Job's time, was joined while it ran, or had succeeded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<DeployKind>,
    /// What the containers run, by parameter. Written grouped, since a termination message has little room.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "grouped")]
    pub parameters: Vec<ReportParameter>,
    /// What each parameter of the run has shown that is not among them, where there was no room to name them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Proof>,
    /// What was found in the images that the containers run; absent where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Box<ImagesReport>>,
    /// What a collection found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Box<LogsReport>>,
}

/// Log lines that were collected, without what is secret in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsReport {
    pub lines: u64,
    pub bytes: u64,
    /// Whether the script printed more than is kept.
    #[serde(default)]
    pub cut: bool,
    /// SHA-256 of the file on the host.
    pub digest: String,
    /// The file that has all of them.
    pub file: String,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<String>,
    /// The last of them, where they are not among the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<String>,
}

impl LogsReport {
    /// Leaves out one of the lines, of those that are farthest from both ends.
    pub fn pop(&mut self) -> bool {
        if self.first.len() > self.last.len() {
            return self.first.pop().is_some();
        }
        !self.last.is_empty() && {
            self.last.remove(0);
            true
        }
    }

    /// What is shown of them, with a word on how many are left out in the middle.
    pub fn excerpt(&self) -> Vec<String> {
        let shown = u64::try_from(self.first.len() + self.last.len()).unwrap_or(u64::MAX);
        let left_out = self.lines.saturating_sub(shown);
        let gap = (left_out > 0).then(|| format!("[{left_out} lines are left out here]"));
        self.first.iter().cloned().chain(gap).chain(self.last.iter().cloned()).collect()
    }
}

/// A look at the images that the containers run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagesReport {
    /// How many there are.
    pub images: usize,
    /// Findings that the DockerHost allows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub allowed: usize,
    /// Findings that there was no room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Why not every image could be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The look into the files of the layers, where this run took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersReport>,
    /// The beginnings of the IDs of all images ([`short_id`]), where layers are looked into by other runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// The images with findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<ImageReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayersReport {
    pub files: u64,
    /// Why not everything was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Enough of an image's ID to tell it from the others of a host: a report has little room.
pub fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// As the container was started with it.
    pub name: String,
    /// The image's ID.
    pub digest: String,
    pub findings: Vec<ReportFinding>,
}

/// One finding, in its own words; never a value. Written as one string, since there is little room:
/// `<rule> <fingerprint> <parameter or -> <place>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ReportFinding {
    pub rule: String,
    pub fingerprint: String,
    pub parameter: Option<String>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeployKind {
    Started,
    Attached,
    Replayed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportParameter {
    pub path: String,
    pub version: i64,
    pub proof: Proof,
    /// Names of the containers that run another value, at most five.
    pub differs_in: Vec<String>,
}

/// `{"Proven": {"/musehub/production/": ["DB_PASSWORD=3", …]}, "Differs": {…: ["RUNNER_TOKEN=5 app runner"]}}`: a
/// quarter of what one object for each parameter takes. The order within a group is kept.
mod grouped {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::{Proof, ReportParameter};

    type Groups = BTreeMap<String, BTreeMap<String, Vec<String>>>;

    pub fn serialize<S: Serializer>(
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

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ReportParameter>, D::Error> {
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
            outcome: Outcome::NotAdopted,
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
