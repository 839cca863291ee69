//! Tries every single fault of every story, with all events and with none, and every pair of faults of the
//! stories in [`crate::pairs`]. Finished work is kept, so that a stopped run can continue; the result is
//! docs/proof.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::branches::run_with_each;
use crate::faults::{Fault, Plan};
use crate::harness::{Attention, Ending, run};
use crate::pairs::{self, case, commit, git};
use crate::scenarios::Scenario;

/// A story and its run without faults.
struct Trial {
    scenario: Scenario,
    attention: Attention,
    calm: Ending,
    in_pairs: bool,
}

impl Trial {
    fn new(scenario: Scenario, attention: Attention) -> Self {
        let calm = run(&scenario, &Plan::none(), attention, None);
        let ends_well = calm.violations.is_empty() && (scenario.ends)(&calm.summary);
        assert!(ends_well, "{}: ends badly without a fault", case(&scenario, attention, &Plan::none()));
        let stories = pairs::stories();
        let listed = stories.iter().any(|story| story.name == scenario.name);
        Self { in_pairs: listed && attention == Attention::Watches, scenario, attention, calm }
    }

    fn check(&self, ending: &Ending) -> Result<(), String> {
        ending.check(&self.scenario, &self.calm)
    }

    fn note(&self, plan: &Plan, checked: Result<(), String>, found: &mut Found) {
        let Err(problem) = checked else { return };
        found.violations += 1;
        if found.shown.len() < 20 {
            let problem = problem.replace('\n', " ");
            found.shown.push(format!("{}: {problem}", case(&self.scenario, self.attention, plan)));
        }
    }

    /// Tries all faults at one effect, each alone and, if requested, with every second fault.
    fn try_all_at(&self, effect: usize) -> Found {
        let began = Instant::now();
        let mut found = Found::default();
        let faults: Vec<Fault> = self.calm.faults_at(effect).collect();
        for plan in faults.into_iter().map(|fault| Plan::single(effect, fault)) {
            let led_to = run(&self.scenario, &plan, self.attention, None);
            let checked = self.check(&led_to);
            found.singles += 1;
            if self.in_pairs && checked.is_ok() {
                let seconds = pairs::seconds(&self.calm, &led_to, effect);
                let tell = |ending| self.check(&ending);
                for (plan, checked) in run_with_each(&self.scenario, &plan, self.attention, seconds, tell).1 {
                    found.pairs += 1;
                    self.note(&plan, checked, &mut found);
                }
            }
            self.note(&plan, checked, &mut found);
        }
        found.milliseconds = began.elapsed().as_millis() as u64;
        found
    }
}

/// The results for one effect of one story, or the sum of all.
#[derive(Default)]
struct Found {
    effects: u64,
    singles: u64,
    pairs: u64,
    violations: u64,
    milliseconds: u64,
    shown: Vec<String>,
}

impl Found {
    fn add(&mut self, other: &Self) {
        self.effects += other.effects;
        self.singles += other.singles;
        self.pairs += other.pairs;
        self.violations += other.violations;
        self.milliseconds += other.milliseconds;
        self.shown.extend(other.shown.iter().cloned());
    }
}

/// One effect of one story.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Share {
    story: String,
    attention: String,
    effect: usize,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.story, self.attention, self.effect)
    }
}

/// The finished work of this commit, one line per share. Several processes append to it as they proceed.
struct Journal {
    file: File,
    done: BTreeMap<Share, Found>,
}

