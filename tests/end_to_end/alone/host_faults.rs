//! Tests a docker host that is down, or whose disk is full: a condition with cause and remedy, and recovery without a
//! person afterwards. There is only one docker host, so each of these tests has the world to itself.

use crate::project::Project;
use crate::ssm;
use crate::world::{dev_world, eventually, in_box, on_host, run, try_run, world_program};

const SECRET: &str = "managedsecret/token";
const HOST: &str = "production";

/// Creates a secret that runs on the host, in a project that has the world to itself.
fn settled(subject: &str) -> Project {
    let project = Project::alone(subject);
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("token");
    project
}

/// Requests a rotation and waits until its deploy script runs, where it stays while the mark `slow` exists.
fn deploying(project: &Project, token: &str) {
    on_host(&format!("rm -f ~/e2e/{}/running", project.name));
    project.mark("slow");
    project.request("token", token);
    let running = format!("test -e ~/e2e/{}/running && echo yes || true", project.name);
    eventually("the deploy script is at work", || {
        if on_host(&running) == "yes" { Ok(()) } else { Err("not yet".into()) }
    });
}

/// Asserts that the rotation succeeded: one more value, which SSM publishes and the container runs, and no record.
fn ended_with(project: &Project, token: &str, values: usize) {
    assert_eq!(project.answered("token", token), "Succeeded");
    project.settled("token");
    let mut distinct = ssm::all_values(&project.path("TOKEN"));
    let last = distinct.last().cloned();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), values, "{token}: one value for each request");
    assert!(project.running("TOKEN") == last, "{token}: the container runs what SSM publishes");
    assert_eq!(ssm::records(&project.name), "", "{token}: no record is left");
    assert_eq!(project.condition(SECRET, "Stalled").0, "", "{token}: nobody has to act");
}

/// A guard that disconnects the docker host's network until it is dropped.
struct Unplugged;

impl Unplugged {
    fn now() -> Self {
        let unplugged = Self;
        dev_world(&["unplug", HOST]);
        unplugged
    }
}

impl Drop for Unplugged {
    fn drop(&mut self) {
        try_run(&world_program(), &["plug", HOST]).ok();
    }
}

#[test]
#[ignore = "needs the world"]
fn a_host_that_is_down_is_told_and_deployed_to_once_it_is_back() {
    let project = settled("down");

    // The host is unreachable before anything begins, so nothing is touched.
    let unplugged = Unplugged::now();
    project.request("token", "t1");
    let message = project.wait_reason(SECRET, "Preflight", "False", "Unreachable");
    assert!(message.contains("web") && message.contains("cannot be reached"), "{message}");
    assert_eq!(project.version("TOKEN"), 1, "no new value while the host is down");
    drop(unplugged);
    ended_with(&project, "t1", 2);

    // The host is unreachable in the middle of a deployment, and the node of the pod that waited for its end is lost
    // too.
    let deploys = project.deploys();
    deploying(&project, "t2");
    let unplugged = Unplugged::now();
    run("kubectl", &["delete", "pods", "-n", &project.name, "--all", "--grace-period=0", "--force"]);
    let message = project.wait_reason(SECRET, "Deployed", "False", "Unreachable");
    assert!(message.contains("web") && message.contains("cannot be reached"), "{message}");
    assert_eq!(project.condition(SECRET, "Ready").0, "True", "what is published stays ready");
    drop(unplugged);
    project.unmark("slow");
    ended_with(&project, "t2", 3);
    assert_eq!(project.deploys() - deploys, 1, "what was at work on the host went on and was joined");
}

/// A guard that mounts a small file system in place of the deploy account's folder until it is dropped.
struct SmallDisk;

impl SmallDisk {
    fn mount() -> Self {
        let disk = Self;
        in_box(
            HOST,
            "set -eu
mkdir -p /mnt/small
mount -t tmpfs -o size=$(($(du -sk /home/deploy | cut -f1) + 4096))k,mode=755 small /mnt/small
cp -a /home/deploy/. /mnt/small/
mount --bind /mnt/small /home/deploy",
        );
        disk
    }

    fn fill(&self) {
        in_box(HOST, "head -c 1G /dev/zero >/home/deploy/filler 2>/dev/null; test -s /home/deploy/filler");
    }

    fn free(&self) {
        in_box(HOST, "rm /home/deploy/filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Files that were written in the meantime are kept.
        let script = "umount -l /home/deploy; rm -f /mnt/small/filler; cp -a /mnt/small/. /home/deploy/; umount -l /mnt/small";
        try_run(&world_program(), &["run", HOST, "sh", "-c", script]).ok();
    }
}

#[test]
#[ignore = "needs the world"]
fn a_full_disk_is_told_and_the_rotation_ends_once_there_is_room() {
    let project = settled("full");
    let disk = SmallDisk::mount();

    // The disk is full before the deployment.
    disk.fill();
    project.request("token", "t1");
    let message = project.wait_reason(SECRET, "Deployed", "False", "HostUnfit");
    assert!(message.contains("disk is full: free some space on /"), "{message}");
    disk.free();
    ended_with(&project, "t1", 2);

    // The disk is full while the deploy script runs.
    deploying(&project, "t2");
    disk.fill();
    project.unmark("slow");
    let message = eventually("the full disk is told", || {
        let (status, reason, message) = project.condition(SECRET, "Deployed");
        if status == "False" && message.contains("full") {
            Ok(message)
        } else {
            Err(format!("{reason}: {message}"))
        }
    });
    assert!(message.contains("web"), "{message}");
    disk.free();
    ended_with(&project, "t2", 3);
}
