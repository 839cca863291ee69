//! Finds assignments in commands and other texts: `NAME=value`, `--name value`, `"name": "value"`, `name: value`,
//! `PASSWORD 'value'`, `-u user:password`, headers and URLs.
//!
//! It does not parse shell syntax: a text may be shell in JSON in a here-document. It only recognises names and what
//! follows them.

/// A name and its literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair<'a> {
    pub name: &'a str,
    pub value: &'a str,
    /// True if the pair may be prose, since sentences also contain `name: value`. Then the value counts only if it does
    /// not look like prose.
    pub may_be_prose: bool,
}

/// Returns every name that is followed by a literal.
pub(crate) fn pairs(text: &str) -> Vec<Pair<'_>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| is_name(**byte)).count();
        if length > 1 && length <= 100 {
            found.extend(pair(text, at, at + length));
        }
        at += length.max(1);
    }
    found
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
}

fn pair(text: &str, start: usize, end: usize) -> Option<Pair<'_>> {
    let (raw, before, after) = (&text[start..end], &text[..start], &text[end..]);
    let name = raw.trim_matches(['-', '.']);
    if before.ends_with('$') {
        return None;
    }
    let of = |value| Some(Pair { name, value, may_be_prose: false });
    if before.ends_with("${") {
        // A default: ${PASSWORD:-hunter2}.
        let default = after.strip_prefix(":-").or_else(|| after.strip_prefix(":="))?;
        return of(default.split('}').next()?);
    }
    if let (true, Some(content)) = (before.ends_with('<'), after.strip_prefix('>')) {
        // An element of XML.
        return of(content.split('<').next()?);
    }
    let unquoted = ["\\\"", "\"", "'"].iter().find_map(|quote| after.strip_prefix(quote));
    let quoted_name = unquoted.is_some() && before.ends_with(['"', '\'']);
    let rest = if quoted_name { unquoted.unwrap_or(after) } else { after };
    let trimmed = rest.trim_start_matches([' ', '\t']);
    let spaced = trimmed.len() < rest.len();
    if let (true, Some(value)) = (quoted_name, trimmed.strip_prefix(',')) {
        // define('NAME', 'value')
        let value = value.trim_start_matches(' ');
        return value.starts_with(['"', '\'', '\\']).then(|| literal(value)).flatten().and_then(of);
    }
    if let Some(value) = trimmed.strip_prefix('=') {
        if value.starts_with(['=', '~', '>']) {
            return None;
        }
        let value = if spaced { value.trim_start_matches(' ') } else { value };
        // `pwd` without a semicolon before it is the working directory.
        if name.eq_ignore_ascii_case("pwd") && before.ends_with(';') {
            return Some(Pair { name: "password", value: literal(value)?, may_be_prose: false });
        }
        return of(literal(value)?);
    }
    if let Some(value) = trimmed.strip_prefix(':') {
        if value.starts_with(['=', ':', '/']) {
            return None;
        }
        let literal = literal(value.trim_start_matches(' '))?;
        // openssl takes a password as `-passin pass:VALUE`.
        if name == "pass" && !value.starts_with(' ') {
            return Some(Pair { name: "password", value: literal, may_be_prose: false });
        }
        return (quoted_name || value.starts_with(' ')).then_some(Pair {
            name,
            value: literal,
            may_be_prose: !quoted_name,
        });
    }
    if !spaced {
        return None;
    }
    let option = raw.starts_with('-') && before.ends_with(|c: char| c.is_whitespace() || "\"'(".contains(c));
    // `aws configure set NAME VALUE`, `npm config set NAME VALUE`.
    let set = before.ends_with(':')
        || [" set", " setx", " config"].iter().any(|word| before.trim_end().ends_with(word));
    // A netrc: `login NAME password VALUE`.
    let netrc = name == "password" && before.contains("login ") && before.contains("machine ");
    // `ALTER USER … PASSWORD 'VALUE'`, `IDENTIFIED BY 'VALUE'`.
    let sql = name.eq_ignore_ascii_case("password") && trimmed.starts_with(['\'', '\\']);
    let identified =
        name.eq_ignore_ascii_case("by") && before.to_ascii_uppercase().trim_end().ends_with("IDENTIFIED");
    if identified && trimmed.starts_with(['\'', '"', '\\']) {
        return Some(Pair { name: "password", value: literal(trimmed)?, may_be_prose: false });
    }
    (option || set || netrc || sql)
        .then(|| literal(trimmed))
        .flatten()
        .filter(|value| !value.starts_with('-'))
        .map(|value| Pair { name, value, may_be_prose: false })
}

