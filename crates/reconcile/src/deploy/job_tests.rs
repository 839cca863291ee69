use keyturn_api::docker_host::JumpSpec;
use keyturn_api::managed_secret::Origin;

use super::*;
use crate::deploy::testing;
use crate::deploy::wish::wishes;

const SECRET_KEY: &str = "KEY-OF-THE-FINGERPRINT";

fn sample(mode: RunMode) -> (DockerHost, Run, Task) {
    let secret = testing::secret("token", &["/app/TOKEN"]);
    let secret = testing::published(secret, &[("/app/TOKEN", 3, Origin::Rotated)]);
    let run = Run {
        mode,
        revision: "0123456789abcdef".into(),
        attempt: 2,
        parameters: wishes("web", &[secret]),
        because: vec![],
        collection: None,
        layers: false,
    };
    let parameters = vec![TaskParameter {
        path: "/app/TOKEN".into(),
        version: 3,
        published_at: 1_700_000_000,
        env: vec!["TOKEN".into()],
        key: SECRET_KEY.into(),
        mac: "MAC".into(),
        trimmed_mac: None,
    }];
    let host = testing::host("web");
    let task = task(&host, &run, parameters, ManagedValues::new(&[], &[1; 32]));
    (host, run, task)
}

fn sample_job(mode: RunMode) -> Job {
    let (host, run, task) = sample(mode);
    job(&host, &run, &task, &JobTemplate { image: "keyturn:1".into(), ..JobTemplate::default() })
}

#[test]
fn job_names_are_labels_that_tell_hosts_revisions_modes_and_attempts_apart() {
    let revision = "0123456789abcdef";
    assert_eq!(job_name("web", revision, RunMode::Deploy, 1), "web-0123456789abcdef-d1");
    assert_eq!(job_name("web", revision, RunMode::Verify, 12), "web-0123456789abcdef-v12");
    let long = "x".repeat(253);
    for host in ["a.b", "a-b", &long, &long[1..], &format!("{}.{long}", "a".repeat(40)), "web"] {
        for attempt in [1, i32::MAX] {
            let name = job_name(host, revision, RunMode::Deploy, attempt);
            assert!(name.len() <= 63, "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
            assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()) && !name.contains("--"), "{name}");
        }
    }
    let name = |host| job_name(host, revision, RunMode::Deploy, 1);
    assert_ne!(name("a.b"), name("a-b"));
    assert_ne!(name(&long), name(&long[1..]));
}

#[test]
fn nothing_of_the_fingerprints_is_in_the_job() {
    let (host, run, task) = sample(RunMode::Deploy);
    let job = job(&host, &run, &task, &JobTemplate::default());
    assert!(!serde_json::to_string(&job).unwrap().contains(SECRET_KEY));
    let secret = task_secret(&job, &task);
    let data = &secret.data.as_ref().unwrap()[TASK_KEY].0;
    assert!(String::from_utf8_lossy(data).contains(SECRET_KEY));
    assert_eq!(secret.immutable, Some(true));
}

#[test]
fn the_pod_mounts_the_secret_of_its_own_start() {
    let (host, run, mut task) = sample(RunMode::Deploy);
    let name = |task: &Task| task_secret(&job(&host, &run, task, &JobTemplate::default()), task).name_any();
    let first = name(&task);
    let mounted = job(&host, &run, &task, &JobTemplate::default());
    let volumes = mounted.spec.unwrap().template.spec.unwrap().volumes.unwrap();
    let secrets: Vec<&str> =
        volumes.iter().filter_map(|v| v.secret.as_ref()?.secret_name.as_deref()).collect();
    assert!(secrets.contains(&first.as_str()), "{secrets:?} lacks {first}");
    task.parameters[0].key = "another".into();
    assert_ne!(name(&task), first, "the Secret of an interrupted start is in the way");
}

#[test]
fn the_secret_goes_with_the_job_and_the_job_with_the_host() {
    let (host, run, task) = sample(RunMode::Deploy);
    let mut job = job(&host, &run, &task, &JobTemplate::default());
    job.metadata.uid = Some("uid-of-the-job".into());
    let secret = task_secret(&job, &task);
    let owner = &secret.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Job", "uid-of-the-job"));
    assert!(is_controlled_by(&job, &host));
    let mut recreated = host;
    recreated.metadata.uid = Some("another".into());
    assert!(!is_controlled_by(&job, &recreated));
}

