//! The audit of the images that the project's containers run, over the connection of the run. It fails no run: what
//! could not be looked at is said in its report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Run;
use super::host::{self, AboutImage, HostError, Line, Request};
use crate::audit::image::{self, Image};
use crate::audit::managed::Matcher;
use crate::audit::{self, Audit, Fingerprints};
use crate::deploy::report::{ImageReport, ImagesReport, ReportFinding};
use crate::deploy::ssh::connection::Connection;
use crate::deploy::task::TaskAudit;

/// How long it may take, beside the rest of the run.
pub const TIME: Duration = Duration::from_secs(60);
/// A project of more images is looked at in part.
const MOST_IMAGES: usize = 32;
/// What docker may say about one image, in bytes. Usual are some 10 KiB.
const IMAGE_LIMIT: usize = 1 << 20;
/// Longest name of an image that is reported, in characters.
const LONGEST_NAME: usize = 200;
/// Longest explanation, in characters.
const LONGEST_PROBLEM: usize = 300;

impl Run<'_> {
    /// Looks at every image once, whatever the names under which containers run it.
    pub(super) async fn look_at_images(&mut self, audit: &TaskAudit) -> ImagesReport {
        let mut report = ImagesReport::default();
        let mut problems = Vec::new();
        let deadline = Instant::now() + TIME;
        match Matcher::new(&audit.managed) {
            None => problems.push("the fingerprints of the managed values cannot be read".to_owned()),
            Some(matcher) => {
                let looked = self.look_at_all(audit, Arc::new(matcher), &mut report, &mut problems);
                if timeout_at(deadline, looked).await.is_err() {
                    problems.push(format!("it took longer than {} s", TIME.as_secs()));
                    // An answer may still be on its way.
                    self.connection = None;
                }
            }
        }
        report.problem = (!problems.is_empty()).then(|| {
            let all = problems.join("; ");
            all.chars().take(LONGEST_PROBLEM).collect()
        });
        report
    }

    async fn look_at_all(
        &mut self,
        audit: &TaskAudit,
        matcher: Arc<Matcher>,
        report: &mut ImagesReport,
        problems: &mut Vec<String>,
    ) {
        let images = match self.images().await {
            Ok(images) => images,
            Err(problem) => return problems.push(problem),
        };
        report.images = images.len();
        if images.len() > MOST_IMAGES {
            problems.push(format!("only {MOST_IMAGES} of {} images are looked at", images.len()));
        }
        for (id, name) in images.into_iter().take(MOST_IMAGES) {
            let shown = if name.is_empty() { id.clone() } else { name };
            match self.look_at(audit, matcher.clone(), &id).await {
                Err(problem) => problems.push(format!("{shown}: {problem}")),
                Ok((image, found)) => {
                    report.allowed += found.allowed.len();
                    let findings: Vec<ReportFinding> = found.findings.iter().map(reported).collect();
                    // A container may have been started with the bare ID.
                    let named = image.names.first().filter(|_| id.contains(&shown)).unwrap_or(&shown);
                    let name = named.chars().take(LONGEST_NAME).collect();
                    report.found.push(ImageReport { name, digest: id, findings });
                }
            }
        }
        report.found.retain(|image| !image.findings.is_empty());
    }

    /// The images by ID, with the first name that containers were started with.
    async fn images(&mut self) -> Result<BTreeMap<String, String>, String> {
        let mut images = BTreeMap::<String, String>::new();
        let request = Request::Images { task: self.task };
        for line in
            self.ask_once(&request).await.map_err(|_| "the connection to the host broke".to_owned())?
        {
            match line {
                Line::Unfit(why) => return Err(why),
                Line::Image { id, name } => {
                    let known = images.entry(id).or_insert_with(|| name.clone());
                    if name < *known {
                        *known = name;
                    }
                }
                _ => {}
            }
        }
        Ok(images)
    }

    async fn look_at(
        &mut self,
        audit: &TaskAudit,
        matcher: Arc<Matcher>,
        id: &str,
    ) -> Result<(Image, Audit), String> {
        let about = self.about(id).await?;
        let image = image::parse(&about.inspect, &about.history).map_err(|error| error.to_string())?;
        let allowances = audit.allowances.clone();
        // So long as the connection is kept alive beside it, it may take its time.
        let looked = tokio::task::spawn_blocking(move || {
            let found = audit::audit(&image, &allowances, &Fingerprints::default(), Some(&matcher));
            (image, found)
        });
        looked.await.map_err(|_| "the audit broke off".to_owned())
    }

    async fn about(&mut self, id: &str) -> Result<AboutImage, String> {
        let lost = || "the connection to the host broke".to_owned();
        let request = Request::Image { task: self.task, id };
        let progress = self.progress;
        let connection: &Connection = self.connect().await.map_err(|_| lost())?;
        let answer =
            host::ask_about_image(connection, &request, IMAGE_LIMIT, |data| progress.output(data)).await;
        match answer {
            Ok(answer) => answer,
            Err(HostError::NoAnswer(_)) => Err("the host gave no answer about it".to_owned()),
            Err(HostError::Ssh(_)) => Err(lost()),
        }
    }
}

fn reported(finding: &audit::Finding) -> ReportFinding {
    ReportFinding {
        rule: finding.rule.id().to_owned(),
        fingerprint: finding.fingerprint.clone(),
        parameter: finding.parameter.clone(),
        place: finding.to_string(),
    }
}
