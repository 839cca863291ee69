//! Chooses the rules for a file by its path.
//!
//! A base image has ten thousand files that contain words like `password=`: programs, translations, documentation.
//! Names are evidence only in files where people write secrets, that is in configuration. A token that is recognised
//! by its form counts everywhere, except where packages keep examples and the keys of their own tests.

/// The rules for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// All rules, including names.
    Configuration,
    /// Tokens recognised by their form, and managed values.
    Forms,
    /// Like [`Treatment::Forms`], for files of packages. Programs in packages contain the private keys of their own
    /// self-tests, so a private key is reported only in a text file.
    Package,
    /// Managed values only. For documentation, and for tests of packages.
    Examples,
}

/// Folders of packages, whose files the authors of the image did not write.
const PACKAGES: [&str; 14] = [
    "/site-packages/",
    "/dist-packages/",
    "/node_modules/",
    "/vendor/bundle/",
    "/gems/",
    "/.cargo/registry/",
    "/go/pkg/mod/",
    "/usr/local/go/",
    "/.m2/",
    "/usr/share/",
    "/usr/lib/",
    "/usr/include/",
    "/usr/local/lib/",
    "/var/lib/dpkg/",
];

/// Folders with examples, inside the folders of packages.
const EXAMPLES: [&str; 11] = [
    "/test/",
    "/tests/",
    "/testing/",
    "/testdata/",
    "/test_data/",
    "/spec/",
    "/fixtures/",
    "/example/",
    "/examples/",
    "/docs/",
    "/doc/",
];

/// Keys that a package creates at its installation, and that nobody trusts.
const EVERYBODYS: [&str; 1] = ["etc/ssl/private/ssl-cert-snakeoil.key"];

/// Files in which programs and people keep credentials.
const CONFIGURATIONS: [&str; 42] = [
    ".env",
    ".envrc",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".my.cnf",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pypirc",
    "pip.conf",
    ".git-credentials",
    ".gitconfig",
    ".dockercfg",
    ".s3cfg",
    ".boto",
    ".bowerrc",
    ".htaccess",
    ".terraformrc",
    "credentials",
    "credentials.json",
    "credentials.yml",
    "credentials.yaml",
    "credentials.toml",
    "credentials.ini",
    "wp-config.php",
    "settings.xml",
    "nuget.config",
    "auth.json",
    "rclone.conf",
    "kubeconfig",
    "environment",
    "master.key",
    "terraform.tfstate",
    ".bash_history",
    ".ash_history",
    ".sh_history",
    ".zsh_history",
    ".psql_history",
    ".mysql_history",
    ".python_history",
    ".rediscli_history",
];

/// Beginnings of the names of settings files. They count only for files with an ending of [`FORMATS`].
const SETTINGS: [&str; 12] = [
    "config",
    "settings",
    "secret",
    "credential",
    "application",
    "appsettings",
    "database",
    "values",
    "compose",
    "docker-compose",
    "production",
    "local",
];
const FORMATS: [&str; 9] =
    [".yml", ".yaml", ".json", ".toml", ".ini", ".cfg", ".conf", ".properties", ".tfvars"];

/// Endings of the names of template files.
const PATTERNS: [&str; 6] = ["example", "sample", "template", "dist", "tpl", "defaults"];

/// Returns the rules for the file at this path, which does not begin with a slash.
pub(super) fn treatment(path: &str) -> Treatment {
    let path = format!("/{path}");
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let (folder, name) = (format!("{folder}/"), name.to_ascii_lowercase());
    let package = PACKAGES.iter().any(|packages| folder.contains(packages));
    if package {
        let documentation = ["/usr/share/doc/", "/usr/share/man/", "/usr/share/info/"];
        let examples = EXAMPLES.iter().any(|examples| folder.contains(examples))
            || documentation.iter().any(|place| folder.starts_with(place))
            || folder.ends_with(".dist-info/");
        return if examples { Treatment::Examples } else { Treatment::Package };
    }
    if EVERYBODYS.contains(&&path[1..]) {
        return Treatment::Examples;
    }
    if is_configuration(&folder, &name) { Treatment::Configuration } else { Treatment::Forms }
}

fn is_configuration(folder: &str, name: &str) -> bool {
    if name.rsplit(['.', '-', '_']).any(|part| PATTERNS.contains(&part)) {
        return false;
    }
    let in_folder =
        [("/.git/", "config"), ("/.docker/", "config.json"), ("/.aws/", "config"), ("/.kube/", "config")];
    let setting = FORMATS.iter().find_map(|format| name.strip_suffix(format));
    CONFIGURATIONS.contains(&name)
        || name.starts_with(".env.")
        || name.strip_suffix(".env").is_some()
        || in_folder.iter().any(|(end, known)| folder.ends_with(end) && name == *known)
        || setting.is_some_and(|stem| SETTINGS.iter().any(|word| stem.starts_with(word)))
        || name.ends_with(".tfvars")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_which_rules_apply() {
        use Treatment::{Configuration, Examples, Forms, Package};
        for (paths, expected) in [
            (
                ".env app/.env app/.env.production srv/db.env root/.netrc home/app/.aws/credentials app/.git/config \
                 app/config/settings.yml usr/src/app/.env etc/environment app/Secrets.toml",
                Configuration,
            ),
            ("app/.env.example app/config.template.yml app/main.py app/tests/key.pem app/docs/id_rsa", Forms),
            ("usr/lib/python3/dist-packages/x/config.json app/node_modules/x/.env usr/share/x.conf", Package),
            (
                "usr/share/doc/x/key.pem usr/lib/python3.11/test/keycert.pem app/node_modules/x/test/key.pem \
                 usr/local/lib/python3.11/site-packages/x.dist-info/METADATA \
                 etc/ssl/private/ssl-cert-snakeoil.key",
                Examples,
            ),
        ] {
            for path in paths.split(' ') {
                assert_eq!(treatment(path), expected, "{path}");
            }
        }
    }
}