#[test]
fn the_pod_keeps_to_the_restricted_profile_and_gets_no_token() {
    let pod = sample_job(RunMode::Deploy).spec.unwrap().template.spec.unwrap();
    let all = pod.security_context.as_ref().unwrap();
    assert_eq!((all.run_as_non_root, all.run_as_user, all.fs_group), (Some(true), Some(USER), Some(USER)));
    assert_eq!(all.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
    assert_eq!(pod.automount_service_account_token, Some(false));
    let container = &pod.containers[0];
    let own = container.security_context.as_ref().unwrap();
    assert_eq!(own.allow_privilege_escalation, Some(false));
    assert_eq!(own.read_only_root_filesystem, Some(true));
    assert_eq!(own.capabilities.as_ref().unwrap().drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(container.termination_message_policy.as_deref(), Some("File"));
    assert!(container.resources.as_ref().unwrap().limits.is_some());
}

#[test]
fn only_the_named_keys_are_mounted_readable_for_the_group() {
    let (mut host, run, task) = sample(RunMode::Deploy);
    host.spec.ssh.jump = Some(JumpSpec {
        host: "jump.example".into(),
        port: None,
        user: "hop".into(),
        key_secret_ref: Some(SecretKeyRef { name: "jump-key".into(), key: "jump.pem".into() }),
    });
    let mounted = |host: &DockerHost| -> Vec<(String, String, String, i32)> {
        let pod = job(host, &run, &task, &JobTemplate::default()).spec.unwrap().template.spec.unwrap();
        let mounts = pod.containers[0].volume_mounts.clone().unwrap();
        pod.volumes
            .unwrap()
            .into_iter()
            .map(|volume| {
                let secret = volume.secret.unwrap();
                let item = secret.items.unwrap().remove(0);
                let mount = mounts.iter().find(|mount| mount.name == volume.name).unwrap();
                let path = format!("{}/{}", mount.mount_path, item.path);
                (path, secret.secret_name.unwrap(), item.key, item.mode.unwrap())
            })
            .collect()
    };
    let own_name = task_secret(&job(&host, &run, &task, &JobTemplate::default()), &task).name_any();
    let row = |path: &str, secret: &str, key: &str| (path.into(), secret.into(), key.into(), 0o440);
    assert_eq!(
        mounted(&host),
        [
            row(TASK_FILE, &own_name, TASK_KEY),
            row(KEY_FILE, "web-key", "id.pem"),
            row(JUMP_KEY_FILE, "jump-key", "jump.pem"),
        ]
    );
    if let Some(jump) = &mut host.spec.ssh.jump {
        jump.key_secret_ref = None;
    }
    assert_eq!(mounted(&host)[2], row(JUMP_KEY_FILE, "web-key", "id.pem"));
}

#[test]
fn final_failures_end_the_job_and_passing_ones_get_another_pod() {
    let rules = sample_job(RunMode::Deploy).spec.unwrap().pod_failure_policy.unwrap().rules;
    assert_eq!(rules[0].action, "FailJob");
    let codes = &rules[0].on_exit_codes.as_ref().unwrap().values;
    assert_eq!(*codes, [20, 21, 22, 23, 24, 30, 31, 32, 33, 34, 35]);
    assert_eq!(rules[1].action, "Ignore");
    assert!(rules[1].on_pod_conditions.is_some());
}

#[test]
fn the_deadline_lies_well_beyond_what_the_scripts_may_take() {
    let deadline = |job: Job| job.spec.unwrap().active_deadline_seconds.unwrap();
    assert_eq!(deadline(sample_job(RunMode::Deploy)), 2 * (900 + 120) + 60 + 600);
    assert_eq!(deadline(sample_job(RunMode::Verify)), 2 * 120 + 60 + 600);
    let (host, run, mut task) = sample(RunMode::Verify);
    task.audit.as_mut().unwrap().layers = Layers::Look;
    let looks = job(&host, &run, &task, &JobTemplate::default());
    assert_eq!(deadline(looks), 2 * 120 + 660 + 600, "and beyond a look into the layers");
}

#[test]
fn the_job_says_what_it_runs() {
    let annotations = sample_job(RunMode::Verify).metadata.annotations.unwrap();
    assert_eq!(annotations[MODE], "Verify");
    assert_eq!(annotations[ATTEMPT], "2");
    assert_eq!(annotations[PARAMETERS], "/app/TOKEN=3@3");
    assert_eq!(annotations[TARGET], target(&testing::host("web").spec));
}
