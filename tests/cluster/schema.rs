//! Tests that the API server accepts valid objects and refuses malformed ones, with a message that says what to
//! write instead.
//!
//! Everything is a dry run, except for one object that is updated.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

/// Returns a valid object, which cases change.
fn sound(kind: &str) -> Value {
    let spec = match kind {
        "ManagedSecret" => json!({
            "ssm": {"parameters": [{"path": "/shop/prod/TOKEN"}], "region": "us-east-1"},
            "generate": {"hex": {"bytes": 32}},
            "rotation": {"period": "90d"},
        }),
        "DockerHost" => json!({
            "ssh": {
                "host": "shop.example", "user": "deploy", "keySecretRef": {"name": "key", "key": "id_ed25519"},
                "knownHosts": [format!("shop.example ssh-ed25519 {KEY}")],
            },
            "docker": {"composeProject": "shop"},
            "deploy": {"script": "cd /opt/shop && ./deploy.sh"},
        }),
        "SecretIncident" => json!({
            "managedSecretRefs": [{"name": "token"}],
            "reportedAt": "2026-01-02T03:04:05Z",
        }),
        _ => json!({"namespaces": ["shop"], "parameters": [{"prefix": "/shop/prod/"}]}),
    };
    json!({"apiVersion": "keyturn.dev/v1alpha1", "kind": kind, "metadata": {"name": "schema-test"}, "spec": spec})
}

/// Returns an object with one field changed; `null` removes the field.
fn with(kind: &str, pointer: &str, value: Value) -> Value {
    let mut object = sound(kind);
    let mut place = &mut object;
    for segment in pointer.split('.') {
        place = match segment.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[segment],
        };
    }
    *place = value;
    object
}

fn api(client: &kube::Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("keyturn.dev", "v1alpha1", kind));
    if kind == "RotationGrant" {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    }
}

/// Returns the API server's error about an object; `None` if it accepts the object.
async fn answer(client: &kube::Client, object: &Value) -> Option<String> {
    let kind = object["kind"].as_str().unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    match api(client, kind, "default").create(&dry, &object).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message),
        Err(error) => panic!("{kind}: {error}"),
    }
}

type Case = (&'static str, &'static str, Value);

