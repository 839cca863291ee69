//! Tests that every command of keyturn reports a bug with its place in the code, and without the data that it worked
//! on.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

/// The standard library panics if it cannot write to standard output, with a message that quotes the text.
#[test]
fn a_panic_of_any_command_says_where_it_was_and_withholds_its_text() {
    for arguments in [["version"].as_slice(), &["crds"], &["host-script"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut keyturn = Command::new(env!("CARGO_BIN_EXE_keyturn"));
        let output = keyturn.args(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}: {said}");
        assert!(said.starts_with("keyturn: ") && said.contains("bug"), "{arguments:?}: {said}");
        assert!(said.contains("withheld"), "{arguments:?}: {said}");
        assert!(!said.contains("stdout") && !said.contains("No space left"), "{arguments:?}: {said}");
    }
}
