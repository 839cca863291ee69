//! `keyturn audit image`: finds the secrets in an image, for the last step of a build pipeline.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use clap::{Args, Subcommand, ValueEnum};

use crate::audit::image::{self, Image, ImageError};
use crate::audit::layers::{self, Archive, FileHit, LayersError, Limits, Looked};
use crate::audit::report::Audited;
use crate::audit::{self, Allowances, AllowedFinding, Fingerprints, report};
use crate::secret_value::SecretValue;

/// Exit code when there are findings.
const FINDINGS: u8 = 1;
/// Exit code when the audit failed or is incomplete: no image, no docker, or output that cannot be parsed.
const NOT_AUDITED: u8 = 2;

/// Arguments of `keyturn audit`.
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// The subcommand that was given.
    #[command(subcommand)]
    pub what: What,
}

/// Subcommands of `keyturn audit`.
#[derive(Subcommand, Clone, Debug)]
pub enum What {
    /// Search for secrets in an image's configuration, in the commands of its layers, and in their files. Exit code 0:
    /// none found; 1: findings; 2: the audit failed or is incomplete
    Image(ImageArgs),
}

/// Arguments of `keyturn audit image`.
#[derive(Args, Clone, Debug)]
pub struct ImageArgs {
    /// Name, digest or ID of an image that the local docker has
    #[arg(required_unless_present_any = ["inspect", "archive"], conflicts_with_all = ["inspect", "history", "archive"])]
    pub image: Option<String>,

    /// Also search the files in the image's layers; this runs `docker image save`
    #[arg(long, requires = "image")]
    pub layers: bool,

    /// File written by `docker save IMAGE`, or an OCI layout as a tar, instead of asking docker; `-` for standard
    /// input. The files in the layers of each platform are searched too
    #[arg(long, value_name = "FILE", conflicts_with_all = ["inspect", "history"])]
    pub archive: Option<PathBuf>,

    /// File with the output of `docker image inspect IMAGE`, instead of asking docker
    #[arg(long, value_name = "FILE", requires = "history")]
    pub inspect: Option<PathBuf>,

    /// File with the output of `docker history --no-trunc --format json IMAGE`
    #[arg(long, value_name = "FILE", requires = "inspect")]
    pub history: Option<PathBuf>,

    /// Program that provides the image's data
    #[arg(long, value_name = "PROGRAM", default_value = "docker")]
    pub docker: PathBuf,

    /// Format of the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Name of a variable (ENV or ARG) that may have a literal value although the name suggests a secret; repeatable
    #[arg(long, value_name = "NAME")]
    pub allow_env: Vec<String>,

    /// Fingerprint of an accepted finding: in every image, or in one image given by name or digest; repeatable
    #[arg(long, value_name = "[IMAGE=]FINGERPRINT", value_parser = allowed_finding)]
    pub allow: Vec<AllowedFinding>,

    /// File with accepted findings, one `[IMAGE=]FINGERPRINT` per line; `#` starts a comment
    #[arg(long, value_name = "FILE")]
    pub allow_list: Option<PathBuf>,

    /// File with a key of at least 16 bytes. With a key, fingerprints change with the value
    #[arg(long, value_name = "FILE")]
    pub fingerprint_key: Option<PathBuf>,
}

/// Format of the result.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people: one line for each finding, and a summary
    Text,
    /// For programs: one JSON object
    Json,
    /// For code scanning: SARIF 2.1.0
    Sarif,
}

/// Error that prevents a result.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file from the arguments cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// A line of the allow list is malformed; lines are counted from 1.
    #[error("{path}, line {line}: expected [IMAGE=]FINGERPRINT, with 16 hexadecimal digits")]
    AllowList {
        /// Path of the allow list.
        path: String,
        /// Number of the line, from 1.
        line: usize,
    },
    /// The fingerprint key has fewer than 16 bytes, not counting whitespace around it.
    #[error("{path}: a key of fewer than 16 bytes could be guessed")]
    Key {
        /// Path of the file with the key.
        path: String,
    },
    /// The name is empty, or begins with a dash, so that docker would take it for an option.
    #[error("{0:?} is not the name of an image")]
    Name(String),
    /// Docker cannot be run.
    #[error("cannot run {program}: {source}")]
    Program {
        /// Path or name of the program.
        program: String,
        /// The reason.
        source: io::Error,
    },
    /// Docker failed, for example because it does not have the image; `message` is its error output.
    #[error("{program} cannot inspect {image}: {message}")]
    Docker {
        /// Path or name of the program.
        program: String,
        /// The image as it was given, or its ID.
        image: String,
        /// Error output of the program; empty if it wrote none.
        message: String,
    },
    /// Docker's output is not UTF-8.
    #[error("the output of {program} is not UTF-8")]
    Encoding {
        /// Path or name of the program.
        program: String,
    },
    /// The data about the image cannot be parsed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The archive with the layers cannot be searched.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// There are no findings, but some layers were not searched completely; holds the reasons.
    #[error("nothing was found, but the audit is incomplete: {0}")]
    Incomplete(String),
    /// Standard output cannot be written.
    #[error("cannot write the result: {0}")]
    Output(#[source] io::Error),
}

