//! Tests the rights of the controller's account as the chart installs it: its roles, and the admission policies for
//! what roles cannot express.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::RoleBinding;
use keyturn::api::docker_host::RunMode;
use keyturn::api::{DockerHost, ManagedSecret};
use keyturn::deploy::job::{self, JobTemplate};
use keyturn::deploy::plan::Run;
use keyturn_image_audit::managed::ManagedValues;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::namespace::within;

const NAMESPACE: &str = "keyturn-system";
const ACCOUNT: &str = "keyturn";

/// Returns a client with the controller's identity.
async fn controller() -> Client {
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"));
    Client::try_from(config).unwrap()
}

/// Returns the rights that `kubectl auth can-i --list` shows, except for the questions about itself that everybody may
/// ask.
async fn rights(namespace: &str) -> BTreeSet<String> {
    let reviews: Api<SelfSubjectRulesReview> = Api::all(controller().await);
    let review = serde_json::from_value(json!({"spec": {"namespace": namespace}})).unwrap();
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    let mut found = BTreeSet::new();
    for rule in answer.status.unwrap().resource_rules {
        for group in rule.api_groups.iter().flatten() {
            if ["authorization.k8s.io", "authentication.k8s.io"].contains(&group.as_str()) {
                continue;
            }
            for resource in rule.resources.iter().flatten() {
                found.extend(rule.verbs.iter().map(|verb| format!("{verb} {resource}.{group}")));
            }
        }
    }
    found
}

/// Binds the chart's role for a namespace there, as conditions tell a person to do.
async fn bind(client: &Client, namespace: &str) {
    let binding = json!({
        "metadata": {"name": "keyturn-namespace"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "keyturn-namespace"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
    });
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs the world"]
async fn in_a_namespace_that_no_grant_names_it_has_to_do_with_its_own_kinds_only() {
    within("rights", |client, namespace| async move {
        let mut expected = BTreeSet::new();
        for kind in ["managedsecrets", "dockerhosts", "secretincidents", "rotationgrants"] {
            expected.extend(["get", "list", "watch"].map(|verb| format!("{verb} {kind}.keyturn.dev")));
        }
        for kind in ["managedsecrets", "dockerhosts", "secretincidents"] {
            expected.insert(format!("update {kind}/status.keyturn.dev"));
        }
        // This right is for the finalizer; a policy denies every other use of it.
        expected.insert("patch managedsecrets.keyturn.dev".to_owned());
        assert_eq!(rights(&namespace).await, expected);
        for other in ["kube-system", "default"] {
            let beyond: Vec<String> = rights(other).await.difference(&expected).cloned().collect();
            let events = ["create events.events.k8s.io", "patch events.events.k8s.io"];
            assert_eq!(beyond, if other == "default" { &events[..] } else { &[] }, "{other}");
        }

        bind(&client, &namespace).await;
        let bound = rights(&namespace).await;
        for right in ["get secrets.", "create jobs.batch", "list pods."] {
            assert!(bound.contains(right), "{right} is not in {bound:?}");
        }
        assert!(!bound.contains("list secrets.") && !bound.contains("watch secrets."), "{bound:?}");
    })
    .await;
}

/// Returns the Job that keyturn creates for a host, with the image that the installed controller gives to its Jobs.
fn job(namespace: &str, image: &str) -> (Job, Secret) {
    let host = json!({
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "DockerHost",
        "metadata": {"name": "web", "namespace": namespace, "uid": "uid-of-web", "generation": 1},
        "spec": {
            "ssh": {
                "host": "web.example", "user": "deploy", "keySecretRef": {"name": "web-key", "key": "id"},
                "knownHosts": ["web.example ssh-ed25519 AAAA"],
                "jump": {"host": "jump.example", "user": "jump"},
            },
            "docker": {"composeProject": "app"},
            "deploy": {"script": "true"},
        },
    });
    let host: DockerHost = serde_json::from_value(host).unwrap();
    let run = Run {
        mode: RunMode::Deploy,
        revision: "0123456789abcdef".into(),
        attempt: 1,
        parameters: vec![],
        because: vec![],
        collection: None,
        layers: false,
    };
    let template = JobTemplate {
        image: image.to_owned(),
        image_pull_policy: Some("IfNotPresent".into()),
        image_pull_secrets: vec!["registry".into()],
        env: vec![],
    };
    let task = job::task(&host, &run, vec![], ManagedValues::new(&[], &[1; 32]));
    let mut made = job::job(&host, &run, &task, &template);
    made.metadata.uid = Some("uid-of-the-job".into());
    let secret = job::task_secret(&made, &task);
    made.metadata.uid = None;
    (made, secret)
}

async fn image_of_jobs(client: &Client) -> String {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let deployment = deployments.get("keyturn").await.unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let variables = pod.containers[0].env.clone().unwrap();
    variables.into_iter().find(|variable| variable.name == "KEYTURN_JOB_IMAGE").unwrap().value.unwrap()
}

/// Returns the reason why a policy or a role refuses a creation; nothing is created.
async fn against<K>(api: &Api<K>, object: &Value) -> Option<String>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    match api.create(&dry, &serde_json::from_value(object.clone()).unwrap()).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message),
        Err(error) => panic!("{error}"),
    }
}