/// Returns the word or quoted text at the beginning of a text.
fn literal(text: &str) -> Option<&str> {
    for quote in ["\\\"", "\\'", "\"", "'"] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.split(quote).next();
        }
    }
    let end = text.find(|c: char| c.is_whitespace() || ";|<>(){}\"'`,\\&".contains(c));
    // `${…}` and `$(…)` must stay recognisable as references.
    match end {
        Some(end) if text[..end].ends_with('$') => Some(&text[..=end]),
        Some(end) => Some(&text[..end]),
        None => Some(text),
    }
}

/// Returns the passwords in URLs: `scheme://user:password@host`, `user:password@tcp(host)`, and a token alone before
/// the `@`.
pub(crate) fn userinfo(text: &str) -> Vec<(&str, bool)> {
    let go =
        ["@tcp(", "@unix("].iter().flat_map(|network| text.match_indices(network)).filter_map(|(at, _)| {
            let before = text[..at].rsplit(|c: char| c.is_whitespace() || "\"'=".contains(c)).next()?;
            before.split_once(':').map(|(_, password)| (password, true))
        });
    let found = text.match_indices("://").filter_map(|(at, separator)| {
        text[..at].bytes().last().filter(u8::is_ascii_alphanumeric)?;
        let rest = &text[at + separator.len()..];
        let end = rest.find(|c: char| c.is_whitespace() || "/?#\"'<>\\`|".contains(c)).unwrap_or(rest.len());
        let userinfo = &rest[..rest[..end].rfind('@')?];
        match userinfo.split_once(':') {
            Some((_, password)) => Some((password, true)),
            None => Some((userinfo, false)),
        }
    });
    found.chain(go).collect()
}

/// Returns the credentials in command-line arguments whose name (such as `-u`) does not suggest a secret: `curl -u
/// user:password`, `sshpass -p password`, `docker login -p password`, `mysql -ppassword`, `redis-cli -a password`,
/// `echo user:password | chpasswd`, and others.
pub(crate) fn credentials(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for command in text.split([';', '\n']).flat_map(|part| part.split("&&")) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let has = |name: &str| words.iter().any(|word| word.rsplit(['/', '"', '\'']).next() == Some(name));
        let follows = |option: &str| {
            let pairs = words.windows(2).filter(move |pair| pair[0] == option);
            pairs.map(|pair| pair[1].trim_matches(['"', '\''])).collect::<Vec<_>>()
        };
        if has("curl") || has("wget") || has("http") {
            let users = follows("-u").into_iter().chain(follows("--user"));
            found.extend(users.filter_map(|user| user.split_once(':')).map(|(_, password)| password));
        }
        if has("http") || has("https") {
            let users = follows("-a").into_iter().chain(follows("--auth"));
            found.extend(users.filter_map(|user| user.split_once(':')).map(|(_, password)| password));
        }
        if has("lftp") {
            found.extend(follows("-u").into_iter().filter_map(|user| user.split_once(',')).map(|(_, p)| p));
        }
        if has("smbclient") || has("rpcclient") {
            found.extend(follows("-U").into_iter().filter_map(|user| user.split_once('%')).map(|(_, p)| p));
        }
        let option = |letter: char| {
            words.iter().any(|w| w.starts_with('-') && !w.starts_with("--") && w.contains(letter))
        };
        if has("htpasswd") && option('b') {
            found.extend(words.last().map(|word| word.trim_matches(['"', '\''])));
        }
        if has("rabbitmqctl") {
            let of = ["add_user", "change_password"];
            found.extend(words.windows(3).filter(|words| of.contains(&words[0])).map(|words| words[2]));
        }
        if has("poetry") {
            let basic = words.windows(3).filter(|words| words[0].starts_with("http-basic."));
            found.extend(basic.map(|words| words[2]));
        }
        if has("influx") {
            found.extend(follows("-p"));
        }
        let login =
            has("login") && (has("docker") || has("podman") || has("helm") || has("oras") || has("az"));
        if has("sshpass") || login {
            found.extend(follows("-p"));
        }
        if has("redis-cli") {
            found.extend(follows("-a"));
        }
        if has("mysql") || has("mysqladmin") || has("mysqldump") || has("mariadb") {
            found.extend(
                words.iter().filter_map(|word| word.strip_prefix("-p")).map(|p| p.trim_matches(['"', '\''])),
            );
        }
        if has("bundle") && has("config") {
            let users =
                words.iter().filter(|word| !word.contains('/') && !word.starts_with(['-', '"', '\'']));
            found.extend(users.filter_map(|user| user.split_once(':')).map(|(_, password)| password));
        }
        if has("chpasswd") {
            let echoed = words.iter().take_while(|word| **word != "|").filter_map(|word| {
                let (_, password) = word.trim_matches(['"', '\'']).split_once(':')?;
                Some(password.trim_end_matches("\\n"))
            });
            found.extend(echoed);
        }
    }
    found
}

