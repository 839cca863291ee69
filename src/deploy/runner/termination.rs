//! The report in the form in which Kubernetes reads it: the termination message of the container.

use std::io;
use std::path::Path;

use crate::api::docker_host::Proof;
use crate::api::docker_host::RunResult;
use crate::deploy::report::Report;

/// Maximum number of bytes that Kubernetes keeps. It cuts off the rest, which would make the report unreadable.
pub const LIMIT: usize = 4096;

/// Number of findings in images that are as important as parameters that cannot be compared.
const MOST_WANTED_FINDINGS: usize = 5;

/// Encodes the report as JSON of at most [`LIMIT`] bytes. A report that is too long loses, in this order: the names of
/// containers, the end of its message, the end of the message about images, log lines from the middle, most findings in
/// images, and the names of the parameters with the most frequent result, which is then reported once for all of them.
pub fn message(report: &Report) -> String {
    let encode = |report: &Report| {
        // A struct of strings, numbers and enums always encodes.
        serde_json::to_string(report).unwrap_or_default()
    };
    let mut report = report.clone();
    let shorten: [fn(&mut Report); 4] = [
        |report| report.parameters.iter_mut().for_each(|p| p.differs_in.truncate(1)),
        |report| {
            cut(&mut report.message, 300);
        },
        |report| report.parameters.iter_mut().for_each(|p| p.differs_in.clear()),
        |report| {
            let images = report.images.iter_mut();
            images.for_each(|images| {
                let of_layers = images.layers.iter_mut().filter_map(|layers| layers.problem.as_mut());
                images.problem.iter_mut().chain(of_layers).for_each(|problem| cut(problem, 100));
            });
        },
    ];
    for step in shorten {
        if encode(&report).len() <= LIMIT {
            break;
        }
        step(&mut report);
    }
    while encode(&report).len() > LIMIT && report.logs.as_mut().is_some_and(|logs| logs.pop()) {}
    while encode(&report).len() > LIMIT && pop_finding(&mut report, MOST_WANTED_FINDINGS) {}
    if encode(&report).len() > LIMIT {
        match most_have_shown(&report) {
            Some(proof) if report.outcome == RunResult::Succeeded => {
                report.parameters.retain(|p| p.proof != proof);
                report.others = Some(proof);
            }
            // A parameter that is not listed after a failure has shown nothing.
            _ => report.parameters.retain(|p| p.proof != Proof::Incomparable),
        }
    }
    while encode(&report).len() > LIMIT && pop_finding(&mut report, 0) {}
    if encode(&report).len() > LIMIT && report.others.is_some() {
        // There are too many of both kinds to list them. The rest is reported as incomparable, so that nothing counts
        // as proven by mistake.
        report.others = Some(Proof::Incomparable);
    }
    while encode(&report).len() > LIMIT && report.parameters.pop().is_some() {}
    encode(&report)
}

fn cut(text: &mut String, longest: usize) {
    if text.chars().count() > longest {
        *text = text.chars().take(longest - 1).chain(['…']).collect();
    }
}

/// Returns the result that most parameters have shown.
fn most_have_shown(report: &Report) -> Option<Proof> {
    let count = |proof: &Proof| report.parameters.iter().filter(|p| p.proof == *proof).count();
    [Proof::Incomparable, Proof::Proven].into_iter().max_by_key(count)
}

/// Removes the last finding in an image if there are more than `keep`.
fn pop_finding(report: &mut Report, keep: usize) -> bool {
    let Some(images) = &mut report.images else { return false };
    let all: usize = images.found.iter().map(|image| image.findings.len()).sum();
    if all <= keep {
        return false;
    }
    if let Some(last) = images.found.last_mut() {
        images.left_out += usize::from(last.findings.pop().is_some());
    }
    images.found.retain(|image| !image.findings.is_empty());
    true
}