impl Journal {
    fn open(path: &Path) -> Self {
        let mut done = BTreeMap::<Share, Found>::new();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let (what, shown) = line.split_once('\t').unwrap_or((line, ""));
            let words: Vec<&str> = what.split(' ').collect();
            // An incomplete line is ignored, and its share is done again.
            let [story, attention, numbers @ ..] = words.as_slice() else { continue };
            let numbers: Vec<u64> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
            let [effect, singles, pairs, violations, milliseconds] = numbers[..] else { continue };
            let effect = usize::try_from(effect).expect("the number of an effect");
            let share = Share { story: (*story).into(), attention: (*attention).into(), effect };
            let shown = shown.split('\t').filter(|text| !text.is_empty()).map(str::to_owned).collect();
            done.insert(share, Found { effects: 1, singles, pairs, violations, milliseconds, shown });
        }
        let file =
            OpenOptions::new().create(true).append(true).open(path).expect("the journal can be written");
        Self { file, done }
    }

    fn add(&mut self, share: Share, mut found: Found) {
        let numbers = [found.singles, found.pairs, found.violations, found.milliseconds];
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let line = format!("{share} {}\t{}\n", numbers.join(" "), found.shown.join("\t"));
        self.file.write_all(line.as_bytes()).expect("the journal can be written");
        for shown in &found.shown {
            println!("{shown}");
        }
        found.effects = 1;
        self.done.insert(share, found);
    }
}

fn shares(trials: &[Trial]) -> Vec<(usize, Share)> {
    let of_trial = |(number, trial): (usize, &Trial)| {
        let (story, attention) = (trial.scenario.name.to_owned(), trial.attention.to_string());
        let share = move |effect| Share { story: story.clone(), attention: attention.clone(), effect };
        (0..trial.calm.effects.len()).map(move |effect| (number, share(effect))).collect::<Vec<_>>()
    };
    let mut shares: Vec<(usize, Share)> = trials.iter().enumerate().flat_map(of_trial).collect();
    // The order is pseudo-random, so that the finished part of a run that ends early is a sample of all shares.
    shares.sort_by_key(|(_, share)| {
        let mut hasher = DefaultHasher::new();
        share.hash(&mut hasher);
        hasher.finish()
    });
    shares
}

/// Does the remaining work on all processors until the time is over: in processes of one thread each, see
/// [`crate::branches`].
fn work() {
    let program = std::env::current_exe().expect("the program of this test");
    let part = ["prove::a_part_of_it", "--exact", "--ignored", "--nocapture", "--test-threads=1"];
    let start = |number: usize| {
        let mut command = Command::new(&program);
        command.args(part).env(PART, number.to_string()).spawn().expect("it starts")
    };
    let workers: Vec<Child> = (0..processors()).map(start).collect();
    for mut worker in workers {
        let status = worker.wait().expect("a child of this process");
        assert!(status.success(), "a part of it: {status}, see above");
    }
}

/// The variable with the number of the part that a process does, counted from 0.
const PART: &str = "KEYTURN_PROVE_PART";

