//! Events on the hosts: deployments with their ends, and runs that only verify.

use crate::stories::Story;
use crate::world::{Failure, Host, Outside, PATHS, Proof, Role, Server, Shows, World};

/// The end of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The script succeeded; whether verify passes depends on the login.
    Done,
    /// The script failed, and containers still run the previous version.
    Failed,
    /// Containers run the new version, but do not work with it.
    Broken,
    /// The connection was lost, before or after the script began (`applied`).
    Unknown {
        /// True when the script began, so that containers run the new version.
        applied: bool,
    },
}

/// Returns true when the controller would start a deployment on this host.
pub fn may_start(outside: &Outside, host: &Host, deploys: bool) -> bool {
    deploys && outside.knows_hosts() && host.deploying.is_none() && !has_adopted_latest(outside, host)
}

fn has_adopted_latest(outside: &Outside, host: &Host) -> bool {
    (0..outside.paths.len()).all(|path| {
        host.proofs[path].is_some_and(|proof| {
            let adopted = match proof.shows {
                Shows::Proven => true,
                Shows::Incomparable => proof.deployed,
                Shows::Differs => false,
            };
            adopted && proof.version == outside.latest_number(path)
        })
    })
}

/// Starts a deployment of the latest versions on host number `at`.
pub fn start(world: &mut World, at: usize) {
    world.outside.hosts[at].deploying = Some(latest(&world.outside));
}

fn latest(outside: &Outside) -> [u8; PATHS] {
    std::array::from_fn(|path| if path < outside.paths.len() { outside.latest_number(path) } else { 0 })
}

/// Ends the deployment on host number `at`, and records its result on the host.
pub fn end(story: &Story, world: &mut World, at: usize, how: End) {
    let Some(versions) = world.outside.hosts[at].deploying.take() else { return };
    let fetched = if story.pinned { versions } else { latest(&world.outside) };
    if matches!(how, End::Done | End::Broken | End::Unknown { applied: true }) {
        world.outside.hosts[at].runs = fetched;
        first_password(world, at);
    }
    let works = works(story, &world.outside, at);
    let mut shown =
        |verified| show(story, &mut world.outside, at, versions, Run { verified, deployed: true });
    let failed = |rejected, unseen| Some(Failure { versions, rejected, unseen });
    let failed = match how {
        End::Unknown { .. } => failed(false, true),
        End::Broken => failed(true, true),
        End::Failed => failed(true, !shown(false)),
        End::Done => {
            let differs = shown(works);
            failed(true, !differs).filter(|_| differs || !works)
        }
    };
    world.outside.hosts[at].failed = failed;
}

/// Runs verify and the comparison without a deployment.
pub fn look(story: &Story, world: &mut World, at: usize) {
    if !world.outside.knows_hosts() {
        return;
    }
    let versions = latest(&world.outside);
    let verified = works(story, &world.outside, at);
    let before = world.outside.hosts[at].proofs;
    show(story, &mut world.outside, at, versions, Run { verified, deployed: false });
    let host = &mut world.outside.hosts[at];
    if host.proofs != before
        && let Some(failure) = &mut host.failed
    {
        failure.unseen = false;
    }
}

struct Run {
    /// True when the verify script passed.
    verified: bool,
    /// True when the run was a deployment.
    deployed: bool,
}

/// Writes the results of a run as the DockerHost's status has them; returns true when a container runs another value. A
/// version that was applied twice has the same value, and does not count as another one.
fn show(story: &Story, outside: &mut Outside, at: usize, versions: [u8; PATHS], run: Run) -> bool {
    let value = |path: usize, number: u8| outside.version(path, number).map(|version| version.value);
    let runs = outside.hosts[at].runs;
    let same: [bool; PATHS] = std::array::from_fn(|path| {
        path < outside.paths.len() && value(path, runs[path]) == value(path, versions[path])
    });
    let host = &mut outside.hosts[at];
    let mut differs = false;
    for (path, version) in versions.into_iter().enumerate().filter(|(_, version)| *version > 0) {
        let shows = match story.comparable {
            false => Shows::Incomparable,
            true if same[path] => Shows::Proven,
            true => Shows::Differs,
        };
        differs |= shows == Shows::Differs;
        if shows != Shows::Differs && !run.verified {
            continue;
        }
        let deployed_before =
            host.proofs[path].is_some_and(|proof| proof.deployed && proof.version == version);
        let deployed = run.deployed && shows != Shows::Differs || deployed_before;
        host.proofs[path] = Some(Proof { version, shows, deployed, asked: true });
    }
    differs
}

/// Returns true when the verify script passes, which means that the login works.
fn works(story: &Story, outside: &Outside, at: usize) -> bool {
    let login = outside.login_of(&outside.hosts[at]);
    !story.has_target() || login.is_some_and(|version| outside.accepts(version.role, version.value))
}

/// A database that is deployed for the first time takes the given password as its first one.
fn first_password(world: &mut World, at: usize) {
    let login = world.outside.login_of(&world.outside.hosts[at]).copied();
    if let (Server::NotThereYet, Some(version)) = (world.outside.server, login) {
        world.outside.server = Server::There;
        let role = &mut world.outside.roles[usize::from(version.role)];
        *role = Role { password: version.value, can_log_in: true, ..*role };
    }
}