/// Runs the audit, prints the result and returns the exit code.
pub fn run(args: &AuditArgs) -> ExitCode {
    let What::Image(args) = &args.what;
    match audited(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FINDINGS),
        Err(error) => {
            eprintln!("keyturn: not audited: {error}");
            ExitCode::from(NOT_AUDITED)
        }
    }
}

/// Runs the audit and prints the result; true when all images (an archive may hold several) are clean.
fn audited(args: &ImageArgs) -> Result<bool, AuditError> {
    let allowances = Allowances {
        variables: args.allow_env.iter().cloned().collect::<BTreeSet<_>>(),
        findings: allowed_findings(args)?,
    };
    let fingerprints = fingerprints(args)?;
    let images = images_of(args)?;
    let several = images.len() > 1;
    let mut audited = Vec::new();
    for ImageOf { image, platform, files } in images {
        let (files, looked) = files.unzip();
        let audit =
            audit::audit_with_files(&image, files.unwrap_or_default(), &allowances, &fingerprints, None);
        let name = args.image.as_ref().or_else(|| image.names.first()).unwrap_or(&image.id).clone();
        let name = match platform {
            Some(platform) if several => format!("{name} ({platform})"),
            _ => name,
        };
        audited.push(Audited { name, image, audit, looked });
    }
    let output = match args.format {
        Format::Text => report::text(&audited),
        Format::Json => format!("{:#}\n", report::json(&audited)),
        Format::Sarif => format!("{:#}\n", report::sarif(&audited)),
    };
    io::stdout().write_all(output.as_bytes()).map_err(AuditError::Output)?;
    let clean = audited.iter().all(|one| one.audit.findings.is_empty());
    let problems = audited.iter().filter_map(|one| one.looked.as_ref()).flat_map(|looked| &looked.problems);
    let problems: Vec<&str> = problems.map(String::as_str).collect();
    if clean && !problems.is_empty() {
        return Err(AuditError::Incomplete(problems.join("; ")));
    }
    Ok(clean)
}

/// Image, and the findings in the files of its layers if those were searched.
struct ImageOf {
    image: Image,
    platform: Option<String>,
    files: Option<(Vec<FileHit>, Looked)>,
}

fn images_of(args: &ImageArgs) -> Result<Vec<ImageOf>, AuditError> {
    if let Some(path) = &args.archive {
        let archives = if path == Path::new("-") {
            layers::scan_images(io::stdin().lock(), None, Limits::default())?
        } else {
            let file = File::open(path);
            let file =
                file.map_err(|source| AuditError::File { path: path.display().to_string(), source })?;
            layers::scan_images(file, None, Limits::default())?
        };
        return archives.into_iter().map(archived).collect();
    }
    let (inspect, history) = match (&args.image, &args.inspect, &args.history) {
        (_, Some(inspect), Some(history)) => (read(inspect)?, read(history)?),
        (Some(image), ..) => ask(&args.docker, image)?,
        _ => return Err(AuditError::Name(String::new())),
    };
    let image = image::parse(&inspect, &history)?;
    let archive = if args.layers { Some(save(&args.docker, &image.id)?) } else { None };
    let files = archive.map(|archive| (archive.hits, archive.looked));
    Ok(vec![ImageOf { image, platform: None, files }])
}

fn archived(archive: Archive) -> Result<ImageOf, AuditError> {
    let config = archive.config.unwrap_or_else(|| SecretValue::new(String::new()));
    let image = image::parse_config(archive.id, archive.names, &config)?;
    Ok(ImageOf { image, platform: archive.platform, files: Some((archive.hits, archive.looked)) })
}

