//! Requests to the API server by all programs except this one: the server's own counter minus the requests counted by
//! this program's client.

use kube::Client;

use crate::client::OwnRequests;
use crate::counts::Counts;
use crate::failure::{Failure, Result};

const COUNTER: &str = "apiserver_request_total{";

pub(crate) struct ApiServer {
    client: Client,
    own: OwnRequests,
}

impl ApiServer {
    pub(crate) fn new(client: Client, own: OwnRequests) -> Self {
        Self { client, own }
    }

    /// Returns the number of requests of other programs so far, by name such as `PUT managedsecrets/status`. Watches
    /// are left out, since the server counts a watch only when it ends.
    pub(crate) async fn requests(&self) -> Result<Counts> {
        let what = "read the metrics of the API server";
        let request = http::Request::get("/metrics").body(Vec::new()).map_err(kube::Error::HttpError);
        let text = self.client.request_text(request.map_err(Failure::api(what))?).await;
        Ok(counts(&text.map_err(Failure::api(what))?).without(&self.own.so_far()))
    }
}

/// True for every verb but `GET` and `LIST`.
pub(crate) fn is_write(name: &str) -> bool {
    !name.starts_with("GET ") && !name.starts_with("LIST ")
}

/// True for keyturn's own resources, Events and Secrets. Leases are left out: every component renews one all the time.
pub(crate) fn is_of_interest(group: &str, resource: &str) -> bool {
    match group {
        "keyturn.dev" => true,
        "" | "events.k8s.io" => ["events", "secrets"].contains(&resource),
        _ => false,
    }
}

/// Formats the name of a request, such as `PUT managedsecrets/status`.
pub(crate) fn name(verb: &str, resource: &str, subresource: &str) -> String {
    let slash = if subresource.is_empty() { "" } else { "/" };
    format!("{verb} {resource}{slash}{subresource}")
}

fn counts(metrics: &str) -> Counts {
    let mut counts = Counts::default();
    for line in metrics.lines().filter(|line| line.starts_with(COUNTER)) {
        let of = |label| label_of(line, label).unwrap_or_default();
        let (verb, resource) = (of("verb"), of("resource"));
        if verb == "WATCH" || !is_of_interest(of("group"), resource) {
            continue;
        }
        counts.add(name(verb, resource, of("subresource")), value(line).unwrap_or_default());
    }
    counts
}

fn label_of<'a>(line: &'a str, label: &str) -> Option<&'a str> {
    // `subresource="` ends in `resource="` too, so the character before the label is part of the search.
    let begins = ['{', ','].map(|before| format!("{before}{label}=\""));
    let value = begins.iter().find_map(|begin| line.split_once(begin.as_str()))?.1;
    value.split('"').next()
}

/// Parses the number at the end of a line. The server may write a large number as `1.234567e+06`.
fn value(line: &str) -> Option<u64> {
    let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it counts requests")]
    let number = value as u64;
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="keyturn.dev",resource="managedsecrets",scope="resource",subresource="status",verb="PUT",version="v1alpha1"} 12
apiserver_request_total{code="409",component="apiserver",dry_run="",group="keyturn.dev",resource="managedsecrets",scope="resource",subresource="status",verb="PUT",version="v1alpha1"} 1
apiserver_request_total{code="200",component="apiserver",dry_run="",group="keyturn.dev",resource="rotationgrants",scope="cluster",subresource="",verb="LIST",version="v1alpha1"} 1.5e+03
apiserver_request_total{code="0",component="apiserver",dry_run="",group="keyturn.dev",resource="managedsecrets",scope="namespace",subresource="",verb="WATCH",version="v1alpha1"} 7
apiserver_request_total{code="201",component="apiserver",dry_run="",group="events.k8s.io",resource="events",scope="resource",subresource="",verb="POST",version="v1"} 2
apiserver_request_total{code="200",component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 99
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="LIST",version="v1"} 4
apiserver_request_terminations_total{group="keyturn.dev",resource="managedsecrets",verb="PUT"} 5
"#;

    #[test]
    fn requests_are_counted_by_verb_and_resource_whatever_was_answered() {
        let counts = counts(METRICS);
        let expected = "LIST rotationgrants 1500, POST events 2, PUT managedsecrets/status 13";
        assert_eq!(counts.to_string(), expected);
        assert_eq!(counts.only(is_write).total(), 15);
    }
}
