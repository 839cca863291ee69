//! State that all measurements share.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::api_server::ApiServer;
use crate::objects::Objects;

pub(crate) struct Bench {
    pub objects: Objects,
    pub api_server: ApiServer,
    /// Path of the keyturn program.
    pub keyturn: PathBuf,
    /// Folder for the logs of the controllers.
    pub logs: PathBuf,
    pub began: Instant,
}

impl Bench {
    /// Prints a line of progress to standard error.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("{:7.0} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

/// Returns the deadline for work on this number of objects that neither a budget nor a quota delays.
pub(crate) fn patience(objects: usize) -> Duration {
    Duration::from_secs(60) + Duration::from_millis(500) * u32::try_from(objects).unwrap_or(u32::MAX)
}