/// Returns pod templates that an attacker who controls keyturn would like to run.
fn planted() -> Vec<(&'static str, Value, &'static str)> {
    let pod = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    let at =
        |path: &str, field: &str| -> &'static str { Box::leak(format!("{path}/{field}").into_boxed_str()) };
    let secret = json!({"secretName": "x", "items": [{"key": "a", "path": "a"}]});
    vec![
        (at(container, "image"), json!("busybox:1"), "runs an image of"),
        (at(container, "image"), json!("localhost/keyturn-not:1"), "runs an image of"),
        (at(container, "command"), json!(["/bin/sh"]), "runs keyturn deploy-host"),
        (at(container, "args"), json!(["controller"]), "runs keyturn deploy-host"),
        (at(pod, "initContainers"), json!([{"name": "x", "image": "busybox"}]), "has one container"),
        (at(pod, "automountServiceAccountToken"), json!(true), "has no account"),
        (at(pod, "serviceAccountName"), json!("admin"), "has no account"),
        (at(pod, "hostNetwork"), json!(true), "shares nothing of its node"),
        (at(pod, "hostPID"), json!(true), "shares nothing of its node"),
        (at(pod, "nodeName"), json!("control-plane"), "shares nothing of its node"),
        (at(pod, "securityContext/runAsUser"), json!(0), "runs as user 65532"),
        (at(pod, "securityContext/runAsNonRoot"), json!(false), "runs as user 65532"),
        (at(pod, "securityContext"), json!(null), "runs as user 65532"),
        (at(container, "securityContext/privileged"), json!(true), "privileged"),
        (at(container, "securityContext/runAsUser"), json!(0), "has no capability"),
        (
            at(container, "securityContext/capabilities"),
            json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            "no capability",
        ),
        (at(container, "securityContext"), json!(null), "has no capability"),
        (
            at(pod, "volumes/1"),
            json!({"name": "ssh-key", "hostPath": {"path": "/"}}),
            "volumes are its task and SSH keys",
        ),
        (
            at(pod, "volumes/-"),
            json!({"name": "other", "secret": secret}),
            "volumes are its task and SSH keys",
        ),
        (
            at(pod, "volumes/1"),
            json!({"name": "ssh-key", "secret": {"secretName": "x"}}),
            "volumes are its task",
        ),
        (at(pod, "volumes/0/secret/secretName"), json!("somebodys"), "a Secret of its own"),
        (at(container, "envFrom"), json!([{"secretRef": {"name": "x"}}]), "holds nothing of other objects"),
        // Without these, those of the template count.
        ("/metadata/labels", json!({"app": "web"}), "its own Jobs only"),
        ("/metadata/ownerReferences", json!(null), "its own Jobs only"),
        ("/spec/template/metadata/labels", json!({}), "network policies know them"),
    ]
}

/// Returns the object with one field changed; `-` appends an item to a list.
fn with(object: &Job, path: &str, value: Value) -> Value {
    let mut object = serde_json::to_value(object).unwrap();
    let (parent, field) = path.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{path}"));
    match (field.parse::<usize>(), field) {
        (Ok(index), _) => parent[index] = value,
        (Err(_), "-") => parent.as_array_mut().unwrap().push(value),
        (Err(_), field) => parent[field] = value,
    }
    object
}