/// Searches the layers while docker writes them.
fn save(docker: &Path, id: &str) -> Result<Archive, AuditError> {
    let program = docker.display().to_string();
    let cannot = |source| AuditError::Program { program: program.clone(), source };
    let mut command = Command::new(docker);
    command.args(["image", "save", id]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(cannot)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let complaints = thread::spawn(move || {
        let mut text = String::new();
        // Docker's error output is only used in a message.
        let _ = stderr.map(|stderr| stderr.take(4096).read_to_string(&mut text));
        text.trim().to_owned()
    });
    let scanned = stdout.map(|stdout| layers::scan(stdout, None, Limits::default()));
    // If the scan ended early, docker gets a closed pipe.
    let status = child.wait().map_err(cannot)?;
    let message = complaints.join().unwrap_or_default();
    match scanned {
        Some(Ok(archive)) => Ok(archive),
        Some(Err(error)) if status.success() || message.is_empty() => Err(error.into()),
        _ => Err(AuditError::Docker { program: program.clone(), image: id.to_owned(), message }),
    }
}

/// Runs docker itself, which knows its socket, its context and its credentials.
fn ask(docker: &Path, image: &str) -> Result<(SecretValue, SecretValue), AuditError> {
    // Docker would take a name that begins with a dash for an option.
    if image.is_empty() || image.starts_with('-') {
        return Err(AuditError::Name(image.to_owned()));
    }
    let inspect = output(docker, image, &["image", "inspect", image])?;
    let id = image::id(&inspect)?;
    // Every version of docker supports `{{json .}}`; `json` works only since version 23.
    let history = output(docker, image, &["history", "--no-trunc", "--format", "{{json .}}", &id])?;
    Ok((inspect, history))
}

fn output(docker: &Path, image: &str, arguments: &[&str]) -> Result<SecretValue, AuditError> {
    let program = docker.display().to_string();
    let ran = Command::new(docker).args(arguments).stdin(Stdio::null()).output();
    let ran = ran.map_err(|source| AuditError::Program { program: program.clone(), source })?;
    if !ran.status.success() {
        let message = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        return Err(AuditError::Docker { program, image: image.to_owned(), message });
    }
    String::from_utf8(ran.stdout).map(SecretValue::new).map_err(|_| AuditError::Encoding { program })
}

fn read(path: &Path) -> Result<SecretValue, AuditError> {
    let text = fs::read_to_string(path);
    text.map(SecretValue::new).map_err(|source| AuditError::File { path: path.display().to_string(), source })
}

fn fingerprints(args: &ImageArgs) -> Result<Fingerprints, AuditError> {
    let Some(path) = &args.fingerprint_key else { return Ok(Fingerprints::default()) };
    let key = read(path)?;
    if key.expose().trim().len() < 16 {
        return Err(AuditError::Key { path: path.display().to_string() });
    }
    Ok(Fingerprints::keyed(&key))
}

fn allowed_findings(args: &ImageArgs) -> Result<Vec<AllowedFinding>, AuditError> {
    let mut allowed = args.allow.clone();
    let Some(path) = &args.allow_list else { return Ok(allowed) };
    let list = fs::read_to_string(path)
        .map_err(|source| AuditError::File { path: path.display().to_string(), source })?;
    for (index, line) in list.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let entry = allowed_finding(entry)
            .map_err(|_| AuditError::AllowList { path: path.display().to_string(), line: index + 1 })?;
        allowed.push(entry);
    }
    Ok(allowed)
}

/// Parses `FINGERPRINT` or `IMAGE=FINGERPRINT`.
fn allowed_finding(entry: &str) -> Result<AllowedFinding, String> {
    let (image, fingerprint) = match entry.rsplit_once('=') {
        Some((image, fingerprint)) => (Some(image.to_owned()), fingerprint),
        None => (None, entry),
    };
    let hexadecimal = fingerprint.len() == 16 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal || image.as_ref().is_some_and(String::is_empty) {
        return Err("expected [IMAGE=]FINGERPRINT, with 16 hexadecimal digits".to_owned());
    }
    Ok(AllowedFinding { image, fingerprint: fingerprint.to_ascii_lowercase() })
}
