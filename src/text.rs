//! Texts that others wrote, made safe for messages: texts from a host, its containers or its docker.

use std::fmt;

use crate::api::text::is_visible;

/// Longest text of a host, in characters; longer ones are cut.
const LONGEST: usize = 500;
/// Longest name of a container or an image, in characters.
const LONGEST_NAME: usize = 200;

/// A text from a host: one line of limited length, with visible characters only.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostText(String);

impl HostText {
    /// Creates one from a sentence or a path.
    pub fn new(said: &str) -> Self {
        Self::of(said, LONGEST)
    }

    /// Creates one from the name of a container or an image.
    pub fn name(said: &str) -> Self {
        Self::of(said, LONGEST_NAME)
    }

    fn of(said: &str, longest: usize) -> Self {
        let visible = || said.trim().chars().filter(|c| is_visible(*c));
        match visible().nth(longest) {
            None => Self(visible().collect()),
            Some(_) => Self(visible().take(longest - 1).chain(['…']).collect()),
        }
    }

    /// Returns the text, which has one line of at most 500 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<HostText> for String {
    fn from(text: HostText) -> Self {
        text.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_is_one_bounded_line_of_visible_characters() {
        let said = " in\u{1b}[31m web\r\n\u{202e}txt\u{200b}.exe\u{7f}\u{9b}\u{2028}é漢 \n";
        assert_eq!(HostText::new(said).as_str(), "in[31m webtxt.exeé漢");
        assert_eq!(HostText::new(&"ä".repeat(500)).as_str(), "ä".repeat(500));
        assert_eq!(HostText::new(&"ä".repeat(501)).as_str(), format!("{}…", "ä".repeat(499)));
        assert_eq!(HostText::name(&"a".repeat(999)).as_str().chars().count(), 200);
    }
}
