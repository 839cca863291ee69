//! Parses the command of a layer as its builder recorded it.
//!
//! The classic builder writes `/bin/sh -c #(nop)  ENV A=b` and `|1 TOKEN=x /bin/sh -c make`; BuildKit writes `ENV A=b`,
//! `RUN |1 TOKEN=x /bin/sh -c make # buildkit`; others write the Dockerfile's line. None of them writes quotes, so the
//! end of one value and the beginning of the next name is a guess: a word that looks like `NAME=` begins a name.

use keyturn_secret_value::SecretValue;

use super::bounded::MOST_TEXTS;

/// Returns the texts of a command: values with the name of their variable or label, and other texts without a name. For
/// a command with more than `MOST_TEXTS` texts it returns a few more than this maximum, so that the caller notices.
pub(crate) fn texts(command: &str) -> Vec<(Option<String>, SecretValue)> {
    let command = command.trim();
    let command = command.strip_suffix("# buildkit").map_or(command, str::trim_end);
    let command = command.split_once("#(nop)").map_or(command, |(_, instruction)| instruction.trim_start());
    let (instruction, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    match instruction.to_ascii_uppercase().as_str() {
        "ENV" | "LABEL" | "ARG" => assignments(rest.trim_start()),
        "RUN" => run(rest.trim_start()),
        // A base image gives this instruction to the images that are built on it.
        "ONBUILD" => texts(rest),
        _ => run(command),
    }
}

/// Parses `|2 A=1 B=2 /bin/sh -c …`: the arguments of the build, then the command.
fn run(command: &str) -> Vec<(Option<String>, SecretValue)> {
    let arguments = command.strip_prefix('|').and_then(|rest| rest.split_once(' '));
    let Some((count, rest)) = arguments.and_then(|(n, rest)| Some((n.parse::<usize>().ok()?, rest))) else {
        return vec![(None, SecretValue::new(command.to_owned()))];
    };
    let end = end_of_arguments(rest, count);
    let mut texts = assignments(&rest[..end]);
    texts.push((None, SecretValue::new(rest[end..].trim_start().to_owned())));
    texts
}

/// Returns the start of the shell command: the first word after `count` names that is a program's path or a known
/// shell.
fn end_of_arguments(text: &str, count: usize) -> usize {
    let mut names = 0;
    for (at, word) in words(text) {
        if name_of(word).is_some() && names < count {
            names += 1;
        } else if names >= count
            && (word.starts_with('/') || ["sh", "bash", "ash", "cmd", "powershell", "pwsh"].contains(&word))
        {
            return at;
        }
    }
    text.len()
}

/// Parses `A=b c D="e f"`: a value ends at the next word that looks like a name with `=`. `KEY value`, the old form of
/// ENV, is one assignment.
fn assignments(text: &str) -> Vec<(Option<String>, SecretValue)> {
    let starts = words(text).filter_map(|(at, word)| Some((at, name_of(word)?)));
    let starts: Vec<(usize, &str)> = starts.take(MOST_TEXTS + 1).collect();
    if starts.first().is_none_or(|(at, _)| *at > 0) {
        return match text.split_once(char::is_whitespace) {
            Some((name, value)) => vec![assignment(name, value)],
            // `ARG TOKEN` only declares a name, unless somebody has put the token itself there.
            None => vec![(None, SecretValue::new(text.to_owned()))],
        };
    }
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let pairs = starts.iter().zip(ends);
    pairs.map(|((at, name), end)| assignment(name, &text[at + name.len() + 1..end])).collect()
}

fn assignment(name: &str, value: &str) -> (Option<String>, SecretValue) {
    (Some(unquoted(name).to_owned()), SecretValue::new(unquoted(value.trim()).to_owned()))
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// Returns the name that a word assigns to, if it is an assignment.
fn name_of(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let bare = unquoted(name);
    // `-Dname=…` is an option inside a value.
    let sound = !bare.is_empty()
        && !bare.starts_with('-')
        && bare.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c));
    sound.then_some(name)
}

/// Returns the words with their positions.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let base = text.as_ptr() as usize;
    text.split_whitespace().map(move |word| (word.as_ptr() as usize - base, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Vec<(String, String)> {
        let texts = texts(command).into_iter();
        texts.map(|(name, value)| (name.unwrap_or_default(), value.expose().to_owned())).collect()
    }

    #[test]
    fn every_builders_form_is_read() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (command, expected) in [
            ("/bin/sh -c #(nop)  ENV A=b", vec![pair("A", "b")]),
            ("ENV A=b c D=e", vec![pair("A", "b c"), pair("D", "e")]),
            ("ENV A=\"b c\"", vec![pair("A", "b c")]),
            ("ENV A=-Xmx1g -Db.c=d E=f", vec![pair("A", "-Xmx1g -Db.c=d"), pair("E", "f")]),
            ("ENV LEGACY some value", vec![pair("LEGACY", "some value")]),
            ("ARG TOKEN", vec![pair("", "TOKEN")]),
            ("/bin/sh -c #(nop)  ARG TOKEN=x", vec![pair("TOKEN", "x")]),
            ("LABEL com.example/a.b=c", vec![pair("com.example/a.b", "c")]),
            ("|1 TOKEN=x /bin/sh -c make", vec![pair("TOKEN", "x"), pair("", "/bin/sh -c make")]),
            (
                "RUN |2 A=1 2 B=/x /bin/bash -o pipefail -c make # buildkit",
                vec![pair("A", "1 2"), pair("B", "/x"), pair("", "/bin/bash -o pipefail -c make")],
            ),
            ("RUN /bin/sh -c make # buildkit", vec![pair("", "/bin/sh -c make")]),
            ("CMD [\"python3\"]", vec![pair("", "CMD [\"python3\"]")]),
            ("ONBUILD ENV A=b", vec![pair("A", "b")]),
        ] {
            assert_eq!(of(command), expected, "{command}");
        }
    }
}
