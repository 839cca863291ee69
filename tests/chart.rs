//! Tests the chart: its README is generated from its values, and both Helm versions render the intended objects.
//!
//! Some tests need Helm 3 and 4 (`helm3` and `helm` in PATH, as `eval "$(dev/world env)"` sets it); run them with
//! `cargo test --test chart -- --ignored`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const REGENERATE: &str = "UPDATE=1 cargo test --test chart";
const HELMS: [&str; 2] = ["helm3", "helm"];
/// The Kubernetes version to render for, since Helm asks no cluster here.
const KUBERNETES: &str = "1.35.0";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/keyturn")
}

// --- README ---------------------------------------------------------------------------------------------------------

/// One row of the table of values.
struct Row {
    path: String,
    default: String,
    description: String,
}

/// Returns the values that have a description, in the order of the file: a `# -- ` comment and the key below it, which
/// may be commented out (`#cluster:`).
fn rows(text: &str) -> Vec<Row> {
    let values: Value = serde_saphyr::from_str(text).unwrap();
    let mut rows = Vec::new();
    let mut parents: Vec<(usize, String)> = Vec::new();
    let mut description: Option<String> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let content = line.trim_start();
        if let Some(first) = content.strip_prefix("# -- ") {
            description = Some(first.to_owned());
            continue;
        }
        if let (Some(more), Some(so_far)) = (content.strip_prefix("# "), &mut description) {
            write!(so_far, " {more}").unwrap();
            continue;
        }
        let Some((key, _)) = content.trim_start_matches('#').split_once(':') else { continue };
        if !key.chars().all(char::is_alphanumeric) {
            continue;
        }
        let key = key.to_owned();
        parents.retain(|(depth, _)| *depth < indent);
        let path =
            parents.iter().map(|(_, name)| name.as_str()).chain([key.as_str()]).collect::<Vec<_>>().join(".");
        parents.push((indent, key));
        if let Some(description) = description.take() {
            let default = values.pointer(&format!("/{}", path.replace('.', "/"))).map(Value::to_string);
            rows.push(Row { path, default: default.unwrap_or_default(), description });
        }
    }
    rows
}

fn readme() -> String {
    let template = fs::read_to_string(chart().join("ci/README.head.md")).unwrap();
    let mut page = format!(
        "<!-- Made by `{REGENERATE}` from ci/README.head.md and values.yaml. Do not edit. -->\n\n{template}"
    );
    page += "\n## Values\n\n| Value | Default | Description |\n|---|---|---|\n";
    for row in rows(&fs::read_to_string(chart().join("values.yaml")).unwrap()) {
        let default = if row.default.is_empty() { "none".to_owned() } else { format!("`{}`", row.default) };
        writeln!(page, "| `{}` | {default} | {} |", row.path, row.description.replace('|', "\\|")).unwrap();
    }
    page
}

#[test]
fn the_readme_is_that_of_the_values() {
    let path = chart().join("README.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, readme()).unwrap();
    } else {
        let stored = fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == readme(), "{} is not current: run `{REGENERATE}`", path.display());
    }
}

/// Finds the paths of all values that are not maps, or are empty maps.
fn leaves(prefix: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                leaves(&format!("{prefix}.{key}"), value, found);
            }
        }
        _ => found.push(prefix[1..].to_owned()),
    }
}

#[test]
fn every_value_is_described() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let described: Vec<String> = rows(&text).into_iter().map(|row| row.path).collect();
    let mut all = Vec::new();
    leaves("", &serde_saphyr::from_str(&text).unwrap(), &mut all);
    for path in all {
        let covered = described.iter().any(|d| path == *d || path.starts_with(&format!("{d}.")));
        assert!(covered, "{path} has no `# -- ` description");
    }
}

#[test]
fn the_schema_knows_every_value_and_no_other() {
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let values: Value =
        serde_saphyr::from_str(&fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap();
    same_keys("", &schema, &values);
}

fn same_keys(path: &str, schema: &Value, values: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], json!(false), "{path} takes unknown values");
    for (key, value) in values.as_object().unwrap() {
        let property = properties.get(key).unwrap_or_else(|| panic!("{path}.{key} is not in the schema"));
        same_keys(&format!("{path}.{key}"), property, value);
    }
    for key in properties.keys() {
        // These are required, or set by parent charts.
        let special = path.is_empty() && ["cluster", "global", "enabled"].contains(&key.as_str());
        assert!(special || values.get(key).is_some(), "{path}.{key} is in the schema and no value");
    }
}

#[test]
fn every_kind_is_named_where_the_chart_lists_its_kinds() {
    let chart_yaml: Value =
        serde_saphyr::from_str(&fs::read_to_string(chart().join("Chart.yaml")).unwrap()).unwrap();
    let listed = chart_yaml["annotations"]["artifacthub.io/crds"].as_str().unwrap();
    let listed: Vec<Value> = serde_saphyr::from_str(listed).unwrap();
    let mut names: Vec<&str> = listed.iter().map(|crd| crd["name"].as_str().unwrap()).collect();
    let crds = keyturn::api::crds();
    let mut expected: Vec<&str> = crds.iter().map(|crd| crd.metadata.name.as_deref().unwrap()).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected, "artifacthub.io/crds of Chart.yaml");

    let notes = fs::read_to_string(chart().join("templates/NOTES.txt")).unwrap();
    let warning = notes.split("crds.keep is false").nth(1).unwrap();
    let head = fs::read_to_string(chart().join("ci/README.head.md")).unwrap();
    let kept = head.split("With `crds.keep`").nth(1).unwrap().split(';').next().unwrap();
    for crd in &crds {
        let kind = &crd.spec.names.kind;
        assert!(warning.contains(kind.as_str()), "NOTES do not say that uninstalling deletes {kind}s");
        assert!(kept.contains(&format!("{kind}s")), "README.head.md does not say that {kind}s stay");
    }
}

