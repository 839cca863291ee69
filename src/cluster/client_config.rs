//! Finds the API server and the way to it, as kubectl does.
//!
//! kube supports `proxy-url` and `HTTPS_PROXY` too. But it compares `NO_PROXY` with the proxy's address instead of the
//! API server's, and it uses the proxy even for an API server on this machine, such as kind's.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{Cluster, InferConfigError, Kubeconfig};
use kube::{Client, Config};

/// Reads KUBECONFIG's current context or, in a pod, the service account.
///
/// # Errors
/// Neither exists, or it cannot be read.
pub async fn infer() -> Result<Config, InferConfigError> {
    let mut config = Config::infer().await?;
    // A pod has no kubeconfig and reaches its API server directly, even if a proxy for AWS is configured.
    if let Some(cluster) = Kubeconfig::read().ok().as_ref().and_then(current_cluster) {
        let environment = Environment::read();
        config.proxy_url = proxy(cluster.proxy_url.as_deref(), &environment, &config.cluster_url);
    }
    Ok(config)
}

/// Creates a client for a command that a person runs. Nothing is sent yet.
///
/// # Errors
/// There is no cluster configured, or credentials or proxy cannot be used.
pub async fn client() -> Result<Client, kube::Error> {
    Client::try_from(infer().await.map_err(kube::Error::InferConfig)?)
}

fn current_cluster(kubeconfig: &Kubeconfig) -> Option<&Cluster> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|named| named.name == *current)?.context.as_ref()?;
    kubeconfig.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()
}

/// The shell's proxy variables; empty if they are not set.
struct Environment {
    https_proxy: String,
    no_proxy: String,
}

impl Environment {
    fn read() -> Self {
        let first = |names: [&str; 2]| {
            names.iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty())
        };
        Self {
            https_proxy: first(["HTTPS_PROXY", "https_proxy"]).unwrap_or_default(),
            no_proxy: first(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        }
    }
}

/// Returns the proxy for an API server; `None` if it is reached directly. `NO_PROXY` applies to the environment's
/// proxy, but not to a proxy that the kubeconfig names for this server.
fn proxy(configured: Option<&str>, environment: &Environment, server: &Uri) -> Option<Uri> {
    if let Some(url) = configured.filter(|url| !url.is_empty()) {
        return parse(url);
    }
    let matcher =
        Matcher::builder().https(environment.https_proxy.as_str()).no(environment.no_proxy.as_str()).build();
    matcher.intercept(server).filter(|_| !is_this_machine(server))?;
    // The matcher removes the credentials from the URL. kube needs them in it, so the original URL is parsed again.
    parse(&environment.https_proxy)
}

/// Parses a proxy URL; `proxy.example:3128` means `http://proxy.example:3128`.
fn parse(url: &str) -> Option<Uri> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    url.parse().ok()
}

fn is_this_machine(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubeconfigs_proxy_wins_and_the_environments_is_for_servers_that_no_proxy_does_not_name() {
        let cases = [
            ("", "", "", "https://api.example:6443", ""),
            ("http://jump:3128", "", "", "https://api.example:6443", "http://jump:3128/"),
            ("http://jump:3128", "http://proxy:3128", "*", "https://127.0.0.1:6443", "http://jump:3128/"),
            ("socks5://127.0.0.1:1080", "", "", "https://api.example", "socks5://127.0.0.1:1080/"),
            ("", "http://proxy:3128", "", "https://api.example:6443", "http://proxy:3128/"),
            ("", "http://u:p%40ss@proxy:3128", "", "https://api.example", "http://u:p%40ss@proxy:3128/"),
            ("", "proxy:3128", "", "https://api.example", "http://proxy:3128/"),
            ("", "http://proxy:3128", "other.example,api.example", "https://api.example:6443", ""),
            ("", "http://proxy:3128", ".example", "https://api.example:6443", ""),
            ("", "http://proxy:3128", "10.0.0.0/8", "https://10.20.30.40:6443", ""),
            ("", "http://proxy:3128", "*", "https://api.example:6443", ""),
            // The proxy's own address does not matter.
            ("", "http://10.0.0.1:3128", "10.0.0.0/8", "https://api.example:6443", "http://10.0.0.1:3128/"),
            // The clusters of kind, k3d and minikube, and `kubectl proxy`.
            ("", "http://proxy:3128", "", "https://127.0.0.1:40123", ""),
            ("", "http://proxy:3128", "", "https://[::1]:40123", ""),
            ("", "http://proxy:3128", "", "https://localhost:40123", ""),
            ("", "http://proxy:3128", "", "http://api.example:8001", ""),
        ];
        for (configured, https_proxy, no_proxy, server, expected) in cases {
            let environment = Environment { https_proxy: https_proxy.into(), no_proxy: no_proxy.into() };
            let found = proxy(Some(configured), &environment, &server.parse().unwrap());
            let found = found.map(|uri| uri.to_string()).unwrap_or_default();
            assert_eq!(found, expected, "{configured:?}, {https_proxy:?}, {no_proxy:?}, {server}");
        }
    }
}
