//! Tests all inputs that fuzzing has kept with the functions that they were kept for, on any toolchain.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is the library of the fuzzer's package too")]
mod fuzz;

use std::path::Path;

#[test]
fn what_others_write_is_read_or_refused() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, read) in fuzz::TARGETS {
        let files =
            std::fs::read_dir(root.join(name)).unwrap_or_else(|error| panic!("corpus of {name}: {error}"));
        let mut seen = 0;
        for file in files {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| read(&bytes));
            assert!(outcome.is_ok(), "{} was kept since it did harm, and does so again", path.display());
            seen += 1;
        }
        assert!(seen > 0, "nothing is kept for {name}");
    }
}

#[test]
fn every_function_is_a_target_of_the_fuzzer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for (name, _) in fuzz::TARGETS {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}: name it in fuzz/Cargo.toml"
        );
        assert!(root.join(format!("fuzz_targets/{name}.rs")).exists(), "{name} has no program");
    }
    let programs = std::fs::read_dir(root.join("fuzz_targets")).unwrap().count();
    assert_eq!(
        programs,
        fuzz::TARGETS.len(),
        "a program whose function is not listed is never run on its corpus"
    );
}
