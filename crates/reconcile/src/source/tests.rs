use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use keyturn_api::source::fernet::FernetSpec;
use keyturn_api::source::random::{Base64Spec, HexSpec, PasswordSpec};

use super::template::{extract, render};
use super::*;

/// Bytes of a fixed sequence (xorshift): every run of a test gets the same.
struct Sequence(u64);

impl Random for Sequence {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError> {
        for byte in buffer {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = (self.0 >> 24) as u8;
        }
        Ok(())
    }
}

/// The same bytes over and over.
struct Cycle(&'static [u8], usize);

impl Random for Cycle {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError> {
        for byte in buffer {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(())
    }
}

struct Broken;

impl Random for Broken {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), RandomError> {
        Err(RandomError("no entropy".into()))
    }
}

fn hex(bytes: i32) -> GenerateSpec {
    GenerateSpec { hex: Some(HexSpec { bytes }), ..GenerateSpec::default() }
}

fn base64(bytes: i32) -> GenerateSpec {
    GenerateSpec { base64: Some(Base64Spec { bytes }), ..GenerateSpec::default() }
}

fn password(length: i32, symbols: Option<&str>) -> GenerateSpec {
    let symbols = symbols.map(str::to_owned);
    GenerateSpec { password: Some(PasswordSpec { length, symbols }), ..GenerateSpec::default() }
}

fn fernet(keep_previous: Option<i32>) -> GenerateSpec {
    GenerateSpec { fernet: Some(FernetSpec { keep_previous }), ..GenerateSpec::default() }
}

fn generate(
    spec: &GenerateSpec,
    previous: Option<&SecretValue>,
    random: &mut dyn Random,
) -> Result<SecretValue, GenerateError> {
    of(spec)?.draw(previous, random)
}

fn made(spec: &GenerateSpec, source: &mut dyn Random) -> String {
    generate(spec, None, source).unwrap().expose().to_owned()
}

#[test]
fn hex_and_base64_are_the_bytes_of_the_source_and_all_of_them() {
    let mut bytes = Cycle(&[0x00, 0x0f, 0xa5, 0xff], 0);
    assert_eq!(made(&hex(16), &mut bytes), "000fa5ff".repeat(4));
    assert_eq!(made(&base64(16), &mut bytes), "AA+l/wAPpf8AD6X/AA+l/w==");
    for bytes in [16, 17, 18, 24, 32, 1024] {
        let text = made(&hex(bytes), &mut Sequence(1));
        assert_eq!(::hex::decode(&text).unwrap().len(), usize::try_from(bytes).unwrap(), "{text}");
        let text = made(&base64(bytes), &mut Sequence(1));
        assert_eq!(STANDARD.decode(&text).unwrap().len(), usize::try_from(bytes).unwrap(), "{text}");
    }
}

#[test]
fn a_password_has_its_length_its_alphabet_and_one_of_every_kind() {
    let mut source = Sequence(2);
    for (length, symbols) in [(16, None), (16, Some("-")), (24, Some("-_.~")), (256, Some("!\"#$%&'()*+,"))] {
        for _ in 0..200 {
            let text = made(&password(length, symbols), &mut source);
            assert_eq!(text.len(), usize::try_from(length).unwrap());
            assert!(text.bytes().any(|c| c.is_ascii_lowercase()), "{text}");
            assert!(text.bytes().any(|c| c.is_ascii_uppercase()), "{text}");
            assert!(text.bytes().any(|c| c.is_ascii_digit()), "{text}");
            let allowed = symbols.unwrap_or("");
            assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || allowed.contains(c)), "{text}");
            assert!(symbols.is_none() || text.chars().any(|c| allowed.contains(c)), "{text}");
        }
    }
}

#[test]
fn every_character_of_a_password_is_as_likely_as_any_other() {
    // Each byte value exactly once. Of these 256 values 248 are used, four for each of the 62 characters, and eight
    // are discarded. A plain remainder of the division would give eight characters a fifth use.
    let all: Vec<u8> = (0..=255).collect();
    let mut source = Cycle(all.leak(), 0);
    let mut seen: BTreeMap<char, usize> = BTreeMap::new();
    for c in made(&password(248, None), &mut source).chars() {
        *seen.entry(c).or_default() += 1;
    }
    assert_eq!(seen.len(), 62);
    assert!(seen.values().all(|count| *count == 4), "{seen:?}");
}

#[test]
fn a_fernet_key_is_32_bytes_of_the_source_in_url_safe_base64() {
    let mut source = Cycle(&[0xfb, 0xff, 0xfe], 0);
    let key = made(&fernet(None), &mut source);
    assert_eq!(key, "-__--__--__--__--__--__--__--__--__--__--_8=");
    assert_eq!(URL_SAFE.decode(&key).unwrap().len(), 32);
}