// --- Helm -----------------------------------------------------------------------------------------------------------

fn run(helm: &str, arguments: &[&str]) -> Output {
    Command::new(helm).args(arguments).current_dir(chart()).output().unwrap_or_else(|error| {
        panic!(
            "{helm} cannot be run ({error}): put Helm 3 and 4 into PATH, as `eval \"$(dev/world env)\"` does"
        )
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Renders the chart, or returns Helm's error.
fn try_render(helm: &str, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let always = ["template", "keyturn", ".", "--namespace", "keyturn-system", "--kube-version", KUBERNETES];
    let output = run(helm, &[&always, arguments].concat());
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    Ok(serde_saphyr::from_multiple(&text(&output.stdout)).unwrap())
}

fn render(helm: &str, arguments: &[&str]) -> Vec<Value> {
    try_render(helm, arguments).unwrap_or_else(|error| panic!("{helm} {arguments:?}: {error}"))
}

const PRODUCTION: &[&str] = &["--values", "ci/production-values.yaml"];
const EVERYTHING: &[&str] = &["--values", "ci/everything-values.yaml"];

/// Values without a default, for tests of a single value.
const REQUIRED: [&str; 2] =
    ["--set", "cluster=production,aws.region=us-east-1,image.repository=registry.example.com/keyturn"];

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

fn names(objects: &[&Value]) -> Vec<String> {
    objects.iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Returns the pods of the chart: those of Deployments and Jobs, and that of `helm test`.
fn pods(objects: &[Value]) -> Vec<&Value> {
    let templates = ["Deployment", "Job"].into_iter().flat_map(|kind| of_kind(objects, kind));
    let of_templates = templates.map(|object| &object["spec"]["template"]["spec"]);
    of_templates.chain(of_kind(objects, "Pod").into_iter().map(|pod| &pod["spec"])).collect()
}

fn environment(objects: &[Value]) -> BTreeMap<String, Value> {
    let container = &of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().unwrap();
    variables.iter().map(|v| (v["name"].as_str().unwrap().to_owned(), v.clone())).collect()
}

#[test]
#[ignore = "needs Helm"]
fn both_versions_find_nothing_to_complain_of_and_render_the_same() {
    for values in [PRODUCTION, EVERYTHING] {
        let rendered = HELMS.map(|helm| {
            let lint = run(helm, &[&["lint", ".", "--strict"], values].concat());
            assert!(lint.status.success(), "{helm}: {}{}", text(&lint.stdout), text(&lint.stderr));
            let mut objects = render(helm, values);
            objects.sort_by_key(|o| {
                format!("{} {} {}", o["kind"], o["metadata"]["name"], o["metadata"]["namespace"])
            });
            objects
        });
        assert_eq!(rendered[0], rendered[1], "{values:?}");
    }
}

#[test]
#[ignore = "needs Helm"]
fn wrong_values_are_refused() {
    let cases: [(&[&str], &str); 10] = [
        (&["--set", "cluster=null"], "cluster"),
        (&["--set", "cluster=a/b"], "/cluster"),
        (&["--set", "tims.grace=1m"], "tims"),
        (&["--set", "times.grace=15 minutes"], "/times/grace"),
        (&["--set", "times.grace=15"], "/times/grace"),
        (&["--set", "image.pullPolicy=Sometimes"], "/image/pullPolicy"),
        (&["--set", "image.digest=sha256:12"], "/image/digest"),
        (&["--set", "staging=keyturn"], "/staging"),
        (
            &["--set", "grants.shop.namespaces={shop}", "--set", "grants.shop.parameters[0].prefix=/shop"],
            "prefix",
        ),
        (&["--set", "grants.shop.parameters[0].prefix=/shop/"], "namespaces"),
    ];
    for helm in HELMS {
        for (arguments, complaint) in cases {
            let error = try_render(helm, &[PRODUCTION, arguments].concat()).expect_err("was taken");
            assert!(error.contains(complaint), "{helm} {arguments:?}: {error}");
        }
        render(helm, &[PRODUCTION, &["--set", "global.anything=1,enabled=true"]].concat());
    }
}

#[test]
#[ignore = "needs Helm"]
fn definitions_are_those_of_the_types_and_are_kept() {
    for helm in HELMS {
        let objects = render(helm, PRODUCTION);
        let rendered = of_kind(&objects, "CustomResourceDefinition");
        let types = keyturn::api::crds();
        assert_eq!(rendered.len(), types.len());
        for (rendered, of_type) in rendered.iter().zip(&types) {
            let parsed: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
                serde_json::from_value((*rendered).clone()).unwrap();
            assert_eq!(parsed.spec, of_type.spec);
            assert_eq!(rendered["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        }
        let kept = render(helm, &[PRODUCTION, &["--set", "crds.keep=false"]].concat());
        for crd in of_kind(&kept, "CustomResourceDefinition") {
            assert!(crd["metadata"]["annotations"].is_null(), "{crd}");
        }
        let without = render(helm, &[PRODUCTION, &["--set", "crds.enabled=false"]].concat());
        assert!(of_kind(&without, "CustomResourceDefinition").is_empty());
    }
}

#[test]
#[ignore = "needs Helm"]
fn every_pod_keeps_to_the_restricted_profile() {
    for helm in HELMS {
        for values in [PRODUCTION, EVERYTHING] {
            let objects = render(helm, values);
            let pods = pods(&objects);
            assert_eq!(pods.len(), 3);
            for pod in pods {
                assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
                assert_eq!(pod["securityContext"]["runAsUser"], 65532);
                assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
                for container in pod["containers"].as_array().unwrap() {
                    let context = &container["securityContext"];
                    assert_eq!(context["allowPrivilegeEscalation"], false);
                    assert_eq!(context["readOnlyRootFilesystem"], true);
                    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
                    assert!(container["resources"]["limits"]["memory"].is_string());
                }
            }
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn the_environment_is_what_the_controller_reads() {
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        controller: keyturn::process::config::ControllerArgs,
    }
    let flag =
        |variable: &str| format!("--{}", variable["KEYTURN_".len()..].to_lowercase().replace('_', "-"));
    for values in [PRODUCTION, EVERYTHING] {
        let mut arguments = vec!["keyturn".to_owned()];
        for (name, variable) in environment(&render("helm", values)) {
            // The log level is an argument of the program; other variables belong to AWS' SDK or to the person who
            // installs.
            if name.starts_with("KEYTURN_") && name != "KEYTURN_LOG" {
                arguments.push(flag(&name));
                arguments.push(variable["value"].as_str().unwrap_or("from-the-pod").to_owned());
            }
        }
        let parsed =
            Arguments::try_parse_from(&arguments).unwrap_or_else(|e| panic!("{values:?}: {e}")).controller;
        assert_eq!(parsed.cluster, "production");
        let settings = parsed.settings().unwrap();
        if values == PRODUCTION {
            let shipped = keyturn_reconcile::settings::Settings::new("production", "us-east-1");
            assert_eq!(
                format!("{settings:?}"),
                format!("{shipped:?}"),
                "the chart's defaults are not the program's"
            );
        } else {
            assert_eq!(settings.staging, "/internal/keyturn");
            assert_eq!(parsed.namespaces(), ["musehub-production", "musehub-staging"]);
            assert_eq!(parsed.job_image_pull_secrets, ["registry"]);
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn credentials_come_from_the_service_account_or_from_a_secret() {
    for helm in HELMS {
        let plain = environment(&render(helm, PRODUCTION));
        let of_aws: Vec<&String> = plain.keys().filter(|name| name.starts_with("AWS_")).collect();
        assert_eq!(of_aws, ["AWS_REGION"]);
        let objects = render(helm, EVERYTHING);
        let with_secret = environment(&objects);
        assert_eq!(with_secret["AWS_ENDPOINT_URL_SSM"]["value"], "http://moto.example:5000");
        for (name, optional) in [
            ("AWS_ACCESS_KEY_ID", Value::Null),
            ("AWS_SECRET_ACCESS_KEY", Value::Null),
            ("AWS_SESSION_TOKEN", json!(true)),
        ] {
            let from = &with_secret[name]["valueFrom"]["secretKeyRef"];
            assert_eq!(
                (&from["name"], &from["key"], &from["optional"]),
                (&json!("aws"), &json!(name), &optional)
            );
        }
        let accounts = of_kind(&objects, "ServiceAccount");
        let annotated = accounts.iter().find(|a| a["metadata"]["name"] == "keyturn").unwrap();
        assert_eq!(
            annotated["metadata"]["annotations"]["eks.amazonaws.com/role-arn"],
            "arn:aws:iam::123456789012:role/keyturn"
        );
    }
}

#[test]
#[ignore = "needs Helm"]
fn the_image_of_deploy_jobs_is_the_controllers_own() {
    for helm in HELMS {
        for (values, image) in [
            (PRODUCTION, "registry.example.com/keyturn:0.1.0"),
            (
                EVERYTHING,
                "registry.example/keyturn@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ),
        ] {
            let objects = render(helm, values);
            for pod in pods(&objects) {
                assert_eq!(pod["containers"][0]["image"], image);
            }
            assert_eq!(environment(&objects)["KEYTURN_JOB_IMAGE"]["value"], image);
        }
    }
}

/// Returns every (API group, resource, verb) of a role's rules.
fn rights(role: &Value) -> Vec<(String, String, String)> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                rights.extend(
                    words(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)),
                );
            }
        }
    }
    rights
}

#[test]
#[ignore = "needs Helm"]
fn no_role_can_list_secrets_or_do_everything() {
    for helm in HELMS {
        for values in [PRODUCTION, EVERYTHING] {
            let objects = render(helm, values);
            let roles = [of_kind(&objects, "ClusterRole"), of_kind(&objects, "Role")].concat();
            assert!(roles.len() > 4);
            for role in roles {
                for (group, resource, verb) in rights(role) {
                    let right = format!("{}: {verb} {resource} of {group:?}", role["metadata"]["name"]);
                    assert!(![&group, &resource, &verb].contains(&&"*".to_owned()), "{right}");
                    assert!(
                        resource != "secrets" || ["create", "get", "delete"].contains(&verb.as_str()),
                        "{right}"
                    );
                    assert!(
                        !["pods/exec", "pods/log", "serviceaccounts/token"].contains(&resource.as_str()),
                        "{right}"
                    );
                    assert!(!["escalate", "bind", "impersonate"].contains(&verb.as_str()), "{right}");
                }
            }
        }
    }
}

/// Returns all rights of the controller except reading RotationGrants, by namespace; `*` stands for every namespace.
fn rights_by_namespace(objects: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let roles = [of_kind(objects, "ClusterRole"), of_kind(objects, "Role")].concat();
    let bindings = [of_kind(objects, "ClusterRoleBinding"), of_kind(objects, "RoleBinding")].concat();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for binding in bindings {
        let subject = json!({"kind": "ServiceAccount", "name": "keyturn", "namespace": "keyturn-system"});
        if binding["subjects"] != json!([subject]) {
            continue;
        }
        let bound = roles.iter().find(|role| {
            role["kind"] == binding["roleRef"]["kind"]
                && role["metadata"]["name"] == binding["roleRef"]["name"]
                && (role["kind"] == "ClusterRole"
                    || role["metadata"]["namespace"] == binding["metadata"]["namespace"])
        });
        let namespace = binding["metadata"]["namespace"].as_str().unwrap_or("*").to_owned();
        let rights = rights(bound.unwrap_or_else(|| panic!("no role for {binding}"))).into_iter();
        let rights = rights.map(|(_, resource, verb)| format!("{verb} {resource}"));
        found.entry(namespace).or_default().extend(rights.filter(|r| !r.ends_with("rotationgrants")));
    }
    found
}

const OWN_KINDS: [&str; 13] = [
    "get dockerhosts",
    "get managedsecrets",
    "get secretincidents",
    "list dockerhosts",
    "list managedsecrets",
    "list secretincidents",
    "patch managedsecrets",
    "update dockerhosts/status",
    "update managedsecrets/status",
    "update secretincidents/status",
    "watch dockerhosts",
    "watch managedsecrets",
    "watch secretincidents",
];
const WORK: [&str; 14] = [
    "create events",
    "create jobs",
    "create secrets",
    "delete jobs",
    "delete secrets",
    "get jobs",
    "get secrets",
    "list events",
    "list jobs",
    "list pods",
    "patch events",
    "patch jobs",
    "update jobs/finalizers",
    "watch jobs",
];

fn set(rights: &[&str]) -> BTreeSet<String> {
    rights.iter().map(|right| (*right).to_owned()).collect()
}

#[test]
#[ignore = "needs Helm"]
fn rights_beyond_its_own_kinds_are_bound_in_the_namespaces_that_grants_name_only() {
    let grants = values_file(&json!({
        "grants": {
            "one": {"namespaces": ["shop", "blog"], "hosts": [{"host": "a"}]},
            "two": {"namespaces": ["shop"], "parameters": [{"prefix": "/shop/"}]},
        },
        "rbac": {"namespaces": ["by-hand"]},
    }));
    let grants: [&str; 2] = ["--values", grants.path().to_str().unwrap()];
    for helm in HELMS {
        let mut rights = rights_by_namespace(&render(helm, &[PRODUCTION, &grants].concat()));
        assert_eq!(rights.remove("*"), Some(set(&OWN_KINDS)));
        assert_eq!(rights.remove("default"), Some(set(&["create events", "patch events"])));
        let own = ["create leases", "get leases", "update leases", "patch leases"];
        let own = [&own[..], &["create events", "patch events"]].concat();
        assert_eq!(rights.remove("keyturn-system"), Some(set(&own)));
        for namespace in ["by-hand", "blog", "shop"] {
            assert_eq!(rights.remove(namespace), Some(set(&WORK)), "{namespace}");
        }
        assert_eq!(rights, BTreeMap::new());

        let bare = rights_by_namespace(&render(helm, PRODUCTION));
        assert_eq!(bare.keys().collect::<Vec<_>>(), ["*", "default", "keyturn-system"]);

        let wide = [PRODUCTION, &grants, &["--set", "rbac.clusterWide=true"]].concat();
        let wide = rights_by_namespace(&render(helm, &wide));
        assert_eq!(wide["*"], set(&[&OWN_KINDS[..], &WORK].concat()));
        assert!(!wide.contains_key("shop"), "it has them there already");
    }
}

#[test]
#[ignore = "needs Helm"]
fn watching_some_namespaces_takes_rights_in_exactly_those() {
    for helm in HELMS {
        let mut rights = rights_by_namespace(&render(helm, EVERYTHING));
        assert_eq!(rights.remove("*"), Some(BTreeSet::new()), "RotationGrants are read everywhere");
        rights.remove("keyturn-system");
        for namespace in ["musehub-production", "musehub-staging"] {
            let all = [&OWN_KINDS[..], &WORK].concat();
            assert_eq!(rights.remove(namespace), Some(set(&all)), "{namespace}");
        }
        assert_eq!(rights, BTreeMap::new());
        for contradiction in ["rbac.clusterWide=true", "rbac.namespaces={other}"] {
            let error = try_render(helm, &[EVERYTHING, &["--set", contradiction]].concat());
            assert!(error.unwrap_err().contains("leave out rbac.namespaces and rbac.clusterWide"));
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn policies_hold_the_controllers_account_to_its_own_jobs_and_image() {
    for helm in HELMS {
        let account = ["--set", "serviceAccount.name=own,image.repository=registry.example/team/keyturn"];
        let objects = render(helm, &[PRODUCTION, &account].concat());
        let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
        let expected = ["keyturn-jobs", "keyturn-managedsecrets", "keyturn-secrets"];
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(names(&policies)), expected);
        for policy in &policies {
            assert_eq!(policy["spec"]["failurePolicy"], "Fail");
            assert_eq!(
                policy["spec"]["matchConditions"][0]["expression"],
                "request.userInfo.username == 'system:serviceaccount:keyturn-system:own'"
            );
        }
        let bindings = of_kind(&objects, "ValidatingAdmissionPolicyBinding");
        assert_eq!(sorted(names(&bindings)), expected);
        for binding in bindings {
            assert_eq!(binding["spec"]["policyName"], binding["metadata"]["name"]);
            assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
        }
        let jobs = policies.iter().find(|policy| policy["metadata"]["name"] == "keyturn-jobs").unwrap();
        assert!(
            jobs["spec"]["validations"].to_string().contains("'registry.example/team/keyturn' + separator")
        );
        let without = [PRODUCTION, &["--set", "admissionPolicy.enabled=false"]].concat();
        assert!(of_kind(&render(helm, &without), "ValidatingAdmissionPolicy").is_empty());
    }
}

#[test]
#[ignore = "needs Helm"]
fn by_default_nobody_reaches_the_metrics_or_a_deploy_job_and_the_controller_reaches_what_it_needs() {
    let grants = values_file(&json!({"grants": {
        "shop": {"namespaces": ["shop"], "hosts": [{"host": "a"}, {"host": "b", "port": 2222}]},
        "blog": {"namespaces": ["blog"], "hosts": [{"host": "c", "port": 2200}]},
    }}));
    let grants: [&str; 2] = ["--values", grants.path().to_str().unwrap()];
    let policy = |objects: &[Value], namespace: &str| {
        let policies = of_kind(objects, "NetworkPolicy");
        policies.into_iter().find(|p| p["metadata"]["namespace"] == namespace).unwrap()["spec"].clone()
    };
    let ports = |rule: &Value| -> Vec<i64> {
        rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_i64().unwrap()).collect()
    };
    for helm in HELMS {
        let objects = render(helm, &[PRODUCTION, &grants].concat());
        assert_eq!(of_kind(&objects, "NetworkPolicy").len(), 3);
        let controller = policy(&objects, "keyturn-system");
        assert_eq!(controller["policyTypes"], json!(["Ingress"]), "it may connect to anything");
        let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["metadata"]["labels"];
        for (label, value) in controller["podSelector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(&pod[label], value, "{label}");
        }
        let only_helm_test = json!([{"podSelector": {"matchLabels": {
            "app.kubernetes.io/instance": "keyturn", "app.kubernetes.io/component": "check",
        }}}]);
        assert_eq!(controller["ingress"][0]["from"], only_helm_test);
        let test = of_kind(&objects, "Pod")[0];
        assert_eq!(test["metadata"]["labels"]["app.kubernetes.io/component"], "check");

        for (namespace, ssh) in [("shop", vec![22, 2222]), ("blog", vec![22, 2200])] {
            let job = policy(&objects, namespace);
            assert_eq!(job["policyTypes"], json!(["Ingress", "Egress"]));
            assert!(job["ingress"].is_null(), "nobody is let in: {job}");
            let egress = job["egress"].as_array().unwrap();
            assert_eq!(egress.iter().map(ports).collect::<Vec<_>>(), [vec![53, 53, 5353, 5353], ssh]);
            let selected = json!({
                "app.kubernetes.io/managed-by": "keyturn", "app.kubernetes.io/component": "deploy-host",
            });
            assert_eq!(job["podSelector"]["matchLabels"], selected);
        }

        let narrowed = policy(&render(helm, EVERYTHING), "keyturn-system");
        assert_eq!(narrowed["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(ports(&narrowed["egress"][1]), [443, 5000]);
        assert!(narrowed["ingress"][0]["from"].to_string().contains("monitoring"));

        let scraped = [PRODUCTION, &["--set", "metrics.serviceMonitor.enabled=true"]].concat();
        let error = try_render(helm, &scraped).unwrap_err();
        assert!(error.contains("networkPolicy.metricsFrom"), "{error}");
        let off = [PRODUCTION, &grants, &["--set", "networkPolicy.enabled=false"]].concat();
        assert!(of_kind(&render(helm, &off), "NetworkPolicy").is_empty());
    }
}

#[test]
#[ignore = "needs Helm"]
fn an_image_must_be_named() {
    for helm in HELMS {
        let error = try_render(helm, &["--set", "cluster=production,aws.region=us-east-1"]).unwrap_err();
        assert!(error.contains("image.repository is not set") && error.contains("docker build"), "{error}");
    }
}

#[test]
#[ignore = "needs Helm"]
fn an_address_that_shows_secrets_on_the_way_is_refused_unless_it_is_allowed() {
    for helm in HELMS {
        for value in [
            "cloudflare.apiUrl=http://a.example/v4",
            "cloudflare.s3Endpoint=http://a.example/{account}",
            "aws.endpointUrlSsm=http://a.example",
            "aws.endpointUrlCloudtrail=http://a.example",
        ] {
            let escaped = value.replace('{', "\\{").replace('}', "\\}");
            let set = ["--set", &escaped];
            let error = try_render(helm, &[&REQUIRED[..], &set].concat()).unwrap_err();
            assert!(
                error.contains(value.split('=').next().unwrap()) && error.contains("use https"),
                "{error}"
            );
            let allowed = render(helm, &[&REQUIRED[..], &set, &["--set", "allowHttp=true"]].concat());
            assert_eq!(environment(&allowed)["KEYTURN_ALLOW_HTTP"]["value"], "true");
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn of_its_own_namespace_the_controller_may_read_the_secrets_of_sinks_alone() {
    for helm in HELMS {
        for (values, sinks) in
            [(PRODUCTION, None), (EVERYTHING, Some(json!(["keyturn-chat", "keyturn-events"])))]
        {
            let objects = render(helm, values);
            let roles = of_kind(&objects, "Role");
            let own =
                roles.iter().find(|role| role["metadata"]["name"] == "keyturn-leader-election").unwrap();
            let rules = own["rules"].as_array().unwrap().iter();
            let of_secrets: Vec<Value> =
                rules.filter(|rule| rule["resources"] == json!(["secrets"])).cloned().collect();
            let expected = sinks.map(|names| {
                json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"]})
            });
            assert_eq!(of_secrets, Vec::from_iter(expected));
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn grants_are_hooks_until_their_kind_is_known() {
    for helm in HELMS {
        let first = render(helm, EVERYTHING);
        let grants = of_kind(&first, "RotationGrant");
        assert_eq!(names(&grants), ["musehub"]);
        let hook = grants[0]["metadata"]["annotations"]["helm.sh/hook"].as_str().unwrap();
        assert_eq!(hook, "post-install,post-upgrade,post-rollback");
        let known = ["--api-versions", "keyturn.dev/v1alpha1/RotationGrant"];
        let later = render(helm, &[EVERYTHING, &known].concat());
        let grants = of_kind(&later, "RotationGrant");
        assert!(grants[0]["metadata"]["annotations"].is_null(), "{}", grants[0]);
        let spec: keyturn::api::RotationGrantSpec =
            serde_json::from_value(grants[0]["spec"].clone()).unwrap();
        assert_eq!(spec.hosts[0].port, Some(22));
        assert_eq!(spec.parameters[0].kms_keys, ["alias/musehub"]);
        assert_eq!(spec.cloudflare[0].account_id, "0123456789abcdef0123456789abcdef");
        assert_eq!((spec.postgres[0].port, spec.postgres[0].allow_superuser), (Some(5434), true));
    }
}

#[test]
#[ignore = "needs Helm"]
fn switches_add_their_objects_and_are_off_by_default() {
    let optional = ["PodDisruptionBudget", "ServiceMonitor", "PrometheusRule", "ConfigMap"];
    for helm in HELMS {
        let (plain, all) = (render(helm, PRODUCTION), render(helm, EVERYTHING));
        for kind in optional {
            assert!(of_kind(&plain, kind).is_empty(), "{kind} is there by default");
            assert!(!of_kind(&all, kind).is_empty(), "{kind} is missing");
        }
        assert_eq!(names(&of_kind(&all, "ConfigMap")), ["keyturn-extra", "extra-text"]);
        assert_eq!(of_kind(&all, "Deployment")[0]["spec"]["replicas"], 2);
    }
}

#[test]
#[ignore = "needs Helm"]
fn alerts_have_a_runbook_and_name_the_object() {
    for helm in HELMS {
        let objects = render(helm, EVERYTHING);
        let rules =
            of_kind(&objects, "PrometheusRule")[0]["spec"]["groups"][0]["rules"].as_array().unwrap().clone();
        assert!(rules.len() >= 4);
        for rule in rules {
            let annotations = &rule["annotations"];
            assert!(
                annotations["runbook_url"].as_str().unwrap().starts_with("https://runbooks.example/keyturn#")
            );
            let by_object = rule["expr"].as_str().unwrap().contains("namespace");
            let summary = annotations["summary"].as_str().unwrap();
            assert_eq!(by_object, summary.contains("{{ $labels.namespace }}/{{ $labels.name }}"), "{rule}");
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn a_region_must_be_given() {
    let cluster = ["--set", "cluster=production,image.repository=registry.example.com/keyturn"];
    for helm in HELMS {
        let error = try_render(helm, &cluster).expect_err("a controller without a region was rendered");
        assert!(error.contains("aws.region is not set") && error.contains("us-east-1"), "{helm}: {error}");
        for variable in ["AWS_REGION", "KEYTURN_AWS_REGION"] {
            let set = format!("env[0].name={variable},env[0].value=eu-west-1");
            let objects = render(helm, &[&cluster[..], &["--set", &set]].concat());
            assert_eq!(environment(&objects)[variable]["value"], "eu-west-1");
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn an_uninstallation_looks_first_whether_anything_is_under_way() {
    let base = REQUIRED;
    for helm in HELMS {
        let objects = render(helm, &[&base[..], &["--set", "watchNamespaces={a,b}"]].concat());
        let jobs = of_kind(&objects, "Job");
        let [job] = jobs.as_slice() else { panic!("{helm}: {} Jobs", jobs.len()) };
        assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete");
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], "keyturn", "it may list what the controller may");
        assert_eq!(pod["containers"][0]["args"], json!(["uninstall-check"]));
        assert_eq!(
            pod["containers"][0]["env"],
            json!([{"name": "KEYTURN_WATCH_NAMESPACES", "value": "a,b"}])
        );
        let without = render(helm, &[&base[..], &["--set", "uninstallCheck.enabled=false"]].concat());
        assert_eq!(of_kind(&without, "Job").len(), 0, "{helm}");
    }
}

#[test]
#[ignore = "needs Helm"]
fn an_expected_reader_that_cloudtrail_cannot_name_is_refused() {
    let set = |reader: Value| {
        let values = values_file(&json!({"incidents": {"expectedReaders": [reader]}}));
        let values = ["--values", values.path().to_str().unwrap()];
        HELMS.map(|helm| try_render(helm, &[&REQUIRED[..], &values].concat()))
    };
    for right in [
        json!({"principal": "arn:aws:sts::123456789012:assumed-role/keyturn/*"}),
        json!({"principal": "arn:*", "networks": ["10.0.0.0/8", "2001:db8::/32"]}),
        json!({"networks": ["192.0.2.7"]}),
    ] {
        assert!(set(right.clone()).iter().all(Result::is_ok), "{right}");
    }
    for (wrong, says) in [
        (json!({"principal": "keyturn"}), "\"keyturn\" names no reader"),
        (json!({"principal": "arn:aws:iam::123456789012:instance-profile/web"}), "assumed-role/keyturn/*"),
        (json!({"principal": "arn:*", "networks": ["web"]}), "\"web\" is not an address or network"),
        (json!({"networks": []}), "an item names nobody"),
    ] {
        for outcome in set(wrong.clone()) {
            let error = outcome.expect_err("a reader that is none was rendered");
            assert!(error.contains(says), "{error}");
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn more_volumes_stand_beside_those_of_the_sinks() {
    let extra = json!({
        "extraVolumes": [{"name": "ca", "configMap": {"name": "company-ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/keyturn/ca", "readOnly": true}],
    });
    let extra = values_file(&extra);
    let extra: [&str; 2] = ["--values", extra.path().to_str().unwrap()];
    let names = |items: &Value| -> Vec<String> {
        items.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let pod = |objects: &[Value]| of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"].clone();
    for helm in HELMS {
        let plain = pod(&render(helm, PRODUCTION));
        assert!(plain["volumes"].is_null() && plain["containers"][0]["volumeMounts"].is_null(), "{plain}");
        for (values, expected) in [
            ([PRODUCTION, &extra].concat(), vec!["ca"]),
            (EVERYTHING.to_vec(), vec!["sink-chat", "sink-events", "ca"]),
        ] {
            let pod = pod(&render(helm, &values));
            assert_eq!(names(&pod["volumes"]), expected);
            assert_eq!(names(&pod["containers"][0]["volumeMounts"]), expected);
            let last = |items: &Value| items.as_array().unwrap().last().unwrap().clone();
            assert_eq!(last(&pod["volumes"]), json!({"name": "ca", "configMap": {"name": "company-ca"}}));
            assert_eq!(
                last(&pod["containers"][0]["volumeMounts"]),
                json!({"name": "ca", "mountPath": "/etc/keyturn/ca", "readOnly": true})
            );
        }
    }
}

fn values_file(values: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    fs::write(file.path(), serde_json::to_string(values).unwrap()).unwrap();
    file
}

/// Returns every YAML block of the docs that sets values of the chart, with its page.
fn values_in_the_docs() -> Vec<(String, Value)> {
    let known: Value =
        serde_saphyr::from_str(&fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let pages = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut found = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("\n```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next()) {
            let Ok(values @ Value::Object(_)) = serde_saphyr::from_str(block) else { continue };
            if values.as_object().unwrap().keys().all(|key| known.get(key).is_some()) {
                found.push((page.display().to_string(), values));
            }
        }
    }
    found
}

#[test]
#[ignore = "needs Helm"]
fn the_values_that_the_docs_show_are_taken() {
    let shown = values_in_the_docs();
    assert!(shown.len() >= 4, "only {} blocks of values were found in docs/", shown.len());
    assert!(shown.iter().any(|(_, values)| !values["extraVolumes"].is_null()), "no page shows extraVolumes");
    for (page, values) in shown {
        let file = values_file(&values);
        for helm in HELMS {
            let objects =
                try_render(helm, &[PRODUCTION, &["--values", file.path().to_str().unwrap()]].concat());
            let objects = objects.unwrap_or_else(|error| panic!("{page}: {helm}: {values}: {error}"));
            let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
            for mount in pod["containers"][0]["volumeMounts"].as_array().into_iter().flatten() {
                let volumes = pod["volumes"].as_array().unwrap();
                assert!(volumes.iter().any(|v| v["name"] == mount["name"]), "{page}: {mount} has no volume");
            }
        }
    }
}

/// Returns the notes after an installation with these values. Helm renders notes only with a cluster, so a copy of the
/// chart contains them as a value of an object.
fn notes(helm: &str, values: &[&str]) -> String {
    let copy = tempfile::tempdir().unwrap();
    let folder = copy.path().join("keyturn");
    assert!(run("cp", &["-r", ".", folder.to_str().unwrap()]).status.success());
    fs::copy(folder.join("templates/NOTES.txt"), folder.join("notes.txt")).unwrap();
    let object = "kind: Notes\ntext: {{ tpl (.Files.Get \"notes.txt\") . | quote }}\n";
    fs::write(folder.join("templates/notes.yaml"), object).unwrap();
    let template = ["template", "keyturn", folder.to_str().unwrap(), "--namespace", "keyturn-system"];
    let only = ["--kube-version", KUBERNETES, "--show-only", "templates/notes.yaml"];
    let output = run(helm, &[&template[..], &only, values].concat());
    assert!(output.status.success(), "{helm} {values:?}: {}", text(&output.stderr));
    let object: Value = serde_saphyr::from_str(&text(&output.stdout)).unwrap();
    object["text"].as_str().unwrap().to_owned()
}

/// Returns the indented block of the notes that begins behind `start` and ends before `end`, as YAML.
fn block(notes: &str, start: &str, end: &str) -> Value {
    let rest = notes.split(start).nth(1).unwrap_or_else(|| panic!("no {start} in {notes}"));
    let lines = rest.lines().skip(1).take_while(|line| line.trim() != end);
    let text: Vec<&str> = lines.map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    serde_saphyr::from_str(&text.join("\n")).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

#[test]
#[ignore = "needs Helm"]
fn the_notes_show_a_secret_that_the_grants_cover() {
    use keyturn::api::grants::{Grants, Installation, Verdict, managed_secret};
    use keyturn::api::managed_secret::ManagedSecret;
    use keyturn::api::rotation_grant::RotationGrant;

    let parameters = |prefix: &str| json!([{"prefix": prefix}]);
    let cases = [
        (json!({}), ("musehub", "/musehub/production/")),
        (
            json!({"grants": {"hosts-only": {"namespaces": ["a"], "hosts": [{"host": "a"}]}}}),
            ("musehub", "/musehub/production/"),
        ),
        (
            json!({"grants": {
                "a": {"namespaces": ["a"], "hosts": [{"host": "a"}]},
                "b": {"namespaces": ["b-1", "b-2"], "parameters": parameters("/b/")},
                "c": {"namespaces": ["c"], "parameters": parameters("/c/")},
            }}),
            ("b-1", "/b/"),
        ),
        (
            json!({
                "watchNamespaces": ["b-2"],
                "grants": {"b": {"namespaces": ["b-1", "b-2"], "parameters": parameters("/b/")}},
            }),
            ("b-2", "/b/"),
        ),
        (
            json!({"grants": {"b": {
                "namespaces": ["b"], "parameters": [{"prefix": "/b/", "regions": ["eu-west-1", "eu-north-1"]}],
            }}}),
            ("b", "/b/"),
        ),
    ];
    for helm in HELMS {
        for (values, (namespace, prefix)) in &cases {
            let file = values_file(values);
            let arguments = [PRODUCTION, &["--values", file.path().to_str().unwrap()]].concat();
            let said = notes(helm, &arguments);
            let advice = said.contains("  grants:\n").then(|| {
                // Follows the advice: saves the values as a file and upgrades the release with it.
                let grants = block(&said, "-f grants.yaml:\n", "");
                values_file(&grants)
            });
            let advised = advice.as_ref().map(|file| ["--values", file.path().to_str().unwrap()]);
            let arguments = [&arguments[..], advised.as_ref().map_or(&[], |two| &two[..])].concat();
            let objects = render(helm, &arguments);
            let grants: Grants = of_kind(&objects, "RotationGrant")
                .into_iter()
                .map(|grant| serde_json::from_value::<RotationGrant>(grant.clone()).unwrap())
                .collect();
            let secret: ManagedSecret = serde_json::from_value(block(&said, "<<YAML", "YAML")).unwrap();
            assert_eq!(secret.metadata.namespace.as_deref(), Some(*namespace), "{values}");
            assert_eq!(secret.spec.ssm.parameters[0].path, format!("{prefix}RUNNER_TOKEN"), "{values}");
            let region = secret.spec.ssm.region.as_deref().unwrap_or("us-east-1");
            let installation = Installation { region: "us-east-1", staging: "/keyturn/production" };
            let verdict = managed_secret(&grants, &secret, region, installation);
            assert!(verdict == Verdict::Rotate, "{helm} {values}: {verdict:?}\n{said}");
            // A namespace with a grant existed when the chart was installed.
            let create = said.contains(&format!("kubectl create namespace {namespace}"));
            assert_eq!(create, advice.is_some(), "{said}");
            for command in ["-n", "managedsecrets -n", "managedsecret -n"] {
                assert!(
                    said.contains(&format!("{command} {namespace}")),
                    "{command} {namespace} is not in {said}"
                );
            }
        }
    }
}