/// Replaces the content of the file. The file is a mount of the kubelet: a process can write to it, but cannot rename
/// another file over it.
pub fn write(path: &Path, report: &Report) -> io::Result<()> {
    std::fs::write(path, message(report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::report::{ImageReport, ImagesReport, LogsReport, ReportFinding, ReportParameter};

    fn report(parameters: usize, message: usize) -> Report {
        Report {
            outcome: RunResult::NotAdopted,
            message: "ä".repeat(message),
            script_exit: Some(3),
            verified: false,
            deploy: None,
            parameters: (0..parameters)
                .map(|i| ReportParameter {
                    path: format!("/musehub/production/PARAMETER_{i}"),
                    version: 1,
                    proof: Proof::Differs,
                    differs_in: vec!["musehub_application_container".to_owned(); 5],
                })
                .collect(),
            others: None,
            images: None,
            logs: None,
        }
    }

    /// Returns the results of a run's parameters as the controller reads them.
    fn read_back(report: &Report) -> Vec<Option<Proof>> {
        let read: Report = serde_json::from_str(&message(report)).unwrap();
        let shown = |path: &String| read.parameters.iter().find(|p| p.path == *path).map(|p| p.proof);
        report.parameters.iter().map(|p| shown(&p.path).or(read.others)).collect()
    }

    #[test]
    fn what_was_proven_is_read_as_proven_however_many_parameters_a_host_has() {
        for (all, incomparable) in [(172, 0), (172, 20), (500, 0), (500, 100), (500, 400), (3, 1)] {
            let mut many = Report { outcome: RunResult::Succeeded, ..report(all, 200) };
            for (i, parameter) in many.parameters.iter_mut().enumerate() {
                parameter.proof = if i < incomparable { Proof::Incomparable } else { Proof::Proven };
                parameter.differs_in.clear();
            }
            let shown: Vec<Option<Proof>> = many.parameters.iter().map(|p| Some(p.proof)).collect();
            assert!(message(&many).len() <= LIMIT);
            assert_eq!(read_back(&many), shown, "{incomparable} of {all} cannot be compared");
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_never_read_as_proven() {
        let mut many = Report { outcome: RunResult::Succeeded, ..report(1000, 200) };
        for (i, parameter) in many.parameters.iter_mut().enumerate() {
            parameter.proof = if i % 2 == 0 { Proof::Incomparable } else { Proof::Proven };
            parameter.differs_in.clear();
        }
        assert!(message(&many).len() <= LIMIT);
        for (parameter, read) in many.parameters.iter().zip(read_back(&many)) {
            assert!(read != Some(Proof::Proven) || parameter.proof == Proof::Proven, "{}", parameter.path);
        }
    }

    #[test]
    fn every_report_stays_readable_and_within_the_limit() {
        for (parameters, length) in [(0, 0), (0, 5000), (3, 200), (10, 2000), (30, 100), (500, 5000)] {
            let message = message(&report(parameters, length));
            assert!(message.len() <= LIMIT);
            let read: Report = serde_json::from_str(&message).unwrap();
            assert_eq!(read.outcome, RunResult::NotAdopted);
            assert_eq!(read.parameters.is_empty(), parameters == 0);
        }
        let many = Report { outcome: RunResult::Succeeded, ..report(130, 60) };
        let many = Report {
            parameters: many
                .parameters
                .into_iter()
                .map(|p| ReportParameter { differs_in: vec![], ..p })
                .collect(),
            ..many
        };
        assert_eq!(serde_json::from_str::<Report>(&message(&many)).unwrap(), many, "many parameters fit");
        let found = |findings: usize, proof, parameters: usize| Report {
            images: Some(Box::new(ImagesReport {
                images: 3,
                left_out: 2,
                found: (0..findings / 2)
                    .map(|i| ImageReport {
                        name: format!("registry.example/team/app-{i}:1.4"),
                        digest: format!("sha256:{}", "0a".repeat(32)),
                        findings: vec![
                            ReportFinding {
                                rule: "secret-name".to_owned(),
                                fingerprint: "28e972a69e4a2b67".to_owned(),
                                parameter: None,
                                place: "history layer 12 NPM_TOKEN".to_owned(),
                            };
                            2
                        ],
                    })
                    .collect(),
                ..ImagesReport::default()
            })),
            parameters: report(parameters, 0)
                .parameters
                .into_iter()
                .map(|p| ReportParameter { proof, differs_in: vec![], ..p })
                .collect(),
            ..report(0, 100)
        };
        for (findings, proof, parameters, listed) in [
            (10, Proof::Proven, 3, 10..11),
            (100, Proof::Proven, 3, 20..99),
            (100, Proof::Incomparable, 500, 5..6),
            (100, Proof::Proven, 172, 1..6),
            (100, Proof::Proven, 500, 0..1),
        ] {
            let message = message(&found(findings, proof, parameters));
            assert!(message.len() <= LIMIT);
            let read: Report = serde_json::from_str(&message).unwrap();
            let images = read.images.unwrap();
            let shown: usize = images.found.iter().map(|image| image.findings.len()).sum();
            assert_eq!(shown + images.left_out, findings + 2, "none is forgotten");
            assert!(listed.contains(&shown), "{shown} of {findings} beside {parameters} {proof:?}");
            assert_eq!(read.parameters.is_empty(), proof == Proof::Incomparable);
        }
        let short = report(3, 200);
        assert_eq!(serde_json::from_str::<Report>(&message(&short)).unwrap(), short);
    }

    #[test]
    fn of_log_lines_that_do_not_fit_both_ends_stay() {
        for (lines, length, shown) in [(10, 60, 20..21), (10, 300, 8..14), (10, 900, 1..5), (10, 5000, 0..1)]
        {
            let logs = LogsReport {
                lines: 700,
                digest: "0a".repeat(32),
                file: "/home/deploy/.local/state/keyturn/app/access-logs/leak.token.20261123T120000Z.1.log"
                    .to_owned(),
                first: (0..lines).map(|n| format!("{n} {}", "ä".repeat(length / 2))).collect(),
                last: (0..lines).map(|n| format!("-{n} {}", "ä".repeat(length / 2))).collect(),
                ..LogsReport::default()
            };
            let message = message(&Report { logs: Some(Box::new(logs.clone())), ..report(0, 200) });
            assert!(message.len() <= LIMIT);
            let read = serde_json::from_str::<Report>(&message).unwrap().logs.unwrap();
            assert_eq!((read.lines, &read.digest, &read.file), (700, &logs.digest, &logs.file));
            assert!(shown.contains(&(read.first.len() + read.last.len())), "{read:?}");
            assert!(logs.first.starts_with(&read.first) && logs.last.ends_with(&read.last), "both ends stay");
        }
    }

    #[test]
    fn a_shorter_report_replaces_a_longer_one_in_the_same_file() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("termination-log");
        std::fs::write(&path, "").unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(&path);
        write(&path, &report(10, 100)).unwrap();
        write(&path, &report(0, 1)).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&std::fs::read(&path).unwrap()).unwrap(), report(0, 1));
        assert_eq!(inode(&path), before);
    }
}
