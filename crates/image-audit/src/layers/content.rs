//! Finds secrets in the content of a file, through a window: only a configuration of limited size is in memory as a
//! whole.

use std::io::{self, Read};
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use keyturn_secret_value::SecretValue;

use super::places::Treatment;
use crate::formats;
use crate::managed::Matcher;
use crate::rule::Rule;
use crate::rules::{self, Hit};

/// Bytes that are searched at once.
pub const WINDOW: usize = 256 << 10;
/// Bytes that a window shares with the next one, so that no secret is split: longer than a token, and longer than any
/// form of a parameter of 4 KiB.
const OVERLAP: usize = 16 << 10;
/// Number of bytes before a mark that are searched, for the number of a bot or for `-----BEGIN ENCRYPTED`.
const BEFORE: usize = 64;
/// Number of bytes from the beginning of a mark that are searched.
const BEHIND: usize = 8 << 10;
/// Largest configuration, in bytes, that is searched by names. A few KiB are usual.
const LARGEST_CONFIGURATION: usize = WINDOW;
/// Maximum number of marks that are searched in one file. A few hundred are usual; a file with more was made to take
/// time.
const MOST_MARKS: usize = 200_000;
/// Maximum number of findings in one file: after the first tokens of a long list, more are not useful.
const MOST_HITS: usize = 64;

/// Searches files, one after the other, with one buffer.
pub struct Contents<'a> {
    marks: AhoCorasick,
    matcher: Option<&'a Matcher>,
    buffer: zeroize::Zeroizing<Vec<u8>>,
}

impl<'a> Contents<'a> {
    /// Allocates the buffer, one [`WINDOW`]. Managed values are searched for if there is a `matcher`.
    pub fn new(matcher: Option<&'a Matcher>) -> Self {
        // Some marks end with another mark.
        let marks = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(formats::marks());
        let marks = marks.expect("a hundred short words are no automaton too large");
        Self { marks, matcher, buffer: zeroize::Zeroizing::new(vec![0; WINDOW]) }
    }

    /// Returns every secret in the first `most` bytes of a file, and true if these were searched completely.
    pub fn scan(
        &mut self,
        treatment: Treatment,
        content: &mut impl Read,
        most: u64,
    ) -> io::Result<(Vec<Hit>, bool)> {
        let mut content = content.take(most);
        let (mut hits, mut marks) = (Vec::new(), MOST_MARKS);
        let (mut filled, mut known, mut first, mut program) = (0, 0, true, false);
        loop {
            let read = fill(&mut content, &mut self.buffer[filled..])?;
            filled += read;
            let whole = filled < WINDOW;
            if first {
                program = self.buffer[..filled.min(8192)].contains(&0);
            }
            if first && whole && treatment == Treatment::Configuration && filled <= LARGEST_CONFIGURATION {
                hits = self.configuration(&self.buffer[..filled]);
            }
            let decided = if whole { filled } else { filled - OVERLAP };
            if treatment != Treatment::Examples {
                let keys = treatment != Treatment::Package || !program;
                self.tokens(known..decided, filled, keys, &mut hits, &mut marks);
            }
            if let Some(matcher) = self.matcher {
                add_managed_bytes(&mut hits, &self.buffer[..filled], matcher);
            }
            let enough = hits.len() >= MOST_HITS || marks == 0;
            if whole || enough {
                hits.truncate(MOST_HITS);
                return Ok((hits, !enough));
            }
            let from = decided - BEFORE;
            self.buffer.copy_within(from..filled, 0);
            (filled, known, first) = (filled - from, BEFORE, false);
        }
    }

    /// Returns the secrets in a path itself.
    pub fn path(&mut self, path: &str) -> Vec<Hit> {
        let length = path.len().min(WINDOW);
        self.buffer[..length].copy_from_slice(&path.as_bytes()[..length]);
        let (mut hits, mut marks) = (Vec::new(), MOST_MARKS);
        self.tokens(0..length, length, true, &mut hits, &mut marks);
        if let Some(matcher) = self.matcher {
            add_managed_bytes(&mut hits, &self.buffer[..length], matcher);
        }
        hits
    }

    /// Searches a text by all rules.
    fn configuration(&self, content: &[u8]) -> Vec<Hit> {
        let text = SecretValue::new(String::from_utf8_lossy(content).into_owned());
        let mut hits = rules::scan(None, &text);
        if let Some(matcher) = self.matcher {
            rules::add_managed(&mut hits, None, &text, matcher);
        }
        hits
    }

    /// Adds the secrets recognised by form whose mark begins in `range`; private keys only if `keys` is true.
    fn tokens(&self, range: Range<usize>, filled: usize, keys: bool, hits: &mut Vec<Hit>, marks: &mut usize) {
        let (mut next, mut until) = (range.start, range.start);
        while next < range.end && hits.len() < MOST_HITS && *marks > 0 {
            let Some(found) = self.marks.find(&self.buffer[next..filled]) else { return };
            let at = next + found.start();
            if at >= range.end {
                return;
            }
            next = at + 1;
            *marks -= 1;
            let (text, offset) = printable_around(&self.buffer[..filled], at, &mut until);
            let Some((rule, token)) = formats::at(found.pattern().as_usize(), text, offset) else { continue };
            if rule == Rule::PrivateKey && !(keys && is_key_material(token)) {
                continue;
            }
            // A longer mark may begin at the position of a shorter one.
            if !hits.iter().any(|hit| hit.value.expose().contains(token)) {
                let value = SecretValue::new(token.to_owned());
                hits.push(Hit { rule, name: None, value, parameter: None });
            }
        }
    }
}

fn add_managed_bytes(hits: &mut Vec<Hit>, bytes: &[u8], matcher: &Matcher) {
    for managed in matcher.find_in_file(bytes) {
        if hits.iter().all(|hit| hit.parameter.as_ref() != Some(&managed.name)) {
            hits.retain(|hit| !hit.value.expose().contains(managed.written.expose()));
            let (value, parameter) = (managed.written, Some(managed.name));
            // Managed values come first, so that many other hits cannot displace them.
            hits.insert(0, Hit { rule: Rule::ManagedValue, name: None, value, parameter });
        }
    }
}

fn fill(content: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Returns the ASCII text around a position, and the position in that text. Tokens consist of ASCII only, and program
/// files contain much ASCII text. `until` is the end of the last text that was searched.
fn printable_around<'a>(bytes: &'a [u8], at: usize, until: &mut usize) -> (&'a str, usize) {
    let printable = |byte: &u8| byte.is_ascii_graphic() || b" \t\r\n".contains(byte);
    let before = bytes[at.saturating_sub(BEFORE)..at].iter().rev().take_while(|byte| printable(byte)).count();
    let most = bytes.len().min(at + BEHIND);
    let from = (*until).max(at).min(most);
    *until = from + bytes[from..most].iter().take_while(|byte| printable(byte)).count();
    (std::str::from_utf8(&bytes[at - before..*until]).unwrap_or_default(), before)
}

/// True if a line of base64 follows the PEM header, so that this is a key and not a header inside a program.
fn is_key_material(body: &str) -> bool {
    let base64 = |line: &str| {
        line.len() >= 40 && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
    };
    // In JSON and in programs the ends of lines are escaped.
    let varied = |line: &str| crate::names::entropy(line) >= 3.5;
    body.split(['\n', '\r', ' ', '"', '\'', '\\'])
        .map(|line| line.strip_prefix(['n', 'r']).filter(|rest| rest.len() >= 40).unwrap_or(line))
        .take(12)
        .any(|line| base64(line) && varied(line))
}
