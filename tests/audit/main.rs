//! The audit of images: on a labelled corpus of configurations as people build them, beside the `grep` of a runbook, and
//! as the command that a pipeline calls.

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
