//! `rotation-model` searches the stories, prints the results, and fails if a violation is not known. A story that is
//! too large is searched up to a number of worlds, breadth first, and the last line says so.
//!
//! ```text
//! rotation-model            the small and the large stories, then the seeded bugs
//! rotation-model seeds      the seeded bugs alone
//! rotation-model WORD…      the stories whose name contains one of the words
//! ```

use std::process::ExitCode;
use std::time::Instant;

use keyturn_rotation_model::search::{Found, search};
use keyturn_rotation_model::seeds;
use keyturn_rotation_model::stories::{self, Story};

/// Limit for the number of worlds: more than fit into the memory of a small machine.
const MOST: usize = 4_000_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted =
        |story: &&Story| words.is_empty() || words.iter().any(|word| story.name.contains(word.as_str()));
    let stories: Vec<Story> = stories::small().into_iter().chain(stories::large()).collect();
    let (mut failed, mut cut_short) = (0, 0);
    println!("{:>9} {:>11} {:>5} {:>7}  story", "states", "transitions", "depth", "seconds");
    for story in stories.iter().filter(wanted) {
        let began = Instant::now();
        let found = search(story, MOST, true);
        print(story, &found, began);
        let is_news = found.violations.iter().any(|violation| !story.known.contains(&violation.what));
        failed += usize::from(is_news);
        cut_short += usize::from(found.cut_short);
    }
    if cut_short > 0 {
        println!("\n{cut_short} stories have more than {MOST} worlds: the nearest ones were looked at");
    }
    if words.is_empty() || words == ["seeds"] {
        println!("\nseeded bugs, each of which has to be found");
        for story in seeds::all() {
            let began = Instant::now();
            let found = search(&story, MOST, false);
            let name = format!("{:?}: {}", story.seed.unwrap_or(seeds::Seed::NoGrace), story.name);
            println!("{}", line(&name, &found, began));
            match found.violations.iter().find(|violation| !story.known.contains(&violation.what)) {
                Some(first) => println!("{:>38}{} ({} moves)", "", first.what, first.trace.len() - 1),
                None => {
                    println!("{:>38}NOT FOUND", "");
                    failed += 1;
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(name: &str, found: &Found, began: Instant) -> String {
    let Found { states, transitions, depth, cut_short, .. } = found;
    let cut = if *cut_short { "  CUT SHORT" } else { "" };
    format!("{states:>9} {transitions:>11} {depth:>5} {:>7.1}  {name}{cut}", began.elapsed().as_secs_f64())
}

fn print(story: &Story, found: &Found, began: Instant) {
    println!("{}", line(story.name, found, began));
    for violation in &found.violations {
        let known = if story.known.contains(&violation.what) { "Known: " } else { "" };
        println!("\n{known}{}, after {} moves:", violation.what, violation.trace.len() - 1);
        for step in &violation.trace {
            println!("    {step}");
        }
        println!();
    }
}
