//! Measures how many secrets are found, and how many findings are really secrets.

use keyturn::audit::image::{self, Image};
use keyturn::audit::{self, Allowances, Audit, Fingerprints, report};
use keyturn::secret_value::SecretValue;

use super::corpus::{Case, cases, later_cases};
use super::grep;

fn audited(case: &Case) -> (Image, Audit) {
    let held = |text: &str| SecretValue::new(text.to_owned());
    let image = image::parse(&held(&case.outputs.inspect), &held(&case.outputs.history))
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let audit = audit::audit(&image, &Allowances::default(), &Fingerprints::default(), None);
    (image, audit)
}

/// Numbers of images: correctly reported, wrongly reported, missed, and correctly passed.
#[derive(Default)]
struct Score {
    found: u32,
    wrong: u32,
    missed: u32,
    passed: u32,
}

impl Score {
    fn count(&mut self, alarm: bool, secret: bool) {
        match (alarm, secret) {
            (true, true) => self.found += 1,
            (true, false) => self.wrong += 1,
            (false, true) => self.missed += 1,
            (false, false) => self.passed += 1,
        }
    }

    fn precision(&self) -> f64 {
        f64::from(self.found) / f64::from(self.found + self.wrong)
    }

    fn recall(&self) -> f64 {
        f64::from(self.found) / f64::from(self.found + self.missed)
    }

    fn row(&self, who: &str) -> String {
        format!(
            "| {who} | {} | {} | {} | {} | {:.3} | {:.3} |",
            self.found,
            self.wrong,
            self.missed,
            self.passed,
            self.precision(),
            self.recall()
        )
    }
}

/// The scores of the audit, and those of the grep on the same steps without a base image.
struct Scores {
    ours: Score,
    scratch: Score,
    /// The images for which the audit is wrong.
    mistaken: Vec<String>,
}

fn scores(cases: &[Case]) -> Scores {
    let (mut ours, mut theirs, mut scratch) = (Score::default(), Score::default(), Score::default());
    let mut mistaken = Vec::new();
    for case in cases {
        let (_, audit) = audited(case);
        let secret = !case.planted.is_empty();
        ours.count(!audit.findings.is_empty(), secret);
        theirs.count(grep::alarms(&case.outputs), secret);
        scratch.count(grep::alarms(&case.from_scratch), secret);
        if audit.findings.is_empty() == secret {
            mistaken.push(format!("{}: {:?}", case.name, audit.findings));
        }
    }
    println!("{} images, {} with a secret", cases.len(), ours.found + ours.missed);
    println!("| | found | wrong | missed | passed | precision | recall |\n|---|---|---|---|---|---|---|");
    println!("{}\n{}", ours.row("keyturn audit image"), theirs.row("the runbook's grep"));
    println!("{}", scratch.row("the grep, from scratch"));
    println!("mistaken: {mistaken:#?}");
    Scores { ours, scratch, mistaken }
}

#[test]
fn it_finds_what_the_grep_misses_and_passes_what_the_grep_reports() {
    let cases = cases();
    let Scores { ours, scratch, mistaken, .. } = scores(&cases);
    assert!(cases.len() >= 200, "only {} images", cases.len());
    assert!(ours.found + ours.missed >= 100 && ours.wrong + ours.passed >= 100);
    assert!(ours.missed <= 2, "missed: {mistaken:#?}");
    assert!(ours.wrong <= 2, "wrong: {mistaken:#?}");
    // The scores of the grep must be bad; otherwise the corpus is too easy to prove anything.
    assert!(scratch.missed >= 20 && scratch.wrong >= 50, "{}", scratch.row("grep"));
}

#[test]
fn forms_that_came_later_are_found_but_for_two_that_nothing_tells_apart() {
    let Scores { ours, mistaken, .. } = scores(&later_cases());
    assert_eq!((ours.found + ours.missed, ours.wrong + ours.passed), (80, 80));
    assert!(ours.missed <= 2 && ours.wrong <= 2, "{mistaken:#?}");
}

#[test]
fn a_secret_is_one_finding() {
    for case in cases().iter().filter(|case| !case.planted.is_empty()) {
        let (_, audit) = audited(case);
        assert!(audit.findings.len() <= case.planted.len(), "{}: {:#?}", case.name, audit.findings);
    }
}

#[test]
fn no_report_shows_a_piece_of_a_value() {
    for case in cases() {
        let (image, audit) = audited(&case);
        let debug = format!("{audit:?}");
        let audited = [report::Audited { name: "app".to_owned(), image, audit, looked: None }];
        let reports = [
            report::text(&audited),
            report::json(&audited).to_string(),
            report::sarif(&audited).to_string(),
            debug,
        ];
        for window in case.planted.iter().flat_map(|secret| secret.as_bytes().windows(7)) {
            let piece = std::str::from_utf8(window).unwrap();
            let shown = reports.iter().find(|report| report.contains(piece));
            assert!(shown.is_none(), "{}: {piece} is in {}", case.name, shown.unwrap());
        }
    }
}
