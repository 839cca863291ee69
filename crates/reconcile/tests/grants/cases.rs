//! Random worlds, grants and edits, reproducible from a seed.

use std::sync::Arc;

use chrono::TimeDelta;
use keyturn_api::time::to_kubernetes;
use keyturn_api::{DockerHost, ManagedSecret, ROTATE_REQUESTED_AT, SecretIncident};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::rules::{
    Database, Endpoint, Entry, Grant, HOME, Host, Mode, NAMESPACE, Place, Secret, Server, Source,
};
use crate::world::{Planted, State};

/// A predictable generator of numbers (SplitMix64).
#[derive(Clone)]
pub(crate) struct Numbers(pub u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// Returns true once in this many times, on average.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Returns the first element, except once in eight times.
    fn mostly<T: Copy>(&mut self, all: &[T]) -> T {
        if self.once_in(8) { self.of(all) } else { all[0] }
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const ABROAD: &str = "eu-west-1";
const KEY: &str = "alias/shop";
const LOGIN: &str = "{username}:{password}";
const EVIL: &str = "{username}:{password}@evil.example";
const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const WEB: Endpoint = Endpoint { name: "web.example", port: 22 };
const JUMP: Endpoint = Endpoint { name: "jump.example", port: 2222 };
const SERVER: Endpoint = Endpoint { name: "db.example", port: 5432 };
const ADMIN: &str = "/shop/prod/ADMIN";
/// Paths. The granted ones are below `/shop/prod/`; the others only look similar.
const PATHS: [&str; 13] = [
    "/shop/prod/TOKEN",
    "/shop/prod/deep/TOKEN",
    "/TOKEN",
    "/other/TOKEN",
    "/shop/production/TOKEN",
    "/shop/prod",
    "/shop/prod/../../other/TOKEN",
    "/shop/prod//TOKEN",
    "/shop/prod/TOKEN/",
    "/Shop/Prod/TOKEN",
    "/shop/pr\u{43e}d/TOKEN",
    "/keyturn/sim/shop/other/1",
    "/keyturn/simulation/TOKEN",
];
const PLACES: [&str; 10] = [
    "/shop/prod/",
    "/shop/",
    "/",
    "/TOKEN",
    "/shop/prod/TOKEN",
    "/keyturn/",
    "/keyturn/sim/",
    "/shop/pro/",
    "/other/",
    "/shop/prod/deep/",
];

fn everywhere() -> Entry {
    Entry {
        place: "/shop/prod/",
        regions: vec![HOME, ABROAD],
        keys: vec![KEY],
        templates: vec![LOGIN, "{\"key\": \"{value}\"}"],
    }
}

fn server(place: Place) -> Server {
    Server { place, roles: vec!["app", "app_a", "app_b", "app_owner"], probes: true }
}

fn full() -> Grant {
    Grant {
        namespaces: Some(vec![NAMESPACE]),
        mode: Mode::Rotate,
        is_being_deleted: false,
        parameters: vec![everywhere()],
        hosts: vec![WEB, JUMP],
        servers: vec![server(Place::Direct(SERVER)), server(Place::Via("web", 5432))],
        accounts: vec![ACCOUNT],
    }
}

/// Returns grants of everything in the worlds, wider than anybody would grant: they show what is found without
/// any guard.
pub(crate) fn everything() -> Vec<Grant> {
    let mut all = full();
    let folders = ["/shop/", "/other/", "/Shop/", "/keyturn/", "/shop/pr\u{43e}d/"];
    let singles = ["/TOKEN"];
    all.parameters =
        folders.into_iter().chain(singles).map(|place| Entry { place, ..everywhere() }).collect();
    for entry in &mut all.parameters {
        entry.regions.push("xx-chosen-7");
        entry.keys.push("alias/other");
        entry.templates.push(EVIL);
    }
    let evil = Endpoint { name: "evil.example", port: 22 };
    all.hosts.extend([Endpoint { port: 2022, ..WEB }, evil]);
    vec![all]
}

/// Returns the grants of a case: all, all except something, or anything.
fn grants(numbers: &mut Numbers) -> Vec<Grant> {
    let mut all = vec![full()];
    let changes = [0, 0, 0, 0, 1, 1, 2][numbers.below(7)];
    for _ in 0..changes {
        change(&mut all, numbers);
    }
    all
}

fn change(all: &mut Vec<Grant>, numbers: &mut Numbers) {
    let Some(grant) = all.first_mut() else { return };
    match numbers.below(14) {
        0 => all.clear(),
        1 => grant.mode = numbers.of(&[Mode::Observe, Mode::Unknown]),
        2 => grant.namespaces = Some(vec![numbers.of(&["sho", "shopping", "other"])]),
        3 => grant.is_being_deleted = true,
        4 => grant.parameters.clear(),
        5 => {
            let place = numbers.of(&PLACES);
            grant.parameters.iter_mut().for_each(|entry| entry.place = place);
        }
        6 => grant.parameters.iter_mut().for_each(|entry| entry.regions.clear()),
        7 => grant.parameters.iter_mut().for_each(|entry| entry.keys.clear()),
        8 => grant.parameters.iter_mut().for_each(|entry| entry.templates.clear()),
        9 => drop(grant.hosts.pop()),
        10 => grant.hosts.clear(),
        11 => {
            let probes = numbers.once_in(2);
            grant.servers.iter_mut().for_each(|server| {
                server.probes = probes;
                server.roles.truncate(if probes { 2 } else { 4 });
            });
        }
        12 => grant.accounts.clear(),
        _ => all.push(stop(numbers)),
    }
}

/// Returns one more grant that only observes something, or that cannot be parsed.
fn stop(numbers: &mut Numbers) -> Grant {
    let mut stop = Grant {
        namespaces: Some(vec![numbers.of(&[NAMESPACE, NAMESPACE, NAMESPACE, "other"])]),
        mode: Mode::Observe,
        is_being_deleted: numbers.once_in(8),
        parameters: Vec::new(),
        hosts: Vec::new(),
        servers: Vec::new(),
        accounts: Vec::new(),
    };
    match numbers.below(6) {
        0 => {
            let regions = numbers.of(&[&[][..], &[HOME][..], &[ABROAD][..]]).to_vec();
            let place = numbers.of(&PLACES);
            stop.parameters = vec![Entry { place, regions, keys: Vec::new(), templates: Vec::new() }];
        }
        1 => stop.hosts = vec![numbers.of(&[WEB, JUMP])],
        2 => stop.servers = vec![server(numbers.of(&[Place::Direct(SERVER), Place::Via("web", 5432)]))],
        3 => stop.accounts = vec![ACCOUNT],
        4 => stop.mode = Mode::Unknown,
        _ => stop.namespaces = None,
    }
    stop
}

fn source(numbers: &mut Numbers) -> Source {
    if numbers.once_in(5) {
        return Source::R2(numbers.mostly(&[ACCOUNT, "ffffffffffffffffffffffffffffffff"]));
    }
    if numbers.once_in(3) {
        return if numbers.once_in(3) { Source::Fernet } else { Source::Hex };
    }
    let has_admin = !numbers.once_in(3);
    let is_pair = has_admin && numbers.once_in(2);
    Source::Postgres(Database {
        place: if numbers.once_in(2) {
            Place::Via("web", 5432)
        } else {
            numbers.mostly(&[
                Place::Direct(SERVER),
                Place::Direct(Endpoint { name: "db.evil.example", port: 5432 }),
                Place::Direct(Endpoint { port: 5433, ..SERVER }),
            ])
        },
        roles: if is_pair {
            vec!["app_a", "app_b", "app_owner"]
        } else {
            vec![numbers.mostly(&["app", "root"])]
        },
        has_admin,
        admin_parameter: (has_admin && numbers.once_in(3)).then(|| numbers.mostly(&[ADMIN, "/other/ADMIN"])),
        probes: numbers.once_in(3),
    })
}

fn secret(name: &'static str, numbers: &mut Numbers) -> Secret {
    let source = source(numbers);
    let path = numbers.mostly(&PATHS);
    let parameters = match source {
        Source::R2(_) => {
            vec![(path, Some("{accessKeyId}")), ("/shop/prod/SECRET", Some("{secretAccessKey}"))]
        }
        Source::Postgres(_) => vec![(path, Some(numbers.mostly(&[LOGIN, EVIL])))],
        Source::Hex => {
            let texts = [None, Some("{value}"), Some("{\"key\": \"{value}\"}"), Some("$(evil){value}")];
            vec![(path, numbers.mostly(&texts))]
        }
        Source::Fernet => vec![(path, None)],
    };
    Secret {
        name,
        region: numbers.mostly(&[None, Some(HOME), Some(ABROAD), Some("xx-chosen-7")]),
        key: numbers.mostly(&[None, Some("alias/aws/ssm"), Some(KEY), Some("alias/other")]),
        parameters,
        source,
        hosts: numbers.of(&[&[][..], &["web"][..], &["web"][..]]).to_vec(),
        deletion_policy: numbers.of(&["Retain", "Delete"]),
    }
}

fn host(numbers: &mut Numbers) -> Host {
    let evil = Endpoint { name: "evil.example", port: 22 };
    Host {
        name: "web",
        endpoint: numbers.mostly(&[
            WEB,
            Endpoint { name: "Web.Example", port: 22 },
            Endpoint { port: 2022, ..WEB },
            evil,
        ]),
        jump: numbers.mostly(&[None, Some(JUMP), Some(evil)]),
    }
}

fn object<K: DeserializeOwned>(kind: &str, name: &str, spec: &Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": kind,
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "generation": 1,
            "creationTimestamp": "2026-02-01T00:00:00Z", "resourceVersion": "1",
        },
        "spec": spec,
    }))
    .unwrap()
}