#[test]
#[ignore = "what every_fault_and_every_pair starts once for each processor"]
fn a_part_of_it() {
    let began = Instant::now();
    let part: usize =
        std::env::var(PART).ok().and_then(|text| text.parse().ok()).expect("the number of a part");
    let limit = std::env::var("KEYTURN_PROVE_SECONDS").ok().and_then(|text| text.parse().ok());
    let trials = trials();
    let mut journal = Journal::open(&journal_of(&commit_or_unknown()));
    let is_open = |(_, share): &(usize, Share)| !journal.done.contains_key(share);
    let open: Vec<(usize, Share)> =
        shares(&trials).into_iter().skip(part).step_by(processors()).filter(is_open).collect();
    let all = open.len();
    for (number, (trial, share)) in open.into_iter().enumerate() {
        if limit.is_some_and(|limit| began.elapsed() >= Duration::from_secs(limit)) {
            return;
        }
        journal.add(share.clone(), trials[trial].try_all_at(share.effect));
        if number % (all / 50 + 1) == 0 {
            println!("part {part}: {:3} %, {} s", number * 100 / all, began.elapsed().as_secs());
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the model name of the processors.
fn machine() -> String {
    let known = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = known.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{} × {}", processors(), name.map_or("an unknown processor", |(_, name)| name.trim()))
}

fn table(trials: &[Trial], journal: &Journal) -> (String, Found, u64) {
    let (mut all, mut effects, mut rows) = (Found::default(), 0, String::new());
    let names: Vec<&str> = trials.iter().map(|trial| trial.scenario.name).collect();
    let mut seen = BTreeSet::new();
    for name in names.into_iter().filter(|name| seen.insert(*name)) {
        let mut cells = vec![format!("`{name}`")];
        let (mut pairs, mut violations) = (String::new(), 0);
        for trial in trials.iter().filter(|trial| trial.scenario.name == name) {
            let mut found = Found::default();
            let attention = trial.attention.to_string();
            let of_trial = |share: &Share| share.story == name && share.attention == attention;
            journal.done.iter().filter(|(share, _)| of_trial(share)).for_each(|(_, one)| found.add(one));
            let wanted = trial.calm.effects.len() as u64;
            effects += wanted;
            cells.push(if found.effects == wanted {
                wanted.to_string()
            } else {
                format!("{} of {wanted}", found.effects)
            });
            cells.push(found.singles.to_string());
            if trial.in_pairs {
                pairs = found.pairs.to_string();
            }
            violations += found.violations;
            all.add(&found);
        }
        cells.extend([pairs, violations.to_string()]);
        writeln!(rows, "| {} |", cells.join(" | ")).expect("a String takes everything");
    }
    (rows, all, effects)
}

fn page(trials: &[Trial], journal: &Journal, commit: &str) -> String {
    let (rows, all, effects) = table(trials, journal);
    let done = if all.effects == effects {
        "Everything was tried.".to_owned()
    } else {
        format!(
            "**Not everything was tried:** the time was over after {} of {effects} effects, chosen at random.",
            all.effects
        )
    };
    format!(
        "# What the protocol was tried against\n\n\
         Written by `make prove`, which runs the reconcilers over the simulated world of \
         [`crates/reconcile/tests/simulation`](../crates/reconcile/tests/simulation/main.rs): each fault of \
         [`faults.rs`](../crates/reconcile/tests/simulation/faults.rs) at each effect of each story, with all events and with none, and \
         for the stories of [`pairs.rs`](../crates/reconcile/tests/simulation/pairs.rs) each second fault at each later effect of the run \
         that the first one leads to. The invariants are checked after each effect, and each run must end as the one \
         without faults does. CI tries every single fault with all events, and another slice of the pairs with each commit.\n\n\
         | | |\n|---|---|\n\
         | Commit | {commit} |\n\
         | Date | {} |\n\
         | Machine | {} |\n\
         | Time, all workers together | {} min |\n\
         | Stories | {} |\n\
         | Effects | {} |\n\
         | Single faults | {} |\n\
         | Pairs | {} |\n\
         | Violations | {} |\n\n\
         {done}\n\n\
         | Story | Effects | Single faults | Effects without events | Single faults without events | Pairs | \
         Violations |\n\
         |---|--:|--:|--:|--:|--:|--:|\n{rows}",
        chrono::Utc::now().format("%Y-%m-%d"),
        machine(),
        all.milliseconds / 60_000,
        trials.len() / 2,
        all.effects,
        all.singles,
        all.pairs,
        all.violations,
    )
}

fn trials() -> Vec<Trial> {
    let both = [Attention::Watches, Attention::TimesOnly];
    let of_story = |scenario: Scenario| both.map(|attention| Trial::new(scenario.clone(), attention));
    crate::all_scenarios().into_iter().flat_map(of_story).collect()
}

fn commit_or_unknown() -> String {
    commit().unwrap_or_else(|| "unknown".to_owned())
}

fn journal_of(commit: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("prove-{commit}"))
}

#[test]
#[ignore = "takes an hour: make prove"]
fn every_fault_and_every_pair() {
    let commit = commit_or_unknown();
    let is_clean =
        git(&["status", "--porcelain", "--", "crates", "Cargo.lock"]).is_some_and(|s| s.is_empty());
    if !is_clean {
        // Work without a clean checkout may have been done with other code.
        fs::remove_file(journal_of(&commit)).ok();
    }
    work();
    let (trials, journal) = (trials(), Journal::open(&journal_of(&commit)));
    let told = if is_clean { commit } else { format!("{commit}, and changes that it does not have") };
    let page = page(&trials, &journal, &told);
    println!("{page}");
    fs::write(pairs::root().join("docs/proof.md"), page).expect("docs/proof.md can be written");
    let shown: Vec<&str> = journal.done.values().flat_map(|found| &found.shown).map(String::as_str).collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}
