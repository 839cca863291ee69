//! Text from others, made safe for Markdown.

use crate::api::text::is_visible;

/// Quotes text from others (a user agent, a role's session, a reason) as inline code, in which nothing is markup, a
/// link or a mention. The JSON report contains the text unchanged.
pub(super) fn quoted(text: &str) -> String {
    // A table interprets this character as a column separator even within code.
    let text = one_line(text).replace('|', "\u{2502}");
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_run(text) + 1);
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_visible(c) { c } else { ' ' }).collect()
}

/// Returns the length of the longest run of backticks.
pub(super) fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_others_wrote_is_quoted_whole() {
        for (text, quoted_as) in [
            ("", ""),
            (" \n ", ""),
            ("plain", "`plain`"),
            ("a\u{1b}[2Jb\nc", "`a [2Jb c`"),
            ("a\u{202e}b\u{200b}c", "`a b c`"),
            ("`", "`` ` ``"),
            ("a``b`", "``` a``b` ```"),
            ("a | b \\| c", "`a \u{2502} b \\\u{2502} c`"),
        ] {
            assert_eq!(quoted(text), quoted_as);
        }
    }
}