fn written(secret: &Secret) -> ManagedSecret {
    let written = |(path, value): &(&str, Option<&str>)| match value {
        Some(value) => json!({"path": path, "value": value}),
        None => json!({"path": path}),
    };
    let parameters: Vec<Value> = secret.parameters.iter().map(written).collect();
    let generate = match &secret.source {
        Source::Hex => json!({"hex": {"bytes": 32}}),
        Source::Fernet => json!({"fernet": {"keepPrevious": 1}}),
        Source::R2(account) => json!({"cloudflareR2": {
            "accountId": account, "buckets": ["media"], "tokenSecretRef": {"name": "cloudflare", "key": "token"},
        }}),
        Source::Postgres(database) => json!({"postgres": of_database(database)}),
    };
    let mut ssm = json!({"parameters": parameters, "ifMissing": "Create"});
    if let Some(region) = secret.region {
        ssm["region"] = json!(region);
    }
    if let Some(key) = secret.key {
        ssm["kmsKeyId"] = json!(key);
    }
    let hosts: Vec<Value> = secret.hosts.iter().map(|name| json!({"name": name})).collect();
    let spec = json!({
        "ssm": ssm, "generate": generate, "rotation": {"period": "1d"}, "hosts": hosts,
        "deletionPolicy": secret.deletion_policy, "accessLog": {"script": "true"},
    });
    object("ManagedSecret", secret.name, &spec)
}

