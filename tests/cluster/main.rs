//! Tests that need a real API server. Run them in the world: `dev/world up`, `eval "$(dev/world env)"`, then
//! `cargo test --test cluster -- --ignored`.

mod consent;
mod lease;
mod namespace;
mod proxy;
mod reading;
mod rights;
mod schema;

/// Returns a client of the cluster that KUBECONFIG names.
async fn client() -> kube::Client {
    assert!(
        std::env::var_os("KUBECONFIG").is_some(),
        "KUBECONFIG is not set: bring the world up with `dev/world up` and run `eval \"$(dev/world env)\"`"
    );
    kube::Client::try_default().await.expect("the cluster that KUBECONFIG names cannot be reached")
}
