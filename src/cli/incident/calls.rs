//! Every call in CloudTrail that concerns an incident, written while it is read, so that memory use does not grow with
//! the number of calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::IpAddr;

use serde_json::json;

use super::markup::quoted;
use super::report::Format;
use super::search::{Failure, Patience, Search, follow};
use crate::api::time::to_text;
use crate::incident::event::{About, Answer, CHANGES, Call, DECRYPT};
use crate::incident::expected::{Expectation, expectation};
use crate::incident::reading::{self, Watched};
use crate::incident::trail::{Trail, TrailError};

/// Maximum number of addresses of expected principals that are looked up in the time before the search.
const MAX_ADDRESSES: usize = 10_000;

/// Reads every region, writes every call, and writes at the end what is missing. Returns what is missing.
///
/// # Errors
/// The report could not be written.
pub async fn write_calls(
    out: &mut (dyn Write + Send),
    format: Format,
    search: &Search,
    trail: &dyn Trail,
    patience: Patience,
) -> io::Result<Vec<String>> {
    let mut calls = Calls { out, format, search, counts: Counts::default() };
    let mut missing = search.missing.clone();
    calls.begin()?;
    for region in search.regions() {
        let watched: Vec<Watched> = search.watched.iter().filter(|w| w.region == region).cloned().collect();
        let reading = reading::start(&watched, search.since, search.until, false);
        let all = follow(trail, &watched, reading, patience, |call| calls.call(call)).await;
        let before = reading::before(&watched, search.since, search.until);
        let looked_up = match all {
            Ok(()) => follow(trail, &watched, before, patience, |call| Ok(calls.counts.known(call))).await,
            Err(failure) => Err(failure),
        };
        match looked_up {
            Ok(()) => {}
            Err(Failure::Trail(error)) => missing.push(said(&error)),
            Err(Failure::Write(error)) => return Err(error),
        }
    }
    let not_found = search.listed.difference(&calls.counts.seen).collect::<Vec<_>>();
    if !not_found.is_empty() && missing.is_empty() {
        let named = not_found.iter().map(|(principal, address)| format!("{principal} at {address}"));
        missing.push(format!(
            "CloudTrail has no call of these callers, which the status lists: {}. Either the AWS \
             credentials belong to another account, or the calls are older than the 90 days that CloudTrail \
             keeps",
            named.collect::<Vec<_>>().join(", ")
        ));
    }
    calls.end(&missing)?;
    Ok(missing)
}

/// Describes an error for the user of the command; the controller's own messages mention the controller's role.
fn said(error: &TrailError) -> String {
    match error {
        TrailError::Denied { region } => {
            format!("these AWS credentials may not read CloudTrail in {region} (cloudtrail:LookupEvents)")
        }
        TrailError::Throttled { region } => format!("CloudTrail in {region} was throttled for too long"),
        TrailError::Failed { region, detail } => {
            format!("CloudTrail in {region} could not be read: {detail}")
        }
    }
}

/// Bounded summary of the calls written so far.
#[derive(Default)]
struct Counts {
    kinds: BTreeMap<&'static str, u64>,
    unattributed: u64,
    /// Callers listed in the status for which a call was found.
    seen: BTreeSet<(String, String)>,
    /// Addresses of expected principals for which no networks are listed; true if the address was used in the week
    /// before the search.
    addresses: BTreeMap<(String, String), bool>,
    too_many_addresses: bool,
}

impl Counts {
    fn add(&mut self, call: &Call, says: Expectation, listed: &BTreeSet<(String, String)>) {
        let reads = !CHANGES.contains(&call.name.as_str());
        let kind = match (call.answer == Answer::Denied, says.is_met(), reads) {
            (true, _, true) => "refused reads",
            (true, _, false) => "refused changes",
            (false, true, true) => "expected reads",
            (false, true, false) => "expected changes",
            (false, false, true) => "unexpected reads",
            (false, false, false) => "unexpected changes",
        };
        *self.kinds.entry(kind).or_default() += 1;
        let caller = (call.principal.clone(), call.address.clone());
        if listed.contains(&caller) {
            self.seen.insert(caller.clone());
        }
        let is_address = call.address.parse::<IpAddr>().is_ok();
        let looked_up = says == Expectation::Principal && is_address && call.answer == Answer::Done;
        if looked_up && reads && !self.addresses.contains_key(&caller) {
            if self.addresses.len() < MAX_ADDRESSES {
                self.addresses.insert(caller, false);
            } else {
                self.too_many_addresses = true;
            }
        }
    }

    /// Records a call of the time before the search; true while an address was not found yet.
    fn known(&mut self, call: Option<&Call>) -> bool {
        if let Some(call) = call.filter(|call| call.answer != Answer::Denied) {
            let caller = (call.principal.clone(), call.address.clone());
            self.addresses.entry(caller).and_modify(|known| *known = true);
        }
        self.addresses.values().any(|known| !known)
    }

    fn new_addresses(&self) -> impl Iterator<Item = &(String, String)> {
        self.addresses.iter().filter(|(_, known)| !**known).map(|(caller, _)| caller)
    }
}

