//! The audit of the images that the project's containers run, over the connection of the run. It never makes a run
//! fail: its report names what could not be audited.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::Run;
use super::host::{self, AboutImage, HostError, Line, Request};
use crate::api::text::is_visible;
use crate::audit::image::{self, Image};
use crate::audit::layers::{self, Archive, FileHit, Limits};
use crate::audit::{self, Audit, Fingerprints, Place};
use crate::deploy::report::{ImageReport, ImagesReport, LayersReport, ReportFinding, short_id};
use crate::deploy::ssh::connection::{Connection, Tunnel};
use crate::deploy::task::{Layers, TaskAudit};
use crate::text::HostText;

/// Length of the time before the deadline in which no new audit starts, so that earlier results can still be reported.
const TIME_TO_TELL: Duration = Duration::from_secs(15);
/// Maximum number of findings in the files of one image: a report has no space for more.
const MOST_IN_FILES: usize = 32;
/// Longest path that is reported, in characters. Of a longer path only the end is reported.
const LONGEST_PATH: usize = 120;
/// Maximum number of images of a project that are audited; the others are left out.
const MOST_IMAGES: usize = 32;
/// Maximum number of bytes of docker's data about one image. About 10 KiB are usual.
const IMAGE_LIMIT: usize = 1 << 20;
/// Longest description of a problem, in characters.
const LONGEST_PROBLEM: usize = 300;

/// Returns the report to use until the images are audited. If the pod ends before that, it is the final one.
pub(super) fn not_looked_at() -> ImagesReport {
    let problem = "the pod ended before it audited the images".to_owned();
    ImagesReport { problem: Some(problem), ..ImagesReport::default() }
}

