//! Tests of the files of layers: what is found in them, what is not found, and what hostile archives can do.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyturn::audit::layers::{self, Archive, LayersError, Limits};
use keyturn::audit::managed::{ManagedValues, Matcher};
use keyturn::secret_value::SecretValue;
use serde_json::{Value, json};

use super::archive::{Layout, Packed, classic, config, oci, packed, tar};

const TOKEN: &str = "ghp_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6";
const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj
MzEfYyjiWA4R4/M2bS1GB4t7NXp98C3SC6dVMvDuictGeurT8jNbvJZHtCSuYEvu
-----END PRIVATE KEY-----
";
/// A generated value, and a value that a person chose.
const MANAGED: &str = "q7Zr2-mK9_xW4tB8vN1cL5sD3fG6hJ0p";
const CHOSEN: &str = "Winter!Garden#91&more";

fn scanned(archive: &[u8]) -> Archive {
    layers::scan(archive, None, Limits::default()).unwrap()
}

fn image<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    classic(&[tar(files)], &config(1, &[]))
}

/// Returns the findings as `path rule name layers`.
fn found(archive: &Archive) -> Vec<String> {
    let one = |hit: &layers::FileHit| {
        let name = hit.hit.name.as_deref().unwrap_or("-");
        format!("{} {} {name} {:?}", hit.path, hit.hit.rule.id(), hit.layers)
    };
    archive.hits.iter().map(one).collect()
}

fn matcher() -> Matcher {
    let value = |name: &str, value: &str| (name.to_owned(), SecretValue::new(value.to_owned()));
    Matcher::new(&ManagedValues::new(&[value("/app/KEY", MANAGED), value("/app/PASSWORD", CHOSEN)], &[5; 32]))
        .unwrap()
}

#[test]
fn a_file_that_a_later_layer_deletes_is_found_in_every_layout_and_compression() {
    let lower = tar([("app/.env", format!("DB_PASSWORD=hunter2-prod\nGITHUB={TOKEN}\n").as_bytes())]);
    let upper = tar([("app/.wh..env", b"".as_slice()), ("app/main.py", b"import os\n")]);
    for how in [Packed::Plain, Packed::Gzip, Packed::Zstd] {
        let layers = [packed(&lower, how), packed(&upper, how)];
        for archive in [classic(&layers, &config(2, &[])), oci(&layers, &config(2, &[]))] {
            let scanned = scanned(&archive);
            let expected =
                ["app/.env github-token - [2]", "app/.env secret-name DB_PASSWORD [2]"].map(str::to_owned);
            assert_eq!(found(&scanned), expected, "{how:?}");
            assert_eq!(scanned.names, ["team/app:1"]);
            assert_eq!((scanned.looked.layers, scanned.looked.files), (2, 3), "{how:?}");
            assert_eq!(scanned.looked.problems, [] as [String; 0], "{how:?}");
        }
    }
}

#[test]
fn the_path_decides_which_rules_apply() {
    let env = b"DB_PASSWORD=hunter2-prod\n".as_slice();
    let (token, key) = (format!("x = '{TOKEN}'"), KEY);
    let archive = image([
        ("srv/db.env", env),
        ("app/main.py", env),
        ("app/.env.example", env),
        ("usr/lib/node_modules/x/.env", env),
        ("usr/lib/node_modules/x/index.js", token.as_bytes()),
        ("usr/lib/node_modules/x/test/index.js", token.as_bytes()),
        ("home/app/.ssh/id_rsa", key.as_bytes()),
        ("usr/lib/python3.11/test/keycert.pem", key.as_bytes()),
        ("etc/ssl/private/ssl-cert-snakeoil.key", key.as_bytes()),
    ]);
    let scanned = scanned(&archive);
    let expected = [
        "srv/db.env secret-name DB_PASSWORD [2]",
        "usr/lib/node_modules/x/index.js github-token - [2]",
        "home/app/.ssh/id_rsa private-key - [2]",
    ];
    assert_eq!(found(&scanned), expected.map(str::to_owned));
    assert_eq!((scanned.looked.files, scanned.looked.examples), (6, 3));
}

