//! The client for the API server, which counts this program's own requests.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Uri};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::util::MapRequestLayer;

use crate::api_server::{is_of_interest, name};
use crate::counts::Counts;
use crate::failure::{Failure, Result};

/// Number of requests of this program so far, under the same names as in [`crate::api_server`]. Clones share the
/// numbers.
#[derive(Clone, Default)]
pub(crate) struct OwnRequests(Arc<Mutex<Counts>>);

impl OwnRequests {
    pub(crate) fn so_far(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, method: &Method, uri: &Uri) {
        if let Some(name) = named(method, uri) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).add(name, 1);
        }
    }
}

/// Creates a client for the cluster of KUBECONFIG. Nothing is sent yet.
pub(crate) async fn connect() -> Result<(Client, OwnRequests)> {
    let own = OwnRequests::default();
    let builder = ClientBuilder::try_from(config().await?).map_err(Failure::api("connect to Kubernetes"))?;
    let counted = own.clone();
    let count = MapRequestLayer::new(move |request: Request<Body>| {
        counted.count(request.method(), request.uri());
        request
    });
    Ok((builder.with_layer(&count).build(), own))
}

/// Reads KUBECONFIG. The client reaches the API server directly, even if the shell has a proxy configured.
pub(crate) async fn config() -> Result<Config> {
    let config = Config::infer().await.map_err(kube::Error::InferConfig);
    let mut config = config.map_err(Failure::api("find a cluster by KUBECONFIG"))?;
    config.proxy_url = None;
    Ok(config)
}

/// Returns the name under which the API server counts a request; `None` for a watch and for requests that are not
/// counted.
fn named(method: &Method, uri: &Uri) -> Option<String> {
    let segments: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let (group, rest) = match segments.as_slice() {
        ["api", _version, rest @ ..] => ("", rest),
        ["apis", group, _version, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let rest = match rest {
        ["namespaces", _namespace, in_it @ ..] if !in_it.is_empty() => in_it,
        _ => rest,
    };
    let resource = *rest.first()?;
    let is_collection = rest.len() == 1;
    let is_watch =
        uri.query().unwrap_or_default().split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
    let verb = match (method, is_collection) {
        (&Method::GET, _) if is_watch => return None,
        (&Method::GET, true) => "LIST",
        (&Method::DELETE, true) => "DELETECOLLECTION",
        _ => method.as_str(),
    };
    is_of_interest(group, resource).then(|| name(verb, resource, rest.get(2).unwrap_or(&"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_as_the_api_server_counts_it() {
        let secrets = "/apis/keyturn.dev/v1alpha1/namespaces/a/managedsecrets";
        let cases = [
            ("POST", secrets.to_owned(), "POST managedsecrets"),
            ("GET", format!("{secrets}?limit=500"), "LIST managedsecrets"),
            ("GET", format!("{secrets}?limit=500&watch=true"), ""),
            ("GET", format!("{secrets}/b"), "GET managedsecrets"),
            ("PATCH", format!("{secrets}/b"), "PATCH managedsecrets"),
            ("PATCH", format!("{secrets}/b/status"), "PATCH managedsecrets/status"),
            ("DELETE", secrets.to_owned(), "DELETECOLLECTION managedsecrets"),
            ("GET", "/apis/keyturn.dev/v1alpha1/rotationgrants/g".to_owned(), "GET rotationgrants"),
            ("GET", "/api/v1/namespaces/a/events".to_owned(), "LIST events"),
            ("GET", "/api/v1/namespaces/a".to_owned(), ""),
            ("GET", "/apis/coordination.k8s.io/v1/namespaces/a/leases/l".to_owned(), ""),
            ("GET", "/metrics".to_owned(), ""),
        ];
        for (method, uri, expected) in cases {
            let method: Method = method.parse().unwrap();
            let named = named(&method, &uri.parse().unwrap()).unwrap_or_default();
            assert_eq!(named, expected, "{method} {uri}");
        }
    }
}