fn of_database(database: &Database) -> Value {
    let mut spec = json!({"database": "app"});
    match database.place {
        Place::Direct(Endpoint { name, port }) => {
            spec["host"] = json!(name);
            spec["port"] = json!(port);
        }
        Place::Via(host, port) => {
            spec["via"] = json!({"dockerHost": host});
            spec["port"] = json!(port);
        }
    }
    match database.roles.as_slice() {
        [a, b, owner] => spec["alternatingRoles"] = json!({"names": [a, b], "owner": owner}),
        roles => spec["singleRole"] = json!({"name": roles[0]}),
    }
    match database.admin_parameter {
        Some(path) => spec["adminParameter"] = json!({"path": path, "username": "admin"}),
        None if database.has_admin => spec["adminSecretRef"] = json!({"name": "admin"}),
        None => {}
    }
    if database.probes {
        spec["probes"] = json!(["SELECT 1"]);
    }
    spec
}

fn written_host(host: &Host) -> DockerHost {
    let mut ssh = json!({
        "host": host.endpoint.name, "port": host.endpoint.port, "user": "deploy",
        "keySecretRef": {"name": "key", "key": "id"}, "knownHosts": ["* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILQzrAkkj7EyNVl+dlkYgID8Z0a6qrgj4157Ffnl1wwn"],
    });
    if let Some(jump) = host.jump {
        ssh["jump"] = json!({"host": jump.name, "port": jump.port, "user": "jump"});
    }
    let spec = json!({"ssh": ssh, "docker": {"composeProject": "shop"}, "deploy": {"script": "true"}});
    object("DockerHost", host.name, &spec)
}

