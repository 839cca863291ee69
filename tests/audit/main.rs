//! Tests the audit of images: on a labelled corpus of realistic configurations, compared with the `grep` of a runbook,
//! and as the command that a pipeline calls.

mod accuracy;
mod archive;
mod command;
mod corpus;
mod grep;
mod image;
mod later;
mod layers;
mod managed;
mod negatives;
mod positives;