#[tokio::test]
#[ignore = "needs the world"]
async fn the_jobs_that_it_makes_are_taken_from_it_and_no_others() {
    within("admission", |client, namespace| async move {
        bind(&client, &namespace).await;
        let (job, secret) = job(&namespace, &image_of_jobs(&client).await);
        let account = controller().await;
        let jobs: Api<Job> = Api::namespaced(account.clone(), &namespace);
        let own = serde_json::to_value(&job).unwrap();
        // A new role binding, and a policy, take effect once the API server has noticed them.
        let mut said = against(&jobs, &own).await;
        for _ in 0..100 {
            if said.is_none() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            said = against(&jobs, &own).await;
        }
        assert_eq!(said, None);
        for (path, value, says) in planted() {
            let said = against(&jobs, &with(&job, path, value.clone())).await;
            let said = said.unwrap_or_else(|| panic!("{path}: {value} was taken"));
            assert!(said.contains(says), "{path}: {value}: {said}");
        }

        let secrets: Api<Secret> = Api::namespaced(account.clone(), &namespace);
        let own = serde_json::to_value(&secret).unwrap();
        assert_eq!(against(&secrets, &own).await, None);
        let mut token = own.clone();
        token["type"] = json!("kubernetes.io/service-account-token");
        token["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": "default"});
        token["data"] = json!(null);
        let said = against(&secrets, &token).await.expect("the token of an account was given");
        assert!(said.contains("Secrets for its deploy Jobs only"), "{said}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the world"]
async fn jobs_and_secrets_of_others_and_what_people_wrote_into_a_managedsecret_are_kept_from_it() {
    within("admission-others", |client, namespace| async move {
        bind(&client, &namespace).await;
        let account = controller().await;
        let somebodys = json!({
            "metadata": {"name": "somebodys"},
            "spec": {"suspend": true, "template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "a", "image": "localhost/pause:3.10"}],
            }}},
        });
        let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
        jobs.create(&PostParams::default(), &serde_json::from_value(somebodys).unwrap()).await.unwrap();
        let jobs: Api<Job> = Api::namespaced(account.clone(), &namespace);
        let refusal = |error: kube::Error| match error {
            kube::Error::Api(status) => status.message,
            other => panic!("{other}"),
        };
        let patch = Patch::Merge(json!({"spec": {"suspend": false}}));
        let said = refusal(jobs.patch("somebodys", &PatchParams::default(), &patch).await.unwrap_err());
        assert!(said.contains("its own Jobs only"), "{said}");
        let said = refusal(jobs.delete("somebodys", &DeleteParams::background()).await.unwrap_err());
        assert!(said.contains("its own Jobs only"), "{said}");

        let key = json!({"metadata": {"name": "key"}, "stringData": {"id.pem": "of somebody"}});
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        secrets.create(&PostParams::default(), &serde_json::from_value(key).unwrap()).await.unwrap();
        let secrets: Api<Secret> = Api::namespaced(account.clone(), &namespace);
        let said = refusal(secrets.delete("key", &DeleteParams::default()).await.unwrap_err());
        assert!(said.contains("deletes the Secrets of its deploy Jobs only"), "{said}");

        let token = json!({
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "ManagedSecret",
            "metadata": {"name": "token"},
            "spec": {
                "suspend": true, "ssm": {"parameters": [{"path": "/shop/prod/TOKEN"}]},
                "generate": {"hex": {"bytes": 32}}, "rotation": {"period": "90d"},
            },
        });
        let secrets: Api<ManagedSecret> = Api::namespaced(client.clone(), &namespace);
        secrets.create(&PostParams::default(), &serde_json::from_value(token).unwrap()).await.unwrap();
        let secrets: Api<ManagedSecret> = Api::namespaced(account, &namespace);
        for forbidden in [
            json!({"spec": {"suspend": false}}),
            json!({"metadata": {"annotations": {"keyturn.dev/rotate-requested-at": "now"}}}),
            json!({"metadata": {"labels": {"a": "b"}}}),
        ] {
            let patch = Patch::Merge(&forbidden);
            let said = refusal(secrets.patch("token", &PatchParams::default(), &patch).await.unwrap_err());
            assert!(said.contains("changes the finalizers of a ManagedSecret"), "{forbidden}: {said}");
        }
        for finalizers in [json!(["keyturn.dev/rotation"]), json!(null)] {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
            secrets.patch("token", &PatchParams::default(), &patch).await.unwrap();
        }
    })
    .await;
}