/// Returns a world with one or two secrets, published or not, some of which are due, and a host.
pub(crate) fn world(seed: u64, planted: Planted) -> State {
    let mut numbers = Numbers(seed);
    let mut state = State::new(numbers.clone(), planted);
    state.grants = Arc::new(grants(&mut numbers));
    let web = host(&mut numbers);
    let object = written_host(&web);
    state.hosts.insert("web", (web, object));
    let names: &[&'static str] = if numbers.once_in(3) { &["token", "second"] } else { &["token"] };
    for name in names {
        let secret = secret(name, &mut numbers);
        publish(&mut state, &secret, &mut numbers);
        let object = written(&secret);
        state.secrets.insert(name, (secret, object));
    }
    state.numbers = numbers;
    state.now += TimeDelta::days(2);
    state
}

/// Publishes the values from before keyturn.
fn publish(state: &mut State, secret: &Secret, numbers: &mut Numbers) {
    if let Source::Postgres(database) = &secret.source {
        state.logins.insert(database.roles[0].to_owned(), "first".to_owned());
        for role in &database.roles[1..] {
            if *role != "app_owner" {
                state.logins.remove(*role);
            }
        }
    }
    if numbers.once_in(4) {
        return;
    }
    for (path, template) in &secret.parameters {
        let value = match &secret.source {
            Source::Postgres(database) => {
                let template = template.unwrap_or("{value}");
                template.replace("{username}", database.roles[0]).replace("{password}", "first")
            }
            Source::R2(_) => {
                state.logins.insert("0".repeat(32), "1".repeat(64));
                let template = template.unwrap_or_default();
                template
                    .replace("{accessKeyId}", &"0".repeat(32))
                    .replace("{secretAccessKey}", &"1".repeat(64))
            }
            Source::Hex | Source::Fernet => "old".to_owned(),
        };
        state.put(secret.region(), path, &value, "by hand");
        if numbers.once_in(6) {
            state.keys.insert((*path).to_owned(), "alias/kept".to_owned());
        }
    }
}

/// Makes the edit of a person between two steps.
pub(crate) fn edit(state: &mut State) {
    let mut numbers = state.numbers.clone();
    match numbers.below(12) {
        0..=4 => {
            let mut changed = Vec::clone(&state.grants);
            change(&mut changed, &mut numbers);
            state.grants = Arc::new(changed);
        }
        5 | 6 => state.grants = Arc::new(grants(&mut numbers)),
        7 => {
            let web = host(&mut numbers);
            let generation = state.hosts.get("web").and_then(|(_, host)| host.metadata.generation);
            let mut object = written_host(&web);
            object.metadata.generation = generation.map(|generation| generation + 1);
            object.status = state.hosts.get("web").and_then(|(_, host)| host.status.clone());
            state.hosts.insert("web", (web, object));
        }
        8 => edit_secret(state, &mut numbers),
        9 | 10 => request(state, &mut numbers),
        _ => report(state),
    }
    state.numbers = numbers;
}

/// Edits everything of a secret except its paths, which the schema makes immutable.
fn edit_secret(state: &mut State, numbers: &mut Numbers) {
    let Some((name, (known, object))) =
        state.secrets.iter().next().map(|(name, known)| (*name, known.clone()))
    else {
        return;
    };
    let mut changed = known.clone();
    match numbers.below(4) {
        0 => changed.key = numbers.of(&[None, Some(KEY), Some("alias/other")]),
        1 => changed.hosts = numbers.of(&[&[][..], &["web"][..]]).to_vec(),
        2 => {
            if let (Source::Postgres(_), Some((_, template))) =
                (&changed.source, changed.parameters.first_mut())
            {
                *template = Some(numbers.of(&[LOGIN, EVIL]));
            }
        }
        _ => {
            if let Source::Postgres(database) = &mut changed.source {
                database.probes = !database.probes;
                database.place = numbers.of(&[Place::Direct(SERVER), Place::Via("web", 5432)]);
            }
        }
    }
    let mut again = written(&changed);
    again.metadata = object.metadata.clone();
    again.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
    again.status = object.status.clone();
    if numbers.once_in(8) {
        again.metadata.deletion_timestamp = Some(to_kubernetes(state.now));
    }
    state.secrets.insert(name, (changed, again));
}

fn request(state: &mut State, numbers: &mut Numbers) {
    for (_, object) in state.secrets.values_mut() {
        let token = numbers.below(1_000_000).to_string();
        object.metadata.annotations.get_or_insert_default().insert(ROTATE_REQUESTED_AT.to_owned(), token);
    }
}

fn report(state: &mut State) {
    let spec = json!({"allSecrets": true, "reportedAt": to_kubernetes(state.now), "revokeWithin": "10m"});
    let incident: SecretIncident = object("SecretIncident", "leak", &spec);
    state.incidents = vec![incident];
}