/// Part of the report that lists the calls.
struct Calls<'a> {
    out: &'a mut (dyn Write + Send),
    format: Format,
    search: &'a Search,
    counts: Counts,
}

impl Calls<'_> {
    fn begin(&mut self) -> io::Result<()> {
        let search = self.search;
        let regions = search.regions().into_iter().collect::<Vec<_>>().join(", ");
        if self.format == Format::Json {
            return write!(self.out, ",\n  \"calls\": [");
        }
        writeln!(self.out, "\n## Every call in CloudTrail\n")?;
        if search.watched.is_empty() {
            return Ok(());
        }
        writeln!(
            self.out,
            "From {} to {} in {}, with the AWS credentials of the person who ran this report. The last \
             quarter of an hour may be incomplete, since CloudTrail shows events late. For each region and \
             kind of call, the latest call comes first.\n",
            to_text(search.since),
            to_text(search.until),
            quoted(&regions)
        )?;
        writeln!(
            self.out,
            "| Expected | When | Call | Principal | Session | Address | Client | Secrets | Event |"
        )?;
        writeln!(self.out, "|---|---|---|---|---|---|---|---|---|")
    }

    /// Writes a call if the incident is about it. Always returns true, to continue reading.
    fn call(&mut self, call: Option<&Call>) -> io::Result<bool> {
        let Some(call) = call else {
            self.counts.unattributed += 1;
            return Ok(true);
        };
        let secrets = reading::concerned(call, &self.search.watched);
        if call.about == About::Unknown && call.name != DECRYPT {
            self.counts.unattributed += 1;
        }
        if secrets.is_empty() || call.answer == Answer::Failed {
            return Ok(true);
        }
        let says = expectation(call.into(), &self.search.expected);
        let first = self.counts.kinds.is_empty();
        self.counts.add(call, says, &self.search.listed);
        match self.format {
            Format::Markdown => self.row(call, says, &secrets)?,
            Format::Json => {
                let call = json!({
                    "expected": says.is_met(), "addressIs": says.address(), "denied": call.answer == Answer::Denied,
                    "time": to_text(call.at), "call": call.name, "principal": call.principal, "session": call.session,
                    "address": call.address, "userAgent": call.user_agent, "secrets": secrets, "eventId": call.id,
                });
                write!(self.out, "{}\n    {call}", if first { "" } else { "," })?;
            }
        }
        Ok(true)
    }

    fn row(&mut self, call: &Call, says: Expectation, secrets: &[&str]) -> io::Result<()> {
        let expected = match says {
            Expectation::Nobody => "**no**",
            Expectation::NotFromThere => "**unexpected network**",
            Expectation::Principal | Expectation::FromThere => "yes",
        };
        writeln!(
            self.out,
            "| {expected}{} | {} | {} | {} | {} | {} | {} | {} | {} |",
            if call.answer == Answer::Denied { ", refused" } else { "" },
            to_text(call.at),
            quoted(&call.name),
            quoted(&call.principal),
            quoted(call.session.as_deref().unwrap_or_default()),
            quoted(&call.address),
            quoted(&call.user_agent),
            quoted(&secrets.join(", ")),
            quoted(&call.id)
        )
    }

    fn end(&mut self, missing: &[String]) -> io::Result<()> {
        let counts = &self.counts;
        let new: Vec<String> =
            counts.new_addresses().map(|(principal, address)| format!("{principal} at {address}")).collect();
        if self.format == Format::Json {
            let trail = json!({
                "since": to_text(self.search.since), "until": to_text(self.search.until), "regions": self.search.regions(),
                "counts": counts.kinds, "unattributed": counts.unattributed, "newAddresses": new, "missing": missing,
            });
            return writeln!(self.out, "\n  ],\n  \"trail\": {trail}\n}}");
        }
        let kinds: Vec<String> = counts.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        match kinds.as_slice() {
            [] => writeln!(self.out, "\nThe search found no call.")?,
            kinds => writeln!(self.out, "\n{}.", kinds.join(", "))?,
        }
        if counts.unattributed > 0 {
            let more = counts.unattributed;
            writeln!(self.out, "\n{more} events do not name their parameter and are not listed.")?;
        }
        if !new.is_empty() {
            let named: Vec<String> = new.iter().map(|one| format!("- {}", quoted(one))).collect();
            let intro =
                "Expected principals at addresses that they did not use in the week before the search:";
            writeln!(self.out, "\n{intro}\n\n{}", named.join("\n"))?;
        }
        if counts.too_many_addresses {
            writeln!(
                self.out,
                "\nThere are more than {MAX_ADDRESSES} addresses; only the first ones were looked up in \
                 that week."
            )?;
        }
        if !missing.is_empty() {
            let named: Vec<String> = missing.iter().map(|one| format!("- {}", quoted(one))).collect();
            let intro = "**This list of calls is incomplete.** The SecretIncident's status is above. \
                         Missing:";
            writeln!(self.out, "\n{intro}\n\n{}", named.join("\n"))?;
        }
        Ok(())
    }
}
