//! Runs with a common beginning: the beginning runs once, and right before each fault the process forks. The copy
//! continues with that fault and reports its end; the original continues without it.
//!
//! A fork copies only the calling thread. A lock that another thread holds at that moment stays locked in the copy, so
//! these tests run in a process without a second thread: [`alone`].

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

/// The effects at which a run branches off, with the faults for each.
pub(crate) struct Branches {
    faults: BTreeMap<usize, Vec<Fault>>,
    /// The reports for each fault, in the order in which they branched off.
    told: Vec<((usize, Fault), Vec<u8>)>,
    /// In a copy: the pipe for its report.
    copy: Option<PipeWriter>,
}

impl Branches {
    /// Branches off right before an effect: returns once without a fault, and in a copy of this process with each of
    /// its faults.
    pub(crate) fn branch_off(&mut self, effect: usize) -> Option<Fault> {
        for fault in self.faults.remove(&effect).unwrap_or_default() {
            let (mut reader, writer) = std::io::pipe().expect("a pipe");
            // SAFETY: there is no other thread that could hold a lock.
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
                    // SAFETY: this is a child of this process, and nobody else waits for it.
                    unsafe { libc::waitpid(copy, std::ptr::null_mut(), 0) };
                    self.told.push(((effect, fault), told));
                }
            }
        }
        None
    }
}

/// Runs a scenario with this plan and, each in a separate run, one of these faults in addition. Returns the end without
/// them, and the result of `tell` for each end.
pub(crate) fn run_with_each<T: Serialize + DeserializeOwned>(
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
        // A copy must never continue as the test itself, whatever happens. If it panicked, it sends no report.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let told = ended.map(|ending| serde_json::to_vec(&tell(ending)));
            writer.write_all(&told.unwrap_or_else(|panic| resume_unwind(panic)).expect("it is plain data"))
        }));
        drop(writer);
        // SAFETY: this ends the process at once.
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

/// Runs the body of the test with this name in a separate process.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
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