#[test]
fn fernet_keeps_as_many_previous_keys_as_it_is_told_and_nothing_else() {
    let key = |n: u64| made(&fernet(None), &mut Sequence(n));
    let (new, a, b, c) = (key(9), key(10), key(11), key(12));
    let openssl = "+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/8=";
    for (kept, previous, expected) in [
        (None, format!("{a},{b}"), new.clone()),
        (Some(0), a.clone(), new.clone()),
        (Some(1), String::new(), new.clone()),
        (Some(1), a.clone(), format!("{new},{a}")),
        (Some(1), format!("{a}\n"), format!("{new},{a}")),
        (Some(1), format!("{a},{b}"), format!("{new},{a}")),
        (Some(2), format!("{a},{b},{c}"), format!("{new},{a},{b}")),
        (Some(9), format!(" {a} , {b}\r\n"), format!("{new},{a},{b}")),
        (Some(2), format!("changeme,{a},,{}", &b[1..]), format!("{new},{a}")),
        (Some(2), format!("{openssl},{a}"), format!("{new},{openssl},{a}")),
        (Some(2), "not a key at all, but 44 characters long    ".into(), new.clone()),
    ] {
        let spec = fernet(kept);
        let value = generate(&spec, Some(&SecretValue::new(previous.clone())), &mut Sequence(9)).unwrap();
        assert_eq!(value.expose(), expected, "{kept:?} of {previous:?}");
    }
    assert_eq!(generate(&fernet(Some(3)), None, &mut Sequence(9)).unwrap().expose(), new);
}

#[test]
fn only_fernet_that_keeps_keys_needs_the_previous_value() {
    let needing: Vec<bool> =
        [hex(16), base64(16), password(16, None), fernet(None), fernet(Some(0)), fernet(Some(1))]
            .iter()
            .map(keeps_previous)
            .collect();
    assert_eq!(needing, [false, false, false, false, false, true]);
}

#[test]
fn what_the_schema_refuses_is_refused_here_too_and_for_good() {
    let two = GenerateSpec { hex: hex(16).hex, ..fernet(None) };
    for (spec, expected) in [
        (GenerateSpec::default(), "names 0 sources"),
        (two, "names 2 sources"),
        (hex(15), "generate.hex.bytes is 15; it must be from 16 to 1024"),
        (base64(1025), "generate.base64.bytes is 1025"),
        (hex(-1), "generate.hex.bytes is -1"),
        (password(15, None), "generate.password.length is 15; it must be from 16 to 256"),
        (password(16, Some("aa")), "symbols"),
        (password(16, Some("--")), "symbols"),
        (password(16, Some("é")), "symbols"),
        (fernet(Some(10)), "generate.fernet.keepPrevious is 10; it must be from 0 to 9"),
    ] {
        let error = generate(&spec, None, &mut Sequence(1)).unwrap_err();
        assert!(error.to_string().contains(expected), "{spec:?}: {error}");
        assert!(error.is_permanent(), "{spec:?}: {error}");
    }
}

#[test]
fn a_source_that_fails_or_repeats_itself_makes_no_value() {
    for spec in [hex(32), base64(32), password(32, None), fernet(None)] {
        let error = generate(&spec, None, &mut Broken).unwrap_err();
        assert!(!error.is_permanent() && error.to_string().contains("no entropy"), "{error}");
    }
    for byte in [&[0_u8], &[255_u8]] {
        let error = generate(&password(32, None), None, &mut Cycle(byte, 0)).unwrap_err();
        assert!(matches!(error, GenerateError::NotRandom(_)), "{error}");
    }
}

#[test]
fn the_operating_system_gives_a_different_value_each_time() {
    let values: Vec<String> = (0..4).map(|_| made(&hex(32), &mut OperatingSystem)).collect();
    assert!(values.iter().all(|value| values.iter().filter(|other| *other == value).count() == 1));
}

#[test]
fn a_template_gets_the_value_in_every_place_and_gives_it_back() {
    for (template, value, published) in [
        (None, "s3cret", "s3cret"),
        (Some("{value}"), "s3cret", "s3cret"),
        (
            Some("postgres://app:{value}@db:5432/app?a={b}"),
            "s3cret",
            "postgres://app:s3cret@db:5432/app?a={b}",
        ),
        (Some("{value}:{value}"), "s3cret", "s3cret:s3cret"),
        (Some("a{value}b{value}c"), "{value}", "a{value}b{value}c"),
        (Some("key={value} "), "s3cret", "key=s3cret "),
        (Some("é{value}"), "ü", "éü"),
    ] {
        let text = render(template, &SecretValue::new(value.into()), None);
        assert_eq!(text.expose(), published);
        for end in ["", "\n", "\r\n"] {
            let stored = SecretValue::new(format!("{published}{end}"));
            let back = extract(template, &stored).map(|v| v.expose().to_owned());
            assert_eq!(back.as_deref(), Some(value), "{template:?} of {stored:?}{end:?}");
        }
    }
}

#[test]
fn a_text_that_does_not_fit_its_template_gives_no_value() {
    for (template, published) in [
        ("key={value}", "s3cret"),
        ("{value}@db", "s3cret@other"),
        ("{value}:{value}", "one:two"),
        ("{value}:{value}", "odd"),
        ("aé{value}", "aa"),
        ("{value}b", ""),
        ("no place", "no place"),
    ] {
        let found = extract(Some(template), &SecretValue::new(published.into()));
        assert!(found.is_none(), "{template} {published}");
    }
}
