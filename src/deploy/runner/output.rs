//! Passes the output of the user's scripts to the pod's log, which many people may read: line by line, without the
//! secrets in it. A line that cannot be searched for secrets is left out, and the log says why.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Progress;
use crate::api::text::is_visible;
use crate::audit::managed::Matcher;
use crate::audit::scrub::{KeyLines, scrubbed};
use crate::secret_value::SecretValue;

/// Longest line that is searched, in bytes.
const LONGEST_LINE: usize = 8 << 10;

/// The note that `host.sh` writes in place of output that it leaves out. It may follow the beginning of a line.
const GAP: [&str; 2] = ["[... ", " bytes of output are left out here; see "];

/// Passes on the output of scripts.
pub(super) struct Output<'a> {
    progress: &'a dyn Progress,
    matcher: Arc<Matcher>,
    state: Mutex<State>,
}

struct State {
    /// The end of the current, unfinished line; zeroed when it is dropped or passed on.
    line: zeroize::Zeroizing<Vec<u8>>,
    /// True if the line is too long, so that only its end is kept.
    too_long: bool,
    keys: KeyLines,
    /// Time left for searching lines.
    time_left: Duration,
    /// True once the log says that nothing more is shown.
    closed: bool,
}

impl<'a> Output<'a> {
    /// Creates an output. Searching all its lines may take at most `time` in total.
    pub(super) fn new(progress: &'a dyn Progress, matcher: Arc<Matcher>, time: Duration) -> Self {
        let state = State {
            line: zeroize::Zeroizing::new(Vec::with_capacity(LONGEST_LINE)),
            too_long: false,
            keys: KeyLines::default(),
            time_left: time,
            closed: false,
        };
        Self { progress, matcher, state: Mutex::new(state) }
    }

    /// Takes the next piece of output.
    pub(super) fn write(&self, data: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (piece, ends) = match piece.split_last() {
                Some((b'\n', piece)) => (piece, true),
                _ => (piece, false),
            };
            // A line that is too long is not shown, but it may end with a note of `host.sh`.
            let kept = &piece[piece.len().saturating_sub(LONGEST_LINE)..];
            let surplus = (state.line.len() + kept.len()).saturating_sub(LONGEST_LINE);
            state.too_long |= surplus > 0 || kept.len() < piece.len();
            state.line.drain(..surplus);
            state.line.extend_from_slice(kept);
            if ends {
                self.pass_on(&mut state);
            }
        }
    }

    /// Ends the output. The last line may lack its line break. If `is_whole` is false, it may also be cut off, even in
    /// the middle of a value.
    pub(super) fn end(&self, is_whole: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.line.is_empty() && is_whole {
            self.pass_on(&mut state);
        } else if !state.line.is_empty() {
            clear(&mut state);
            self.note("the beginning of a line that was cut off is not shown");
        }
        state.keys = KeyLines::default();
    }

    /// Writes a note of our own.
    pub(super) fn note(&self, what: &str) {
        self.progress.output(format!("[{what}]\n").as_bytes());
    }

    fn pass_on(&self, state: &mut State) {
        let line = text(&state.line);
        let gap = gap_at_the_end(&line);
        let too_long = state.too_long && gap.is_none();
        let line = gap.unwrap_or(line);
        clear(state);
        if state.closed {
            return;
        }
        if let Some(why) = self.matcher.unsearched() {
            state.closed = true;
            return self.note(&format!("the output of the scripts is not shown: {why}"));
        }
        if state.time_left.is_zero() {
            state.closed = true;
            return self
                .note("the rest of the output is not shown: there is no time left to search it for secrets");
        }
        if too_long {
            return self.note(&format!("a line of more than {LONGEST_LINE} bytes is not shown"));
        }
        let begun = Instant::now();
        let shown = if state.keys.is_of_one(line.expose()) {
            "[private-key]".to_owned()
        } else {
            scrubbed(&line, &self.matcher)
        };
        state.time_left = state.time_left.saturating_sub(begun.elapsed());
        self.progress.output(format!("{shown}\n").as_bytes());
    }
}

/// Returns a line in the form in which it can be searched and shown in a terminal.
fn text(line: &[u8]) -> SecretValue {
    let text = SecretValue::new(String::from_utf8_lossy(line).into_owned());
    let visible = text.expose().chars().filter(|c| *c == '\t' || is_visible(*c));
    SecretValue::new(visible.collect())
}

/// Returns the note with which `host.sh` reports output that it left out, without the beginning of a line before the
/// note.
fn gap_at_the_end(line: &SecretValue) -> Option<SecretValue> {
    let at = line.expose().find(GAP[1]).and_then(|at| line.expose()[..at].rfind(GAP[0]))?;
    Some(SecretValue::new(line.expose()[at..].to_owned()))
}