/// Returns the credentials after `Authorization:`.
pub(crate) fn authorizations(text: &str) -> Vec<&str> {
    let lower = text.to_ascii_lowercase();
    let found = lower.match_indices("authorization").filter_map(|(at, word)| {
        let rest = text[at + word.len()..].trim_start_matches(['"', '\'', '\\', ' ']);
        let rest = rest.strip_prefix([':', '='])?.trim_start_matches(['"', '\'', '\\', ' ']);
        authorization(rest)
    });
    found.collect()
}

/// Returns the credential after its scheme: `Bearer …`, `Basic …`.
pub(crate) fn authorization(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(' ')?;
    let known = ["bearer", "basic", "token", "apikey"].contains(&scheme.to_ascii_lowercase().as_str());
    known.then(|| literal(rest)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_seen_in_every_notation() {
        for (text, name, value) in [
            ("export TOKEN=abc && make", "TOKEN", "abc"),
            ("make --db-password=abc", "db-password", "abc"),
            ("make --password abc", "password", "abc"),
            ("echo '{\"password\": \"a b\"}'", "password", "a b"),
            ("echo {\\\"password\\\":\\\"abc\\\"}", "password", "abc"),
            ("printf 'password: abc1'", "password", "abc1"),
            ("psql -c \"ALTER ROLE a PASSWORD 'abc'\"", "PASSWORD", "abc"),
            ("CREATE USER a IDENTIFIED BY 'abc'", "password", "abc"),
            ("aws configure set aws_secret_access_key abc", "aws_secret_access_key", "abc"),
            ("npm config set //r/:_authToken abc", "_authToken", "abc"),
            ("echo //r/:_authToken=abc", "_authToken", "abc"),
            ("machine a login b password abc", "password", "abc"),
            ("openssl rsa -passin pass:abc", "password", "abc"),
            (": ${PASSWORD:-abc}", "PASSWORD", "abc"),
            ("TOKEN=\"${X}\"", "TOKEN", "${X}"),
            ("TOKEN=$(cat x)", "TOKEN", "$("),
        ] {
            let found = pairs(text);
            assert!(found.iter().any(|p| p.name == name && p.value == value), "{text}: {found:?}");
        }
    }

    #[test]
    fn comparisons_and_references_assign_nothing() {
        for text in ["[ \"$TOKEN\" = \"abc\" ]", "echo $TOKEN", "a == b", "http://TOKEN"] {
            let found = pairs(text);
            assert!(!found.iter().any(|p| p.name == "TOKEN"), "{text}: {found:?}");
        }
    }

    #[test]
    fn addresses_show_their_passwords() {
        assert_eq!(userinfo("postgres://u:p@h/db https://tok@h x://h/@y"), [("p", true), ("tok", false)]);
    }
}