#[test]
fn programs_are_looked_into_and_self_tests_of_libraries_are_not_keys() {
    let program = |middle: &str| [b"\x7fELF\0\0\0\xff\xfe".as_slice(), middle.as_bytes(), b"\0\xff"].concat();
    let around =
        program("-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----\0no key at all here, nor there");
    let archive = image([
        ("app/server", program(TOKEN).as_slice()),
        ("app/other", program(KEY).as_slice()),
        ("usr/lib/libtls.so", program(KEY).as_slice()),
        ("usr/lib/libtoken.so", program(TOKEN).as_slice()),
        ("app/around", around.as_slice()),
    ]);
    let expected = [
        "app/server github-token - [2]",
        "app/other private-key - [2]",
        "usr/lib/libtoken.so github-token - [2]",
    ];
    assert_eq!(found(&scanned(&archive)), expected.map(str::to_owned));
}

#[test]
fn a_token_is_found_once_wherever_the_windows_end() {
    let window = layers::content::WINDOW;
    for at in [0, 1, window - 60, window - 20, window - 1, window, 2 * window - 16 * 1024, 3 * window + 7] {
        let mut content = vec![b'\n'; at];
        content.extend_from_slice(TOKEN.as_bytes());
        content.extend(vec![b'\n'; window]);
        let archive = image([("app/log", content.as_slice())]);
        assert_eq!(found(&scanned(&archive)), ["app/log github-token - [2]"], "at {at}");
    }
}

#[test]
fn managed_values_are_found_everywhere_and_in_every_form() {
    let matcher = matcher();
    let filler = "fn main() { println!(\"a line of a program, as long as they are\"); }\n".repeat(2000);
    for (written, parameter) in [
        (MANAGED.to_owned(), "/app/KEY"),
        (hex::encode(MANAGED), "/app/KEY"),
        (STANDARD.encode(format!("a:{MANAGED}")), "/app/KEY"),
        (STANDARD.encode(format!("ab:{MANAGED}\n")), "/app/KEY"),
        (format!("\"{CHOSEN}\""), "/app/PASSWORD"),
        (STANDARD.encode(CHOSEN), "/app/PASSWORD"),
        ("Winter%21Garden%2391%26more".to_owned(), "/app/PASSWORD"),
    ] {
        for path in ["usr/share/doc/x/README", "app/data.bin"] {
            let content = format!("{filler}x={written}\n{filler}");
            let archive = image([(path, content.as_bytes())]);
            let scanned = layers::scan(archive.as_slice(), Some(&matcher), Limits::default()).unwrap();
            assert_eq!(found(&scanned), [format!("{path} managed-value - [2]")], "{written}");
            assert_eq!(scanned.hits[0].hit.parameter.as_deref(), Some(parameter));
        }
    }
    let flood: String = (0..100).map(|n| TOKEN.replace("aB", &format!("{n:02}")) + "\n").collect();
    let content = flood + MANAGED;
    let archive = image([("app/data.bin", content.as_bytes())]);
    let scanned = layers::scan(archive.as_slice(), Some(&matcher), Limits::default()).unwrap();
    assert_eq!(scanned.hits[0].hit.parameter.as_deref(), Some("/app/KEY"), "a flood hides it");
    assert_eq!(scanned.looked.cut, 1);

    let clean = image([("app/data.bin", filler.as_bytes())]);
    let scanned = layers::scan(clean.as_slice(), Some(&matcher), Limits::default()).unwrap();
    assert_eq!(found(&scanned), [] as [String; 0]);
}