impl Run<'_> {
    /// Audits every image once, even if containers run it under several names.
    pub(super) async fn look_at_images(&mut self, audit: &TaskAudit) -> ImagesReport {
        let mut report = ImagesReport::default();
        let mut problems = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(self.task.audit_seconds());
        let looked = self.look_at_all(audit, deadline, &mut report, &mut problems);
        if timeout_at(deadline, looked).await.is_err() {
            problems.push("the audit took too long".to_owned());
            // An answer may still arrive on this connection.
            self.connection = None;
        }
        report.problem = (!problems.is_empty()).then(|| short(&problems.join("; ")));
        report
    }

    async fn look_at_all(
        &mut self,
        audit: &TaskAudit,
        deadline: Instant,
        report: &mut ImagesReport,
        problems: &mut Vec<String>,
    ) {
        let images = match self.images().await {
            Ok(images) => images,
            Err(problem) => return problems.push(problem),
        };
        report.images = images.len();
        match audit.layers {
            Layers::Ignore => {}
            Layers::Skip => report.ids = images.keys().take(MOST_IMAGES).map(|id| short_id(id)).collect(),
            Layers::Look => report.layers = Some(LayersReport::default()),
        }
        let deadline = deadline - TIME_TO_TELL;
        if images.len() > MOST_IMAGES {
            problems.push(format!("only {MOST_IMAGES} of {} images are audited", images.len()));
        }
        for (id, name) in images.into_iter().take(MOST_IMAGES) {
            let shown = if name.is_empty() { id.clone() } else { name };
            let mut files = Vec::new();
            if let Some(layers) = &mut report.layers {
                let problem = match self.files_of(&id, deadline).await {
                    Err(why) => Some(why),
                    Ok(archive) => {
                        layers.files += archive.looked.files;
                        report.left_out += usize::try_from(archive.looked.left_out).unwrap_or_default();
                        files = archive.hits;
                        archive.looked.problems.into_iter().next()
                    }
                };
                // Only the first problem is reported: a report has little space.
                let of_image = |problem: String| short(&format!("the layers of {shown}: {problem}"));
                layers.problem = layers.problem.take().or_else(|| problem.map(of_image));
            }
            match self.look_at(audit, &id, files).await {
                Err(problem) => problems.push(format!("{shown}: {problem}")),
                Ok((image, found)) => {
                    report.allowed += found.allowed.len();
                    let findings: Vec<ReportFinding> = found.findings.iter().map(reported).collect();
                    // A container may have been started with the image ID alone.
                    let named = image.names.first().filter(|_| id.contains(&shown)).unwrap_or(&shown);
                    let name = HostText::name(named).into();
                    report.found.push(ImageReport { name, digest: id, findings });
                }
            }
        }
        report.found.retain(|image| !image.findings.is_empty());
    }

    /// Returns the images by ID, each with the first name with which containers were started.
    async fn images(&mut self) -> Result<BTreeMap<String, String>, String> {
        let mut images = BTreeMap::<String, String>::new();
        let request = Request::Images { task: self.task };
        for line in
            self.ask_once(&request).await.map_err(|_| "the connection to the host was lost".to_owned())?
        {
            match line {
                Line::Unfit(why) => return Err(why.into()),
                Line::Image { id, name } => {
                    let name = String::from(name);
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
        id: &str,
        files: Vec<FileHit>,
    ) -> Result<(Image, Audit), String> {
        let about = self.about(id).await?;
        let (allowances, matcher) = (audit.allowances.clone(), self.matcher.clone());
        // Runs on a blocking thread: the search may take long, and the connection must be kept alive meanwhile.
        let looked = tokio::task::spawn_blocking(move || {
            let image = image::parse(&about.inspect, &about.history).map_err(|error| error.to_string())?;
            let keys = Fingerprints::default();
            let found = audit::audit_with_files(&image, files, &allowances, &keys, Some(&matcher));
            Ok((image, found))
        });
        looked.await.map_err(|_| "the audit was aborted".to_owned())?
    }

    /// Audits the layers of an image while docker saves it.
    async fn files_of(&mut self, id: &str, deadline: Instant) -> Result<Archive, String> {
        let lost = || "the connection to the host was lost".to_owned();
        let matcher = self.matcher.clone();
        let request = Request::Save { task: self.task, id };
        let connection: &Connection = self.connect().await.map_err(|_| lost())?;
        let stream = host::save(connection, &request).await.map_err(|_| lost())?;
        let mut stream = Blocking { stream, runtime: Handle::current(), deadline };
        let scanned = tokio::task::spawn_blocking(move || {
            let begun = host::begin_saved(&mut stream);
            begun.map_err(|_| "the host sent no data about it".to_owned())??;
            let limits =
                Limits { findings: MOST_IN_FILES, deadline: Some(deadline.into_std()), ..Limits::default() };
            layers::scan(BufReader::with_capacity(1 << 16, stream), Some(&matcher), limits)
                .map_err(|error| error.to_string())
        });
        let scanned = scanned.await.map_err(|_| "the audit was aborted".to_owned())?;
        if scanned.is_err() || Instant::now() >= deadline {
            // The rest of the image may still arrive on this connection.
            self.connection = None;
        }
        scanned
    }

    async fn about(&mut self, id: &str) -> Result<AboutImage, String> {
        let lost = || "the connection to the host was lost".to_owned();
        let request = Request::Image { task: self.task, id };
        let output = self.output;
        let connection: &Connection = self.connect().await.map_err(|_| lost())?;
        let answer = host::ask_about_image(connection, &request, IMAGE_LIMIT, output).await;
        match answer {
            Ok(answer) => answer,
            Err(HostError::NoAnswer(_)) => Err("the host sent no data about it".to_owned()),
            Err(HostError::Ssh(_)) => Err(lost()),
        }
    }
}

/// The host's stream for a thread that blocks on it until the deadline.
struct Blocking {
    stream: Tunnel,
    runtime: Handle,
    deadline: Instant,
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.runtime.block_on(async { timeout_at(self.deadline, self.stream.read(buffer)).await });
        read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn short(problem: &str) -> String {
    problem.chars().filter(|c| is_visible(*c)).take(LONGEST_PROBLEM).collect()
}

fn reported(finding: &audit::Finding) -> ReportFinding {
    let place = match &finding.place {
        Place::File(path) if path.chars().count() > LONGEST_PATH => {
            let end: String = path.chars().skip(path.chars().count() - LONGEST_PATH).collect();
            finding.to_string().replacen(path.as_str(), &format!("…{end}"), 1)
        }
        _ => finding.to_string(),
    };
    ReportFinding {
        rule: finding.rule.id().to_owned(),
        fingerprint: finding.fingerprint.clone(),
        parameter: finding.parameter.clone(),
        // The builder of an image chooses the names of its files, so they may contain anything.
        place: place.chars().filter(|c| is_visible(*c)).collect(),
    }
}
