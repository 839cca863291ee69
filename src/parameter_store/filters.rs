//! The filters of DescribeParameters for the folders and names to list.

use aws_sdk_ssm::types::ParameterStringFilter;

use super::StoreError;
use super::answers::malformed;

/// The folders and names to list, each parameter once: no folder inside another, no name inside a folder.
pub(super) struct Wanted {
    pub folders: Vec<String>,
    pub names: Vec<String>,
}

impl Wanted {
    pub(super) fn new(wanted: &[String]) -> Self {
        let is_below =
            |path: &str, folder: &String| folder.as_str() != path && path.starts_with(folder.as_str());
        let folders: Vec<&String> = wanted.iter().filter(|entry| entry.ends_with('/')).collect();
        let outside = |path: &str| !folders.iter().any(|folder| is_below(path, folder));
        let sorted = |entries: Vec<String>| {
            let mut entries = entries;
            entries.sort();
            entries.dedup();
            entries
        };
        let kept = |is_folder: bool| {
            let of_kind = wanted.iter().filter(|entry| entry.ends_with('/') == is_folder);
            sorted(of_kind.filter(|entry| outside(entry)).cloned().collect())
        };
        let folders = kept(true).iter().map(|folder| filter_form(folder).to_owned()).collect();
        Self { folders, names: kept(false) }
    }
}

/// Removes the closing slash, except from the root: SSM expects the path of a folder without it.
pub(super) fn filter_form(folder: &str) -> &str {
    match folder.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

pub(super) fn filter(
    key: &str,
    option: &str,
    values: &[String],
) -> Result<ParameterStringFilter, StoreError> {
    ParameterStringFilter::builder()
        .key(key)
        .option(option)
        .set_values(Some(values.to_vec()))
        .build()
        .map_err(|_| malformed("DescribeParameters", &values.join(", ")))
}