fn clear(state: &mut State) {
    zeroize::Zeroize::zeroize(&mut *state.line);
    state.line.clear();
    state.too_long = false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::managed::ManagedValues;
    use crate::deploy::report::Report;

    const VALUE: &str = "managed-9f2c77d01b";
    const TIME: Duration = Duration::from_secs(3600);

    #[derive(Default)]
    struct Shown(Mutex<Vec<u8>>);

    impl Progress for Shown {
        fn phase(&self, _: &Report) {}
        fn result(&self, _: &Report) {}
        fn output(&self, data: &[u8]) {
            self.0.lock().unwrap().extend_from_slice(data);
        }
    }

    fn shown_of(value: &str, time: Duration, use_it: impl FnOnce(&Output<'_>)) -> String {
        let values = [("/app/TOKEN".to_owned(), SecretValue::new(value.to_owned()))];
        let matcher = Matcher::new(&ManagedValues::new(&values, &[3; 32])).unwrap();
        let shown = Shown::default();
        use_it(&Output::new(&shown, Arc::new(matcher), time));
        String::from_utf8(shown.0.into_inner().unwrap()).unwrap()
    }

    fn shown(use_it: impl FnOnce(&Output<'_>)) -> String {
        shown_of(VALUE, TIME, use_it)
    }

    #[test]
    fn a_value_is_taken_out_however_its_line_arrives() {
        let line = format!("+ TOKEN={VALUE} ./app\nnext\n");
        for at in 0..line.len() {
            let shown = shown(|output| {
                output.write(&line.as_bytes()[..at]);
                output.write(&line.as_bytes()[at..]);
                output.end(true);
            });
            assert_eq!(shown, "+ TOKEN=[value:/app/TOKEN] ./app\nnext\n", "cut at {at}");
        }
    }

    #[test]
    fn characters_that_are_not_seen_hide_no_value() {
        let shown = shown(|output| output.write(b"managed-\x1b9f2c\x0077d01b\r\n"));
        assert_eq!(shown, "[value:/app/TOKEN]\n");
    }

    #[test]
    fn the_last_line_is_shown_unless_it_may_be_cut() {
        let begun = &VALUE.as_bytes()[..10];
        assert_eq!(shown(|output| (output.write(b"whole"), output.end(true)).1), "whole\n");
        let cut = shown(|output| {
            output.write(begun);
            output.end(false);
            output.write(b"next\n");
        });
        assert_eq!(cut, "[the beginning of a line that was cut off is not shown]\nnext\n");
    }

    #[test]
    fn the_beginning_of_a_line_before_a_gap_is_not_shown() {
        let gap = "[... 7000000 bytes of output are left out here; see /x/log on the host]\n";
        assert!(super::super::HOST_SCRIPT.contains(GAP[1]));
        for beginning in ["TOKEN=managed-9f2c".to_owned(), VALUE.repeat(2000)] {
            for size in [100, 100_000] {
                let shown = shown(|output| {
                    format!("{beginning}{gap}next\n")
                        .as_bytes()
                        .chunks(size)
                        .for_each(|piece| output.write(piece));
                });
                assert_eq!(
                    shown,
                    format!("{gap}next\n"),
                    "{} bytes before, {size} at a time",
                    beginning.len()
                );
            }
        }
    }

    #[test]
    fn a_line_too_long_to_be_looked_through_is_not_shown_and_the_next_is() {
        let shown = shown(|output| {
            for _ in 0..2000 {
                output.write(VALUE.as_bytes());
            }
            output.write(b"\nnext\n");
        });
        assert_eq!(shown, "[a line of more than 8192 bytes is not shown]\nnext\n");
    }

    #[test]
    fn when_the_time_is_over_nothing_more_is_shown_and_it_is_said_once() {
        let shown = shown_of(VALUE, Duration::ZERO, |output| output.write(b"a\nb\nc\n"));
        assert_eq!(
            shown,
            "[the rest of the output is not shown: there is no time left to search it for secrets]\n"
        );
    }

    #[test]
    fn nothing_is_shown_where_a_value_cannot_be_searched_for() {
        let shown = shown_of("hunter2", TIME, |output| output.write(b"password hunter2\nb\n"));
        assert_eq!(
            shown,
            "[the output of the scripts is not shown: a value of the host's secrets is too short to be searched for]\n"
        );
    }

    #[test]
    fn values_and_keys_of_several_lines_are_taken_out() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----\n";
        let shown = shown_of("first line of it\nsecond line of it\n", TIME, |output| {
            output.write(key.as_bytes());
            output.write(b"first line of it\nsecond line of it\nafter\n");
        });
        assert_eq!(
            shown,
            "[private-key]\n[private-key]\n[private-key]\n[value:/app/TOKEN]\n[value:/app/TOKEN]\nafter\n"
        );
    }
}