fn accepted() -> Vec<Case> {
    let m = "ManagedSecret";
    let h = "DockerHost";
    let g = "RotationGrant";
    let window =
        |schedule: &str, zone: &str| json!([{"schedule": schedule, "duration": "2h", "timeZone": zone}]);
    let windows = "spec.rotation.windows";
    let path = |path: &str| json!([{"path": path}]);
    vec![
        (
            "SecretIncident",
            "spec.expectedReaders",
            json!([
                {"principal": "arn:aws:iam::123456789012:role/keyturn*"},
                {"networks": ["10.0.0.0/8", "2001:db8::/32"]},
                {"principal": "arn:aws:sts::123456789012:assumed-role/web/*", "networks": ["192.0.2.7"]},
            ]),
        ),
        ("SecretIncident", "spec.revokeWithin", json!("0m")),
        ("SecretIncident", "spec.suspectedSince", json!("2026-01-02T03:04:05Z")),
        (m, "metadata.name", json!("a".repeat(63))),
        (m, "spec.ssm.parameters", path("/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o")),
        (m, "spec.ssm.parameters", path("/with-all_kinds.of/Characters9")),
        (m, "spec.ssm.parameters", path("/shop/aws/ssm")),
        (
            m,
            "spec.ssm.parameters",
            json!([{"path": "/shop/ID"}, {"path": "/shop/URL", "value": "https://u:{value}@x/"}]),
        ),
        (m, "spec.ssm.parameters.0.value", json!("{\"token\": \"{value}\"}")),
        (m, "spec.ssm.region", json!("us-gov-west-1")),
        (m, "spec.ssm.kmsKeyId", json!("alias/shop")),
        (m, "spec.ssm.kmsKeyId", json!("1234abcd-12ab-34cd-56ef-1234567890ab")),
        (
            m,
            "spec.ssm.kmsKeyId",
            json!("arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        ),
        (m, "spec.ssm.kmsKeyId", json!("arn:aws-us-gov:kms:us-gov-west-1:123456789012:alias/shop")),
        (m, "spec.ssm.ifMissing", json!("Stall")),
        (m, "spec.generate", json!({"base64": {"bytes": 16}})),
        (m, "spec.generate", json!({"password": {"length": 32}})),
        (
            m,
            "spec.generate",
            json!({"password": {"length": 32, "symbols": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}"}}),
        ),
        (m, "spec.generate", json!({"fernet": {}})),
        (m, "spec.generate", json!({"fernet": {"keepPrevious": 2}})),
        (m, "spec.generate", postgres(json!({"singleRole": {"name": "shop"}}))),
        (
            m,
            "spec.generate",
            postgres(json!({
                "host": null, "via": {"dockerHost": "production"}, "port": 5434, "passwordBytes": 32,
                "tls": {"mode": "VerifyFull", "ca": "-----BEGIN CERTIFICATE-----", "serverName": "db.internal"},
                "adminSecretRef": {"name": "db-admin", "usernameKey": "user", "passwordKey": "pw"},
                "alternatingRoles": {
                    "names": ["shop a", "Shop-b"], "owner": "shop", "bootstrap": {"from": "old", "mode": "Plan"},
                },
                "probes": ["SELECT 1 FROM orders LIMIT 1"],
            })),
        ),
        (m, "spec", r2(json!({}), json!({}))),
        (
            m,
            "spec",
            r2(
                json!({"buckets": null, "probeBucket": "media", "jurisdiction": "eu", "permission": "ObjectReadOnly"}),
                json!({"ssm": {"parameters": [{"path": "/shop/R2", "value": "{accessKeyId}:{secretAccessKey}"}]}}),
            ),
        ),
        (m, "spec", r2(json!({"buckets": null, "permission": "AdminReadWrite"}), json!({}))),
        (m, "spec.ssm.parameters.0.value", json!("postgresql://{username}:{password}@db/shop")),
        (m, "spec.rotation", json!({"mode": "OnDemand"})),
        (m, "spec.accessLog", json!({"script": "journalctl"})),
        (m, "spec.accessLog", json!({"script": "journalctl", "timeout": "60m"})),
        (m, "spec.rotation.period", json!("1m")),
        (m, "spec.rotation.period", json!("9999d")),
        (m, windows, window("0 3 * * 1-4", "Europe/Berlin")),
        (m, windows, window("*/15 0-4 1,15 jan-dec mon", "America/Argentina/Buenos_Aires")),
        (m, windows, window("0 3 L * 5#2", "Etc/GMT+5")),
        (m, windows, window("0 3 * * *", "UTC")),
        (m, windows, json!([{"schedule": "0 3 * * *", "duration": "30m"}])),
        (m, "spec.rotation.onFailure", json!("RollBack")),
        (m, "spec.rotation.onDrift", json!("Adopt")),
        (
            m,
            "spec.hosts",
            json!([{"name": "production", "env": ["TOKEN", "_TOKEN2"]}, {"name": "canary.eu"}]),
        ),
        (m, "spec.retire", json!({"after": "1h", "requires": "Verify"})),
        (m, "spec.notice", json!("Users must register their webhooks again.\nTell them.")),
        (m, "spec.deletionPolicy", json!("Delete")),
        (h, "spec.audit", json!({})),
        (h, "spec.audit", json!({"layers": true, "interval": "1d"})),
        (h, "spec.audit", json!({"layers": false})),
        (
            h,
            "spec.audit",
            json!({
                "interval": "1d",
                "allowEnv": ["PYTHONPATH", "_x.y-z"],
                "allow": [
                    {"fingerprint": "28e972a69e4a2b67"},
                    {"fingerprint": "28e972a69e4a2b67", "image": "registry.example:5000/app:1", "reason": "public"},
                ],
            }),
        ),
        (h, "spec.ssh.host", json!("2001:db8::1")),
        (h, "spec.ssh.host", json!("10.0.0.7")),
        (h, "spec.ssh.port", json!(2222)),
        (h, "spec.ssh.user", json!("ec2-user")),
        (
            h,
            "spec.ssh.jump",
            json!({"host": "jump.example", "user": "j", "keySecretRef": {"name": "k", "key": "k.pem"}}),
        ),
        (
            h,
            "spec.ssh.knownHosts",
            json!([
                "@cert-authority *.example ssh-ed25519 AAAA",
                "|1|a=|b= ssh-rsa AAAA",
                "[h]:2222 ssh-rsa AAAA comment"
            ]),
        ),
        // These are in the format of ssh-keyscan, complete or line by line, and of a file from a Windows machine.
        (
            h,
            "spec.ssh.knownHosts",
            json!(["# shop.example:22 SSH-2.0-OpenSSH_9.9\nshop.example ssh-ed25519 AAAA\n"]),
        ),
        (
            h,
            "spec.ssh.knownHosts",
            json!(["# shop.example:22 SSH-2.0-OpenSSH_9.9", "", "a ssh-ed25519 AAAA"]),
        ),
        (h, "spec.ssh.knownHosts", json!(["# a\r\n\r\n \ta,b\tssh-ed25519\tAAAA\r\nb ssh-ed25519 AAAA\r\n"])),
        (h, "spec.deploy.after", json!(["canary"])),
        (h, "spec.deploy.timeout", json!("15m")),
        (h, "spec.verify", json!({"script": "curl -sf https://localhost/", "timeout": "2m"})),
        (g, "spec.mode", json!("Observe")),
        (g, "spec", json!({"namespaces": ["shop"], "mode": "Observe", "parameters": [{"prefix": "/"}]})),
        (
            g,
            "spec.parameters",
            json!([{"path": "/TOKEN", "templates": ["a{value}"]}, {"prefix": "/a/b/", "regions": ["eu-west-1"], "kmsKeys": ["alias/a"]}]),
        ),
        (g, "spec.hosts", json!([{"host": "shop.example"}, {"host": "10.0.0.7", "port": 2222}])),
        (
            g,
            "spec.postgres",
            json!([
                {"host": "db.internal", "roles": ["shop"]},
                {"dockerHost": "production", "port": 5434, "roles": ["musehub"], "allowSuperuser": true},
            ]),
        ),
        (g, "spec.cloudflare", json!([{"accountId": ACCOUNT}])),
    ]
}

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// Returns a valid spec of an R2 key pair with some fields of its source and some of its own changed; `null` removes
/// a field.
fn r2(source: Value, spec: Value) -> Value {
    let merged = |mut base: Value, changes: &Value| {
        for (name, value) in changes.as_object().unwrap() {
            base[name] = value.clone();
        }
        base.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        base
    };
    let base = json!({
        "accountId": ACCOUNT, "buckets": ["media"], "tokenSecretRef": {"name": "cloudflare", "key": "token"},
    });
    let base = json!({
        "ssm": {"parameters": [
            {"path": "/shop/R2_ACCESS_KEY_ID", "value": "{accessKeyId}"},
            {"path": "/shop/R2_SECRET_ACCESS_KEY", "value": "{secretAccessKey}"},
        ]},
        "rotation": {"period": "90d"},
        "generate": {"cloudflareR2": merged(base, &source)},
    });
    merged(base, &spec)
}

/// Returns a valid Postgres source with some fields changed; `null` removes a field.
fn postgres(fields: Value) -> Value {
    let mut source = json!({"host": "db.internal", "database": "shop"});
    for (name, value) in fields.as_object().unwrap() {
        source[name] = value.clone();
    }
    source.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    json!({"postgres": source})
}

type Refusal = (&'static str, &'static str, Value, &'static str);

#[allow(clippy::too_many_lines)]
fn refused() -> Vec<Refusal> {
    let m = "ManagedSecret";
    let h = "DockerHost";
    let i = "SecretIncident";
    let g = "RotationGrant";
    let window = |schedule: &str, duration: &str, zone: &str| json!([{"schedule": schedule, "duration": duration, "timeZone": zone}]);
    let windows = "spec.rotation.windows";
    let path = |path: &str| json!([{"path": path}]);
    let bad_path = "must be an absolute parameter name such as /musehub/production/RUNNER_TOKEN";
    let reserved = "must not begin with /aws or /ssm";
    let cron = "must be a cron expression of five fields";
    let zone = "must be an IANA time zone";
    let duration = "must be one number of at most four digits and one unit";
    let symbols = "must be ASCII punctuation";
    let source = "exactly one source is needed: hex, base64, password, fernet, postgres, cloudflareR2";
    let when = "set exactly one of period (such as 90d) and mode: OnDemand";
    let host = "must be a host name or an address";
    let key = "must hold a host key: at least one line of known_hosts that is no comment";
    let object = "must be the name of an object";
    let way = "exactly one of host (a server that the controller reaches) and via.dockerHost";
    let strategy = "exactly one of singleRole and alternatingRoles is needed";
    let role = "must be the name of a role or database as Postgres stores it";
    vec![
        (m, "metadata.name", json!("a".repeat(64)), "metadata.name must have at most 63 characters"),
        (m, "spec.ssm.parameters", json!([]), "should have at least 1 items"),
        (m, "spec.ssm.parameters", path("shop/TOKEN"), bad_path),
        (m, "spec.ssm.parameters", path("/shop//TOKEN"), bad_path),
        (m, "spec.ssm.parameters", path("/shop/TOKEN/"), bad_path),
        (m, "spec.ssm.parameters", path("/shop/../TOKEN"), bad_path),
        (m, "spec.ssm.parameters", path("/shop/a b"), bad_path),
        (m, "spec.ssm.parameters", path("/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p"), bad_path),
        (m, "spec.ssm.parameters", path("/aws/TOKEN"), reserved),
        (m, "spec.ssm.parameters", path("/SSM-shop/TOKEN"), reserved),
        (m, "spec.ssm.parameters", json!([{"path": "/shop/A"}, {"path": "/shop/A"}]), "Duplicate value"),
        (m, "spec.ssm.parameters.0.value", json!("Bearer value"), "must contain {value}"),
        (m, "spec.ssm.parameters.0.value", json!("{value}\nX=1"), "must be a single line"),
        (m, "spec.ssm.region", json!("Frankfurt"), "must be the name of an AWS region"),
        (m, "spec.ssm.kmsKeyId", json!("shop"), "must be a KMS alias"),
        (m, "spec.ssm.ifMissing", json!("Ignore"), "supported values: \"Create\", \"Stall\""),
        (m, "spec.generate", json!({}), source),
        (m, "spec.generate", json!({"hex": {"bytes": 32}, "fernet": {}}), source),
        (m, "spec.generate", json!({"hex": {"bytes": 8}}), "should be greater than or equal to 16"),
        (m, "spec.generate", json!({"hex": {}}), "spec.generate.hex.bytes: Required value"),
        (m, "spec.generate", json!({"password": {"length": 32, "symbols": "-a"}}), symbols),
        (m, "spec.generate", json!({"password": {"length": 32, "symbols": "- "}}), symbols),
        (m, "spec.generate", json!({"password": {"length": 32, "symbols": "-é"}}), symbols),
        (
            m,
            "spec.generate",
            json!({"password": {"length": 32, "symbols": "-_-"}}),
            "must not name a symbol twice",
        ),
        (m, "spec.generate", postgres(single(json!({"via": {"dockerHost": "production"}}))), way),
        (m, "spec.generate", postgres(single(json!({"host": null}))), way),
        (m, "spec.generate", postgres(json!({})), strategy),
        (m, "spec.generate", postgres(single(pair(["a", "b"], "o"))), strategy),
        (
            m,
            "spec.generate",
            postgres(single(json!({
                "adminSecretRef": {"name": "db-admin"}, "adminParameter": {"path": "/shop/ADMIN", "username": "admin"},
            }))),
            "at most one of adminSecretRef and adminParameter",
        ),
        (
            m,
            "spec.generate",
            postgres(json!({"alternatingRoles": {"names": ["a", "b"], "owner": "o"}})),
            "alternatingRoles need an administrator",
        ),
        (m, "spec.generate", postgres(pair(["a", "a"], "o")), "names must be two different roles"),
        (m, "spec.generate", postgres(pair(["a", "b"], "a")), "names must be two different roles"),
        (
            m,
            "spec.generate",
            postgres(pair(["a", "pg_b"], "o")),
            "must be names of roles as Postgres stores them",
        ),
        (m, "spec.generate", postgres(json!({"singleRole": {"name": "pg_monitor"}})), role),
        (m, "spec.generate", postgres(json!({"singleRole": {"name": "a\nb"}})), role),
        (m, "spec.generate", postgres(single(json!({"host": "u@db"}))), host),
        (
            m,
            "spec.generate",
            postgres(single(json!({"passwordBytes": 8}))),
            "should be greater than or equal to 16",
        ),
        (
            m,
            "spec",
            json!({
                "ssm": {"parameters": [{"path": "/shop/A"}]}, "rotation": {"period": "90d"},
                "generate": postgres(single(json!({}))), "deletionPolicy": "Delete",
            }),
            "deletionPolicy: Delete would delete the only copy",
        ),
        (
            m,
            "spec",
            r2(json!({"accountId": "A".repeat(32)}), json!({})),
            "must be the id of a Cloudflare account",
        ),
        (m, "spec", r2(json!({"buckets": ["Media"]}), json!({})), "must be names of buckets"),
        (
            m,
            "spec",
            r2(json!({"buckets": null, "probeBucket": "a/b"}), json!({})),
            "must be the name of a bucket",
        ),
        (
            m,
            "spec",
            r2(json!({"buckets": null}), json!({})),
            "set probeBucket to the name of an existing bucket",
        ),
        (
            m,
            "spec",
            r2(json!({"probeBucket": "media"}), json!({})),
            "probeBucket is only for tokens for every bucket",
        ),
        (
            m,
            "spec",
            r2(json!({"permission": "AdminReadOnly"}), json!({})),
            "are for every bucket of the account",
        ),
        (m, "spec", r2(json!({"tokenSecretRef": null}), json!({})), "tokenSecretRef"),
        (m, "spec", r2(json!({}), json!({"deletionPolicy": "Delete"})), "the only copy of a key pair"),
        (
            m,
            "spec",
            r2(json!({}), json!({"ssm": {"parameters": [{"path": "/shop/ID", "value": "{accessKeyId}"}]}})),
            "must both be published",
        ),
        (
            m,
            "spec",
            r2(
                json!({}),
                json!({"ssm": {"parameters": [
                    {"path": "/shop/R2", "value": "{accessKeyId}:{secretAccessKey}"}, {"path": "/shop/PLAIN"},
                ]}}),
            ),
            "every parameter needs a value",
        ),
        (m, "spec.rotation", json!({}), when),
        (m, "spec.rotation", json!({"period": "90d", "mode": "OnDemand"}), when),
        (m, "spec.rotation", json!({"mode": "Never"}), "supported values: \"OnDemand\""),
        (m, "spec.rotation.period", json!("90"), duration),
        (m, "spec.rotation.period", json!("1h30m"), duration),
        (m, "spec.rotation.period", json!("0d"), duration),
        (m, "spec.rotation.period", json!("-1d"), duration),
        (m, windows, window("0 3 * *", "2h", "UTC"), cron),
        (m, windows, window("10 10 10 10", "2h", "UTC"), cron),
        (m, windows, window("0 0 3 * * *", "2h", "UTC"), cron),
        (m, windows, window("at three o clock", "2h", "UTC"), cron),
        (m, windows, window("0 3 * * *", "2w", "UTC"), duration),
        (m, windows, window("0 3 * * *", "2h", "Mars/Phobos"), zone),
        (m, windows, window("0 3 * * *", "2h", "Local"), zone),
        (m, windows, window("0 3 * * *", "2h", "02:00"), zone),
        (m, "spec.hosts", json!([{"name": "Production"}]), object),
        (m, "spec.hosts", json!([{"name": "a"}, {"name": "a"}]), "Duplicate value"),
        (m, "spec.hosts", json!([{"name": "a", "env": ["A-B"]}]), "must be names of environment variables"),
        (
            m,
            "spec",
            json!({
                "ssm": {"parameters": [{"path": "/shop/A"}, {"path": "/shop/B"}]}, "generate": {"fernet": {}},
                "rotation": {"period": "90d"}, "hosts": [{"name": "a", "env": ["X"]}],
            }),
            "hosts[].env can be set for a single parameter only",
        ),
        (h, "spec.audit", json!({"allowEnv": ["SEED_KEY=1"]}), "must be names of variables"),
        (h, "spec.audit", json!({"allowEnv": ["A", "A"]}), "Duplicate value"),
        (h, "spec.audit", json!({"interval": "1d12h"}), duration),
        (h, "spec.audit", json!({"layers": true}), "layers are read once per interval: set interval"),
        (
            h,
            "spec.audit",
            json!({"allow": [{"fingerprint": "28E972A69E4A2B67"}]}),
            "must be the fingerprint of a finding",
        ),
        (h, "spec.audit", json!({"allow": [{"image": "app:1"}]}), "fingerprint"),
        (h, "spec.ssh.host", json!("deploy@shop.example"), host),
        (h, "spec.ssh.host", json!("-oProxyCommand=x"), host),
        (h, "spec.ssh.host", json!("[2001:db8::1]"), host),
        (h, "spec.ssh.port", json!(70000), "should be less than or equal to 65535"),
        (h, "spec.ssh.user", json!("-l"), "must be the name of an account"),
        (h, "spec.ssh.keySecretRef", json!({"name": "Key", "key": "a"}), object),
        (h, "spec.ssh.keySecretRef", json!({"name": "key", "key": "a/b"}), "must be a key of a Secret"),
        (h, "spec.ssh.knownHosts", json!([]), "should have at least 1 items"),
        (h, "spec.ssh.knownHosts", json!([" ", ""]), key),
        (h, "spec.ssh.knownHosts", json!(["# shop.example ssh-ed25519 AAAA"]), key),
        (h, "spec.ssh.knownHosts", json!(["# a ssh-rsa AAAA\r\n \t# b ssh-rsa AAAA\n\n"]), key),
        // A quoted text in YAML turns its two lines into one comment.
        (h, "spec.ssh.knownHosts", json!(["# a:22 SSH-2.0-OpenSSH_9.9 a ssh-ed25519 AAAA"]), key),
        (h, "spec.ssh.knownHosts", json!(["ssh-ed25519 AAAA"]), key),
        // This is the longest text that the rule may have to read.
        (h, "spec.ssh.knownHosts", json!(vec!["# a b c\n".repeat(1024); 64]), key),
        (h, "spec.ssh.knownHosts", json!(["a ssh-ed25519 AAAA".repeat(500)]), "may not be more than 8192"),
        (h, "spec.docker.composeProject", json!("Shop"), "must be the name of a compose project"),
        (h, "spec.docker.path", json!("bin/docker"), "must be the absolute path of a program"),
        (h, "spec.docker.path", json!("/usr/bin/docker ps"), "must be the absolute path of a program"),
        (h, "spec.deploy.script", json!(" \n"), "must not be empty"),
        (m, "spec.accessLog", json!({"script": " "}), "must not be empty"),
        (
            m,
            "spec.accessLog",
            json!({"script": "a", "timeout": "61m"}),
            "must be a number of minutes, at most 60m",
        ),
        (
            m,
            "spec.accessLog",
            json!({"script": "a", "timeout": "1h"}),
            "must be a number of minutes, at most 60m",
        ),
        (h, "spec.deploy.after", json!(["Canary"]), "must be names of objects"),
        (h, "spec.deploy.after", json!(["schema-test"]), "a host cannot wait for itself"),
        (i, "spec.managedSecretRefs", Value::Null, "set exactly one of managedSecretRefs, selector"),
        (i, "spec.allSecrets", json!(true), "set exactly one of managedSecretRefs, selector"),
        (i, "spec.allSecrets", json!(false), "allSecrets can only be true"),
        (i, "spec.managedSecretRefs", json!([{"name": "Token"}]), "must be the name of an object"),
        (i, "spec.reportedAt", Value::Null, "spec.reportedAt"),
        (i, "spec.reportedAt", json!("yesterday"), "spec.reportedAt"),
        (i, "spec.suspectedSince", json!("2026-01-02T03:04:06Z"), "suspectedSince must not be later than"),
        (i, "spec.expectedReaders", json!([{}]), "set principal (who may read), networks (from where)"),
        (
            i,
            "spec.expectedReaders",
            json!([{"networks": []}]),
            "set principal (who may read), networks (from where)",
        ),
        (
            i,
            "spec.expectedReaders",
            json!([{"principal": "keyturn"}]),
            "must be the ARN of a role, a user or sessions",
        ),
        (
            i,
            "spec.expectedReaders",
            json!([{"principal": "arn:*", "networks": ["10.0.0.0/8", "somewhere"]}]),
            "must be addresses or networks",
        ),
        (
            i,
            "spec.expectedReaders",
            json!([{"principal": "arn:aws:iam::123456789012:instance-profile/web"}]),
            "must be the ARN of a role, a user or sessions",
        ),
        (
            i,
            "spec.expectedReaders",
            json!([{"principal": "arn:aws:sts::123456789012:assumed-role/service-role/web/*"}]),
            "must be the ARN of a role, a user or sessions",
        ),
        (i, "spec.revokeWithin", json!("15s"), "must be 0m (revoke first), or one number"),
        (i, "spec.revokeWithin", json!("0h"), "must be 0m (revoke first), or one number"),
        (g, "spec.namespaces", json!([]), "should have at least 1 items"),
        (g, "spec.namespaces", json!(["shop-*"]), "must be names of namespaces; there are no wildcards"),
        (
            g,
            "spec.parameters",
            json!([{"prefix": "/shop"}]),
            "must begin and end with / and hold whole segments",
        ),
        (
            g,
            "spec.parameters",
            json!([{"prefix": "/shop/../"}]),
            "must begin and end with / and hold whole segments",
        ),
        (g, "spec.parameters", json!([{"prefix": "/"}]), "the prefix / covers the whole account"),
        (g, "spec.parameters", json!([{"prefix": "/a/", "path": "/a/b"}]), "exactly one of prefix"),
        (g, "spec.parameters", json!([{"regions": ["eu-west-1"]}]), "exactly one of prefix"),
        (g, "spec.parameters", json!([{"path": "/a/"}]), "must be an absolute parameter name"),
        (g, "spec.parameters", json!([{"prefix": "/a/", "regions": ["*"]}]), "must be names of AWS regions"),
        (g, "spec.parameters", json!([{"prefix": "/a/", "kmsKeys": ["*"]}]), "must be KMS aliases"),
        (g, "spec.hosts", json!([{"host": "*.example"}]), host),
        (g, "spec.cloudflare", json!([{"accountId": "*"}]), "accountId"),
        (g, "spec.postgres", json!([{"roles": ["a"]}]), "exactly one of host and dockerHost is needed"),
        (g, "spec.postgres", json!([{"host": "db", "roles": []}]), "should have at least 1 items"),
    ]
}

fn single(mut fields: Value) -> Value {
    fields["singleRole"] = json!({"name": "shop"});
    fields
}

fn pair(names: [&str; 2], owner: &str) -> Value {
    json!({"alternatingRoles": {"names": names, "owner": owner}, "adminSecretRef": {"name": "db-admin"}})
}

/// Returns the updates of a stored object that are refused.
fn fixed() -> Vec<(Value, &'static str)> {
    let paths = "the paths of ssm.parameters cannot be changed";
    let region = "ssm.region cannot be changed, set or removed after creation";
    let ssm = |parameters: Value, region: &str| json!({"spec": {"ssm": {"parameters": parameters, "region": region}}});
    vec![
        (ssm(json!([{"path": "/shop/prod/OTHER"}]), "us-east-1"), paths),
        (ssm(json!([{"path": "/shop/prod/TOKEN"}, {"path": "/shop/prod/OTHER"}]), "us-east-1"), paths),
        (ssm(json!([{"path": "/shop/prod/TOKEN"}]), "eu-west-1"), region),
        (json!({"spec": {"ssm": {"region": null}}}), region),
    ]
}

const REPORT_IS_FIXED: &str = "reportedAt cannot be changed";

#[tokio::test]
#[ignore = "needs the world"]
async fn sound_objects_are_taken() {
    let client = crate::client().await;
    for kind in ["ManagedSecret", "DockerHost", "SecretIncident", "RotationGrant"] {
        assert_eq!(answer(&client, &sound(kind)).await, None, "{kind}");
    }
    for (kind, pointer, value) in accepted() {
        let said = answer(&client, &with(kind, pointer, value.clone())).await;
        assert_eq!(said, None, "{kind} {pointer}: {value}");
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn malformed_objects_are_refused_with_what_to_write_instead() {
    let client = crate::client().await;
    for (kind, pointer, value, message) in refused() {
        let said = answer(&client, &with(kind, pointer, value.clone())).await;
        let said = said.unwrap_or_else(|| panic!("{kind} {pointer}: {value} was taken"));
        assert!(said.contains(message), "{kind} {pointer}: {value} was refused with: {said}");
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn paths_and_region_are_fixed_once_the_object_exists() {
    let client = crate::client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let name = format!("schema-test-{}", std::process::id());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let outcome = tokio::spawn(updates(client, name.clone())).await;
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
    outcome.unwrap();
}

async fn updates(client: kube::Client, namespace: String) {
    let secrets = api(&client, "ManagedSecret", &namespace);
    let stored = |name: &str, region: Option<&str>| {
        let mut object = with("ManagedSecret", "metadata.name", json!(name));
        // Nothing grants rights to this namespace either.
        object["spec"]["suspend"] = true.into();
        match region {
            Some(region) => object["spec"]["ssm"]["region"] = region.into(),
            None => drop(object["spec"]["ssm"].as_object_mut().unwrap().remove("region")),
        }
        serde_json::from_value::<DynamicObject>(object).unwrap()
    };
    secrets.create(&PostParams::default(), &stored("with-region", Some("us-east-1"))).await.unwrap();
    secrets.create(&PostParams::default(), &stored("without", None)).await.unwrap();
    let params = PatchParams { dry_run: true, ..PatchParams::default() };

    let seen = secrets.get("without").await.unwrap();
    // If the controller runs, it may have reconciled the object by now.
    assert!(seen.data["status"]["observedGeneration"].is_number(), "{:?}", seen.data["status"]);

    for (patch, message) in fixed() {
        let said = secrets.patch("with-region", &params, &Patch::Merge(&patch)).await.err();
        let said = said.unwrap_or_else(|| panic!("{patch} was taken")).to_string();
        assert!(said.contains(message), "{patch} was refused with: {said}");
    }
    let set = json!({"spec": {"ssm": {"region": "us-east-1"}}});
    let said = secrets.patch("without", &params, &Patch::Merge(&set)).await.unwrap_err().to_string();
    assert!(said.contains("ssm.region cannot be changed, set or removed after creation"), "{said}");

    let incidents = api(&client, "SecretIncident", &namespace);
    let incident = serde_json::from_value(sound("SecretIncident")).unwrap();
    incidents.create(&PostParams::default(), &incident).await.unwrap();
    let later = json!({"spec": {"reportedAt": "2026-01-03T00:00:00Z"}});
    let said = incidents.patch("schema-test", &params, &Patch::Merge(&later)).await.unwrap_err().to_string();
    assert!(said.contains(REPORT_IS_FIXED), "{said}");

    for patch in [
        json!({"spec": {"ssm": {"kmsKeyId": "alias/other"}, "suspend": false}}),
        json!({"spec": {"ssm": {"parameters": [{"path": "/shop/prod/TOKEN", "value": "x{value}"}]}}}),
        json!({"spec": {"generate": {"hex": null, "fernet": {}}, "rotation": {"period": null, "mode": "OnDemand"}}}),
        json!({"metadata": {"annotations": {"keyturn.dev/rotate-requested-at": "now"}}}),
    ] {
        let taken = secrets.patch("with-region", &params, &Patch::Merge(&patch)).await;
        assert!(taken.is_ok(), "{patch}: {}", taken.unwrap_err());
    }
}

/// Needs no cluster: every rule must have a case that breaks it.
#[test]
fn every_rule_of_the_schema_is_broken_by_a_case() {
    let mut rules: BTreeMap<String, String> = BTreeMap::new();
    for crd in keyturn::api::crds() {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        collect(&crd.spec.names.kind, schema, &mut rules);
    }
    let mut messages: Vec<&str> = refused().into_iter().map(|case| case.3).collect();
    messages.extend(fixed().into_iter().map(|case| case.1));
    messages.push(REPORT_IS_FIXED);
    for (message, place) in rules {
        assert!(messages.iter().any(|m| message.contains(m)), "{place}: no case is refused with {message:?}");
    }
}

fn collect(place: &str, schema: &JSONSchemaProps, rules: &mut BTreeMap<String, String>) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        rules.insert(rule.message.clone().unwrap_or_default(), place.to_owned());
    }
    for (name, property) in schema.properties.iter().flatten() {
        collect(&format!("{place}.{name}"), property, rules);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        collect(&format!("{place}[]"), items, rules);
    }
}