#[test]
fn a_clean_python_image_has_no_finding() {
    let requests =
        "https://user:password@host/ token='abc' password = getpass() SECRET_KEY = os.environ['K']\n";
    let archive = image([
        ("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n".as_slice()),
        ("etc/environment", b"PATH=/usr/bin\n"),
        ("usr/local/lib/python3.11/site-packages/requests/auth.py", requests.as_bytes()),
        ("usr/local/lib/python3.11/site-packages/x-1.dist-info/METADATA", TOKEN.as_bytes()),
        ("usr/local/lib/python3.11/test/certdata/keycert.pem", KEY.as_bytes()),
        ("app/main.py", requests.as_bytes()),
        ("app/config.yml", b"database:\n  password: ${DB_PASSWORD}\n  token_file: /run/secrets/token\n"),
        ("app/.env.example", b"DB_PASSWORD=changeme\n"),
        ("app/package-lock.json", br#"{"integrity": "sha512-9Jb0ZyHTnUmOWLfxWYTZXUmMMFCSFmHmgkhmwYQ="}"#),
    ]);
    assert_eq!(found(&scanned(&archive)), [] as [String; 0]);
}

#[test]
fn hostile_paths_are_shown_without_what_a_terminal_acts_upon_and_lead_nowhere() {
    let long = format!("app/{}/.env", "d".repeat(3000));
    let archive = image([
        ("../../etc/cron.d/x\u{1b}[2J\n", TOKEN.as_bytes()),
        ("/./../app/.env", b"DB_PASSWORD=hunter2-prod"),
        (long.as_str(), b"DB_PASSWORD=hunter2-prod"),
    ]);
    let paths: Vec<String> = scanned(&archive).hits.into_iter().map(|hit| hit.path).collect();
    assert_eq!(paths[..2], ["../../etc/cron.d/x?[2J?", "../app/.env"]);
    assert_eq!(paths[2].chars().count(), 401);
}

#[test]
fn a_path_that_is_itself_a_secret_is_not_shown() {
    let path = format!("app/cache/{TOKEN}/x");
    let scanned = scanned(&image([(path.as_str(), b"".as_slice())]));
    assert_eq!(found(&scanned), ["(a path with a secret in it) github-token - [2]"]);
}

#[test]
fn links_are_not_followed_and_a_layer_that_is_a_link_is_the_other_one() {
    let layer = tar([("app/.env", b"DB_PASSWORD=hunter2-prod".as_slice())]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut link = |name: &str, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, target).unwrap();
    };
    link("01/layer.tar", "../00/layer.tar");
    link("02/layer.tar", "../../../../../../etc/passwd");
    link("03/layer.tar", "../03/layer.tar");
    let mut archive = archive.into_inner().unwrap();
    // The two blocks of zeros at its end are removed.
    archive.truncate(archive.len() - 1024);
    let manifest =
        |layers: &[&str]| format!(r#"[{{"Config":"c.json","Layers":{}}}]"#, serde_json::json!(layers));
    let of = |layers: &[&str]| {
        let config = config(layers.len(), &[]).to_string();
        let manifest = manifest(layers);
        let rest = tar([
            ("00/layer.tar", layer.as_slice()),
            ("c.json", config.as_bytes()),
            ("manifest.json", manifest.as_bytes()),
        ]);
        scanned(&[archive.clone(), rest].concat())
    };
    let same = of(&["00/layer.tar", "01/layer.tar"]);
    assert_eq!(found(&same), ["app/.env secret-name DB_PASSWORD [2]"]);
    assert_eq!(same.looked.problems, [] as [String; 0]);
    for lost in ["02/layer.tar", "03/layer.tar"] {
        assert_eq!(of(&["00/layer.tar", lost]).looked.problems.len(), 1, "{lost}");
    }
}

#[test]
fn what_is_cut_off_or_damaged_is_never_called_clean() {
    let layer = tar([("app/a", vec![b'a'; 5000].as_slice()), ("app/.env", b"X=1")]);
    let whole = classic(std::slice::from_ref(&layer), &config(1, &[]));
    for end in [0, 100, 512, 3000, whole.len() / 2, whole.len() - 1500] {
        assert!(layers::scan(&whole[..end], None, Limits::default()).is_err(), "{end}");
    }
    let mut damaged = layer.clone();
    damaged[512 + 5120 + 10] ^= 1;
    for bad in [damaged, packed(&layer, Packed::Gzip)[..60].to_vec(), b"no tar at all".to_vec()] {
        let problems = scanned(&classic(&[layer.clone(), bad], &config(2, &[]))).looked.problems;
        assert!(problems.len() == 1 && problems[0].starts_with("layer 4"), "{problems:?}");
    }
    let missing = r#"[{"Config":"a","Layers":[]}]"#;
    let missing =
        layers::scan(tar([("manifest.json", missing.as_bytes())]).as_slice(), None, Limits::default());
    assert!(matches!(missing, Err(LayersError::Missing(_))));
}

/// Returns a configuration for a platform.
fn config_for(os: &str, architecture: &str, env: &[&str]) -> Value {
    let mut config = config(1, env);
    (config["os"], config["architecture"]) = (json!(os), json!(architecture));
    config
}

/// Returns the images of an archive as `name platform findings`.
fn images(archive: &[u8]) -> Vec<String> {
    let images = layers::scan_images(archive, None, Limits::default()).unwrap();
    let one = |image: &Archive| {
        assert_eq!(image.looked.problems, [] as [String; 0]);
        format!("{:?} {} {:?}", image.names, image.platform.as_deref().unwrap_or("-"), found(image))
    };
    images.iter().map(one).collect()
}

const IN_LAYER_2: &str = "[\"app/.env secret-name DB_PASSWORD [2]\"]";

#[test]
fn every_platform_of_an_archive_is_looked_at_and_statements_are_not() {
    let secret = tar([("app/.env", b"DB_PASSWORD=hunter2-prod".as_slice())]);
    let plain = tar([("app/main.py", b"import os".as_slice())]);
    let mut layout = Layout::default();
    let mut amd64 = layout.image(std::slice::from_ref(&plain), &config_for("linux", "amd64", &[]));
    amd64["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let mut arm64 = layout.image(&[secret], &config_for("linux", "arm64", &[]));
    arm64["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
    // BuildKit writes a statement in the form of an image, whose layer is the statement in JSON.
    let in_toto = || vec![json!({"_type": "https://in-toto.io/Statement/v0.1"}).to_string().into_bytes()];
    let mut by_descriptor = layout.image(&in_toto(), &json!({"config": {}}));
    by_descriptor["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let by_configuration = layout.image(&in_toto(), &config_for("unknown", "unknown", &[]));
    let mut empty = layout.image(&[], &config_for("unknown", "unknown", &["A=b"]));
    empty["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let signature = layout.image(&in_toto(), &json!({"config": {}, "a": "signature"}));
    let mut index = layout.json(&json!({
        "manifests": [amd64, by_descriptor, by_configuration, empty, signature, arm64],
    }));
    index["annotations"] = json!({"io.containerd.image.name": "team/app:1"});
    // An index inside an index.
    let outer = layout.json(&json!({"manifests": [index]}));
    let archive = layout.archive(&[outer]);
    let expected = [
        r#"["team/app:1"] linux/amd64 []"#.to_owned(),
        format!(r#"["team/app:1"] linux/arm64/v8 {IN_LAYER_2}"#),
    ];
    assert_eq!(images(&archive), expected);
    assert_eq!(found(&scanned(&archive)).len(), 1, "as one image it has them all");
}

#[test]
fn an_image_that_calls_its_platform_unknown_is_looked_at() {
    let secret = tar([("app/.env", b"DB_PASSWORD=hunter2-prod".as_slice())]);
    let mut layout = Layout::default();
    let mut image = layout.image(&[secret], &config_for("unknown", "unknown", &[]));
    image["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let archive = layout.archive(&[image]);
    assert_eq!(images(&archive), [format!("[] unknown/unknown {IN_LAYER_2}")]);
}

#[test]
fn platforms_that_share_a_layer_have_its_secret_each() {
    let secret = tar([("app/.env", b"DB_PASSWORD=hunter2-prod".as_slice())]);
    let mut layout = Layout::default();
    let platforms = ["amd64", "arm64"]
        .map(|name| layout.image(std::slice::from_ref(&secret), &config_for("linux", name, &[])));
    let archive = layout.archive(&platforms);
    let expected = ["amd64", "arm64"].map(|name| format!("[] linux/{name} {IN_LAYER_2}"));
    assert_eq!(images(&archive), expected);
    assert_eq!(found(&scanned(&archive)), ["app/.env secret-name DB_PASSWORD [2]"], "once as one image");
}

#[test]
fn an_image_in_both_lists_of_an_archive_is_one_and_one_without_its_configuration_is_a_gap() {
    let layer = tar([("app/main.py", b"import os".as_slice())]);
    let mut layout = Layout::default();
    let config = config_for("linux", "amd64", &[]);
    let image = layout.image(std::slice::from_ref(&layer), &config);
    let path = |blob: &Value| format!("blobs/{}", blob["digest"].as_str().unwrap().replace(':', "/"));
    let (config, layer) = (path(&layout.json(&config)), path(&layout.blob(layer)));
    let ours = json!({"Config": config, "RepoTags": ["team/app:1"], "Layers": [layer]});
    let archive = layout.archive(&[image]);
    // A tar may follow another tar that has no end blocks.
    let with = |manifest: Value| {
        let manifest = manifest.to_string();
        let mut whole = tar([("manifest.json", manifest.as_bytes())]);
        whole.truncate(whole.len() - 1024);
        [whole, archive.clone()].concat()
    };
    assert_eq!(images(&with(json!([ours]))), [r#"["team/app:1"] linux/amd64 []"#]);
    let missing = json!({"Config": "blobs/sha256/0a", "Layers": []});
    let images =
        layers::scan_images(with(json!([ours, missing])).as_slice(), None, Limits::default()).unwrap();
    let problems: Vec<&String> = images.iter().flat_map(|image| &image.looked.problems).collect();
    assert_eq!((images.len(), problems.len()), (1, 1), "{problems:?}");
    assert!(problems[0].contains("blobs/sha256/0a"), "{problems:?}");
}

#[test]
fn indexes_in_a_circle_come_to_an_end() {
    let path = format!("blobs/sha256/{}", "a".repeat(64));
    let circle = serde_json::json!({"manifests": vec![serde_json::json!({"digest": format!("sha256:{}", "a".repeat(64))}); 1000]});
    let circle = circle.to_string();
    let archive = tar([("index.json", circle.as_bytes()), (path.as_str(), circle.as_bytes())]);
    assert!(matches!(
        layers::scan(archive.as_slice(), None, Limits::default()),
        Err(LayersError::NoManifest)
    ));
}

#[test]
fn a_bomb_is_unpacked_no_further_than_the_limit_and_that_is_said() {
    let bomb = packed(&tar([("app/zeros", vec![0; 8 << 20].as_slice()), ("app/.env", b"X=1")]), Packed::Gzip);
    assert!(bomb.len() < 100_000);
    let archive = classic(&[bomb], &config(1, &[]));
    let limits = Limits { total: 1 << 20, ..Limits::default() };
    let cut = layers::scan(archive.as_slice(), None, limits).unwrap();
    assert_eq!((cut.looked.bytes, cut.looked.problems.len()), (1 << 20, 1), "{:?}", cut.looked);
    let limits = Limits { file: 1 << 20, ..Limits::default() };
    let cut = layers::scan(archive.as_slice(), None, limits).unwrap();
    assert_eq!((cut.looked.cut, cut.looked.problems.len()), (1, 0), "{:?}", cut.looked);
}

#[test]
fn more_findings_than_are_kept_are_counted() {
    let files: Vec<(String, String)> =
        (0..20).map(|n| (format!("app/{n}"), TOKEN.replace("aB", &format!("{n:02}")))).collect();
    let archive = image(files.iter().map(|(path, content)| (path.as_str(), content.as_bytes())));
    let limits = Limits { findings: 5, ..Limits::default() };
    let cut = layers::scan(archive.as_slice(), None, limits).unwrap();
    assert_eq!((cut.hits.len(), cut.looked.left_out), (5, 15));
}

/// An archive that never ends.
struct Endless<'a>(&'a [u8]);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            buffer.fill(b'a');
            return Ok(buffer.len());
        }
        self.0.read(buffer)
    }
}

#[test]
fn when_the_time_is_over_what_was_found_is_told_and_that_it_is_not_all() {
    let mut endless = tar::Header::new_gnu();
    endless.set_size(1 << 50);
    endless.set_path("app/endless").unwrap();
    endless.set_cksum();
    let mut layer = tar([("app/.env", b"DB_PASSWORD=hunter2-prod".as_slice())]);
    layer.truncate(1024);
    layer.extend_from_slice(endless.as_bytes());
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 51);
    header.set_path("00/layer.tar").unwrap();
    header.set_cksum();
    let begun = [header.as_bytes().as_slice(), &layer].concat();
    let deadline = Some(Instant::now() + Duration::from_secs(1));
    let limits = Limits { deadline, file: u64::MAX, total: u64::MAX, ..Limits::default() };
    let cut = layers::scan(Endless(&begun), None, limits).unwrap();
    assert_eq!(found(&cut), ["app/.env secret-name DB_PASSWORD []"]);
    assert!(cut.looked.problems[0].contains("time"), "{:?}", cut.looked);
}
