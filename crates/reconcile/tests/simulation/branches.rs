//! Many runs that have their beginning in common: it is run once, and right before each fault the process forks. The copy
//! goes on with that fault and tells how it ended; the original goes on without.
//!
//! A fork copies the calling thread alone. What another one has locked in that moment stays locked in the copy, so these
//! tests run in a process with no second thread: [`alone`].

#![expect(unsafe_code, reason = "a run branches off by fork(), which the standard library does not have")]

use std::collections::BTreeMap;
use std::io::{PipeWriter, Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::faults::{Fault, Plan};
use crate::harness::{Attention, Ending, run_along};
use crate::memory::Memory;
use crate::scenarios::Scenario;

#[global_allocator]
static MEMORY: Memory = Memory::new();

/// Where a run branches off, and into how many.
pub struct Branches {
    faults: BTreeMap<usize, Vec<Fault>>,
    /// What has been told of each fault, in the order in which they branched off.
    told: Vec<((usize, Fault), Vec<u8>)>,
    /// In a copy: where it tells.
    copy: Option<PipeWriter>,
}

impl Branches {
    /// Called right before an effect: returns once without a fault, and in a copy of this process with each of them.
    pub fn branch_off(&mut self, effect: usize) -> Option<Fault> {
        for fault in self.faults.remove(&effect).unwrap_or_default() {
            let (mut reader, writer) = std::io::pipe().expect("a pipe");
            // SAFETY: no other thread is there that could hold a lock.
            match unsafe { libc::fork() } {
                -1 => panic!("no process for {effect} {fault:?}: {}", std::io::Error::last_os_error()),
                0 => {
                    MEMORY.of_a_copy();
                    self.faults.clear();
                    self.copy = Some(writer);
                    return Some(fault);
                }
                copy => {
                    drop(writer);
                    let mut told = Vec::new();
                    reader.read_to_end(&mut told).expect("a pipe can be read");
                    // SAFETY: a child of this process that nobody else waits for.
                    unsafe { libc::waitpid(copy, std::ptr::null_mut(), 0) };
                    self.told.push(((effect, fault), told));
                }
            }
        }
        None
    }
}

/// Runs a scenario with this plan and each of these faults besides, each in a run of its own, and says what `tell` makes of
/// each end; and how it ended without them.
pub fn run_with_each<T: Serialize + DeserializeOwned>(
    scenario: &Scenario,
    plan: &Plan,
    attention: Attention,
    faults: Vec<(usize, Fault)>,
    tell: impl Fn(Ending) -> T,
) -> (Ending, Vec<(Plan, T)>) {
    let mut by_effect = BTreeMap::<usize, Vec<Fault>>::new();
    for (effect, fault) in faults {
        by_effect.entry(effect).or_default().push(fault);
    }
    let branches = Arc::new(Mutex::new(Branches { faults: by_effect, told: Vec::new(), copy: None }));
    let ended = catch_unwind(AssertUnwindSafe(|| run_along(scenario, plan, attention, branches.clone())));
    let mut branches = branches.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut writer) = branches.copy.take() {
        // Whatever happens, a copy must not go on as if it were the test. What has not been told says that it panicked.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let told = ended.map(|ending| serde_json::to_vec(&tell(ending)));
            writer.write_all(&told.unwrap_or_else(|panic| resume_unwind(panic)).expect("it is plain data"))
        }));
        drop(writer);
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(0) }
    }
    let ending = ended.unwrap_or_else(|panic| resume_unwind(panic));
    let told = std::mem::take(&mut branches.told).into_iter().map(|(fault, told)| {
        let mut plan = plan.clone();
        plan.0.push(fault);
        let told = serde_json::from_slice(&told).unwrap_or_else(|_| panic!("{plan} panicked, see above"));
        (plan, told)
    });
    (ending, told.collect())
}

/// Runs the body of the test of this name in a process of its own.
pub fn alone(test: &str, body: impl FnOnce()) {
    const HERE: &str = "KEYTURN_SIMULATION_ALONE";
    if std::env::var_os(HERE).is_some() {
        return body();
    }
    let program = std::env::current_exe().expect("the program of this test");
    let arguments = [test, "--exact", "--nocapture", "--test-threads=1"];
    let output = Command::new(program).args(arguments).env(HERE, "1").output().expect("it starts");
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{printed}");
    assert!(output.status.success(), "{errors}");
    assert!(printed.contains("1 passed"), "no test is named {test}");
}
