//! Reads Secrets that users have made: by name, when an object names them, and only if they consent to the purpose.
//! keyturn never lists or watches them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use keyturn_reconcile::objects::ObjectError;
use kube::{Api, Client, ResourceExt};

use super::objects::call;
use crate::api::consent::{self, Purpose, Refusal};

/// The reason why a Secret was not read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The Secret does not exist, or has no label that allows this purpose.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The API server did not return the Secret or its labels.
    #[error(transparent)]
    Api(#[from] ObjectError),
}

/// Returns the labels of a Secret, `None` if it does not exist. The API server sends only its metadata.
pub async fn labels(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, ObjectError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = call(|| format!("Secret {namespace}/{name}"), secrets.get_metadata_opt(name)).await?;
    Ok(found.map(|found| found.metadata.labels.unwrap_or_default()))
}

/// Reads a Secret that consents to the purpose. Its labels are read first, alone, so that no value of a Secret without
/// consent enters this process.
pub async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
    purpose: Purpose,
) -> Result<Secret, SecretError> {
    consent::check(namespace, name, labels(client, namespace, name).await?.as_ref(), purpose)?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = call(|| format!("Secret {namespace}/{name}"), secrets.get(name)).await?;
    // Another Secret of this name may have replaced it meanwhile.
    consent::check(namespace, name, Some(secret.labels()), purpose)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    use http::header::ACCEPT;
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that returns these answers, one after another, and records the requests.
    #[derive(Clone, Default)]
    struct ApiServer {
        answers: Arc<Mutex<VecDeque<Value>>>,
        asked: Arc<Mutex<Vec<(String, bool)>>>,
    }

    impl tower::Service<Request<Body>> for ApiServer {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let accepts = request.headers().get(ACCEPT).map_or("", |accept| accept.to_str().unwrap());
            let metadata_only = accepts.contains("as=PartialObjectMetadata");
            self.asked.lock().unwrap().push((request.uri().path().to_owned(), metadata_only));
            let answer =
                self.answers.lock().unwrap().pop_front().expect("it is asked no more than it should be");
            let code = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
            let response = Response::builder().status(StatusCode::from_u16(code).unwrap());
            ready(Ok(response.body(Body::from(answer.to_string().into_bytes())).unwrap()))
        }
    }

    /// Reads `prod/db` for the purpose `ssh`; returns the result and the requests to the API server.
    async fn reading(answers: Vec<Value>) -> (Result<Secret, SecretError>, Vec<(String, bool)>) {
        let server = ApiServer { answers: Arc::new(Mutex::new(answers.into())), ..ApiServer::default() };
        let client = Client::new(server.clone(), "default");
        let read = read(&client, "prod", "db", Purpose::SSH).await;
        let asked = server.asked.lock().unwrap().clone();
        (read, asked)
    }

    fn metadata(labels: &Value) -> Value {
        json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "db", "namespace": "prod", "labels": labels},
        })
    }

    fn whole(labels: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "data": {"key": "aHVudGVyMg=="},
            "metadata": {"name": "db", "namespace": "prod", "labels": labels},
        })
    }

    const PATH: &str = "/api/v1/namespaces/prod/secrets/db";

    #[tokio::test]
    async fn of_a_secret_that_does_not_consent_nothing_but_its_metadata_is_asked_for() {
        let missing = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "secrets \"db\" not found", "reason": "NotFound", "code": 404});
        for answer in [
            metadata(&json!(null)),
            metadata(&json!({"app": "ssh"})),
            metadata(&json!({"keyturn.dev/usable-by": "postgres-admin"})),
            missing,
        ] {
            let (read, asked) = reading(vec![answer.clone()]).await;
            assert!(matches!(read, Err(SecretError::Refused(_))), "{answer}: {read:?}");
            assert_eq!(asked, [(PATH.to_owned(), true)], "{answer}");
        }
    }

    #[tokio::test]
    async fn a_secret_that_consents_is_read() {
        let labels = json!({"keyturn.dev/usable-by": "ssh"});
        let (read, asked) = reading(vec![metadata(&labels), whole(&labels)]).await;
        assert_eq!(read.unwrap().data.unwrap()["key"].0, b"hunter2");
        assert_eq!(asked, [(PATH.to_owned(), true), (PATH.to_owned(), false)]);
    }

    #[tokio::test]
    async fn another_secret_in_its_place_must_consent_too() {
        let labels = json!({"keyturn.dev/usable-by": "ssh"});
        let (read, _) = reading(vec![metadata(&labels), whole(&json!({}))]).await;
        assert!(matches!(read, Err(SecretError::Refused(_))), "{read:?}");
    }
}
