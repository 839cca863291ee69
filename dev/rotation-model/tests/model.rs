//! The invariants hold in the small stories, and every seeded bug is found.

use keyturn_rotation_model::search::search;
use keyturn_rotation_model::{seeds, stories};

const MOST: usize = 2_000_000;

#[test]
fn every_world_of_the_small_stories_is_sound_and_leads_to_an_end() {
    for story in stories::small() {
        let found = search(&story, MOST, true);
        assert!(!found.cut_short, "{}: more worlds than {MOST}", story.name);
        if let Some(violation) = found.violations.iter().find(|found| !story.known.contains(&found.what)) {
            panic!("{}: {}\n{}", story.name, violation.what, violation.trace.join("\n"));
        }
        for known in story.known {
            let is_found = found.violations.iter().any(|violation| violation.what == *known);
            assert!(
                is_found,
                "{}: {known} is mended: take it from the story and from docs/model.md",
                story.name
            );
        }
    }
}

#[test]
fn every_seeded_bug_is_found() {
    let stories = seeds::all();
    assert_eq!(stories.len(), 19, "a seed names a story that there is not");
    for story in stories {
        let found = search(&story, MOST, false);
        let is_found = found.violations.iter().any(|violation| !story.known.contains(&violation.what));
        assert!(is_found, "{:?} is not found in {}", story.seed, story.name);
    }
}
