//! Texts that look like secrets to a search for words, and are not secret.

use super::corpus::{Random, env, run};
use super::image::Step;

type Form = (&'static str, Vec<Step>, Vec<String>);

pub(crate) fn forms(random: &mut Random) -> Vec<Form> {
    let mut forms = variables(random);
    forms.extend(commands());
    forms.extend(elsewhere(random));
    forms
}

fn clean(name: &'static str, steps: Vec<Step>) -> Form {
    (name, steps, Vec::new())
}

fn variables(random: &mut Random) -> Vec<Form> {
    let mut variables = vec![clean("nothing", vec![])];
    for (name, value) in [
        ("DB_PASSWORD_FILE", "/run/secrets/db_password"),
        ("POSTGRES_PASSWORD", ""),
        ("TOKEN_URL", "https://id.example/oauth/token"),
        ("OAUTH_TOKEN_ENDPOINT", "https://id.example/token"),
        ("SECRET_NAME", "prod/app/db"),
        ("SECRETS_DIR", "/run/secrets"),
        ("SECRET_KEY", "/run/secrets/key"),
        ("AWS_SECRET_ARN", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app-AbCdEf"),
        ("DB_PASSWORD", "${DB_PASSWORD}"),
        ("API_TOKEN", "changeme"),
        ("JWT_SECRET", "<your secret here>"),
        ("STRIPE_SECRET_KEY", "your-stripe-key-here"),
        ("NEXT_PUBLIC_STRIPE_KEY", "pk_live_51HxYzABCDefGhIjKlMnOpQr"),
        (
            "SSH_PUBLIC_KEY",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0kz4c8m0xX0Wb1xv0l1v0b3f6nq2m5p8r1t4w7z0c3 a@b",
        ),
        ("NGINX_GPGKEY", "573BFD6B3D8FBC641079A6ABABF5BD827BD9BF62"),
        ("RABBITMQ_PGP_KEY_ID", "0x0A9AF2115F4687BD29803A206B73A36E6026DFCA"),
        ("GPG_KEYS", "B42F6819007F00F88E364FD4036A9C25BF357DD4 1198C0117593497A5EC5C199286AF1F9897469DC"),
        ("CACHE_KEY", "deps-v3-2024-11-01-linux-amd64"),
        ("SORT_KEY", "created_at"),
        ("REDIS_KEY_PREFIX", "app:sessions:"),
        ("KEYCLOAK_REALM", "app"),
        ("KEYBOARD_LAYOUT", "de"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MAX_TOKENS", "4096"),
        ("TOKEN_TTL_SECONDS", "86400"),
        ("ACCESS_TOKEN_EXPIRES_IN", "15m"),
        ("PASSWORD_MIN_LENGTH", "12"),
        ("PASSWORD_HASHER_ALGORITHM", "argon2id"),
        ("REQUIRE_PASSWORD", "true"),
        ("ALLOW_EMPTY_PASSWORD", "yes"),
        ("POSTGRES_HOST_AUTH_METHOD", "scram-sha-256"),
        ("SECRET_MANAGER_PROVIDER", "aws"),
        ("VAULT_TOKEN_PATH", "/var/run/secrets/vault/token"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/secrets/gcp.json"),
        ("TLS_PRIVATE_KEY", "/etc/tls/tls.key"),
        ("TRUSTSTORE_PASSWORD", "changeit"),
        ("DATABASE_URL", "postgres://app@db:5432/app"),
        ("REDIS_URL", "redis://cache:6379/0"),
        ("AMQP_URL", "amqp://app:${MQ_PASSWORD}@mq:5672/"),
        ("SITE_KEY", "6LeIxAcTAAAAAJcZVRqyHh71UMIEGNQ_MXjiZKhI"),
        ("KUBERNETES_TOKEN", "$(cat /var/run/secrets/token)"),
        ("BYPASS_CACHE", "1"),
        ("COMPASS_HEADING", "north"),
        ("AUTHOR", "Jane Doe <[email protected]>"),
        ("OPENSSL_SHA256", "e15dda82fe2fe8139dc2ac21a36d4ca01d5313c75f99f46c4e8a27709b7294bf"),
    ] {
        variables.push(clean(name, vec![env(name, value)]));
    }
    let digest = random.hex(64);
    let commit = random.hex(40);
    variables.extend([
        clean("git-commit", vec![Step::Arg("GIT_COMMIT", commit.clone(), false), run("make")]),
        clean(
            "checksum",
            vec![env("APP_CHECKSUM", format!("sha256:{digest}")), env("JAVA_VERSION", "21.0.5")],
        ),
        clean("build-id", vec![env("BUILD_ID", random.alphanumeric(32)), env("IMAGE_DIGEST", digest)]),
        clean("arg-declared", vec![Step::Arg("NPM_TOKEN", String::new(), false), run("npm ci")]),
        clean("revision", vec![Step::Label("org.opencontainers.image.revision", commit)]),
        clean("uuid", vec![env("TENANT_ID", "7c9e6679-7425-40de-944b-e07fc1f90ae7")]),
    ]);
    variables
}

fn commands() -> Vec<Form> {
    [
        ("secret-mount", "NPM_TOKEN=$(cat /run/secrets/npm_token) npm ci"),
        ("secret-mount-quoted", "export TOKEN=\"$(cat /run/secrets/token)\" && make"),
        ("reference", "curl -H \"Authorization: Bearer ${TOKEN}\" https://api.example/x"),
        ("reference-url", "git clone https://x-access-token:${GITHUB_TOKEN}@github.com/a/b"),
        ("reference-user", "curl -u \"$USER:$PASSWORD\" https://x.example"),
        ("apt-key", "curl -fsSL https://deb.nodesource.com/gpgkey/nodesource-repo.gpg.key | gpg --dearmor -o /etc/apt/keyrings/nodesource.gpg"),
        ("apt-key-adv", "apt-key adv --keyserver hkp://keyserver.ubuntu.com:80 --recv-keys 9DC858229FC7DD38854AE2D88D81803C0EBFCD88"),
        ("gpg-verify", "key='B42F6819007F00F88E364FD4036A9C25BF357DD4'; gpg --batch --keyserver keys.openpgp.org --recv-keys \"$key\""),
        ("ssh-keyscan", "mkdir -p ~/.ssh && ssh-keyscan github.com >> ~/.ssh/known_hosts"),
        ("ssh-keygen", "ssh-keygen -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key"),
        ("password-lock", "passwd -l root && usermod --lock root"),
        ("adduser", "adduser --disabled-password --gecos '' app"),
        ("useradd", "useradd -m -s /bin/bash --no-log-init app"),
        ("pip-keyring", "pip install keyring tokenizers python-jose[cryptography] passlib"),
        ("apk-keys", "wget -q -O /etc/apk/keys/sgerrand.rsa.pub https://alpine-pkgs.sgerrand.com/sgerrand.rsa.pub"),
        ("password-file", "psql --no-password -f /init.sql && ./run --password-file /run/secrets/pw"),
        ("password-stdin", "cat /run/secrets/pw | docker login -u ci --password-stdin registry.example"),
        ("test-of-variable", "if [ \"$DB_PASSWORD\" = \"\" ]; then echo 'DB_PASSWORD is not set'; exit 1; fi"),
        ("prompt", "echo 'Enter the password: ' && read -s PASSWORD"),
        ("prose", "echo 'Your token: see the documentation of the service'"),
        ("grep", "grep -q 'password=' /etc/app.conf || exit 1"),
        ("sed-reference", "sed -i \"s/password=.*/password=$PASSWORD/\" /etc/app.conf"),
        ("rm-key", "rm -f /etc/ssh/ssh_host_*_key && rm -rf /root/.gnupg /tmp/secrets"),
        ("rails-dummy", "SECRET_KEY_BASE_DUMMY=1 ./bin/rails assets:precompile"),
        ("rails-placeholder", "SECRET_KEY_BASE=placeholder ./bin/rails assets:precompile"),
        ("npm-integrity", "echo 'integrity sha512-2Xy7L1yR3yqg3l1jXw1sYc7tqUoA6ppQ9mS4b6wW5l1nS0n1w0aT6f4tYx3o2qk9m7Zq0x8mV5y2c1bE4d6fGg=='"),
        ("sha256sum", "echo '9cf9427bee9e2242e3877dd0f6b641c1853ca461f39d6503ce260a59c80bf0d9  x.tgz' | sha256sum -c -"),
        ("sri", "echo 'sha256-47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU='"),
        ("monkey", "make monkey-test turkey=1 donkey=2"),
        ("key-value", "./configure --key-type=ed25519 --with-keyutils --enable-token-cache"),
        ("empty-passphrase", "gpg --batch --passphrase '' --quick-gen-key app"),
        ("openssl-self-signed", "openssl req -x509 -newkey rsa:2048 -nodes -keyout /etc/tls/tls.key -out /etc/tls/tls.crt -subj /CN=localhost"),
        ("certificates", "update-ca-certificates && keytool -importcert -noprompt -trustcacerts -storepass changeit -file /ca.crt"),
        ("user-id", "groupadd -g 1000 app && useradd -u 1000:1000 app"),
        ("curl-no-user", "curl -fsSL https://get.example/install.sh | sh -s -- --version 1.2.3"),
        ("docker-run-u", "install -o app -g app -d /data && chown app:app /data"),
        ("jq", "jq -r '.token' /tmp/answer.json > /dev/null"),
        ("echo-config", "echo 'tokenizer: sentencepiece' >> config.yml && echo 'key: name' >> config.yml"),
        ("private-key-grep", "! grep -r -- '-----BEGIN RSA PRIVATE KEY-----' /app"),
        ("postgres-trust", "echo \"host all all all $POSTGRES_HOST_AUTH_METHOD\" >> pg_hba.conf"),
    ]
    .map(|(name, command)| clean(name, vec![run(command)]))
    .into()
}

fn elsewhere(random: &mut Random) -> Vec<Form> {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    vec![
        clean("label-text", vec![Step::Label("description", "Rotates secrets, tokens and keys".into())]),
        clean(
            "label-docs",
            vec![Step::Label("com.example.token-docs", "https://docs.example/tokens".into())],
        ),
        clean("label-compose", vec![Step::Label("com.docker.compose.config-hash", random.hex(64))]),
        clean(
            "label-source",
            vec![Step::Label("org.opencontainers.image.source", "https://github.com/a/key-server".into())],
        ),
        clean(
            "label-secret-name",
            vec![Step::Label("com.example.secret", "set by the deployment, see the runbook".into())],
        ),
        clean("cmd-file", vec![Step::Cmd(list(&["app", "--password-file", "/run/secrets/pw"]))]),
        clean(
            "cmd-reference",
            vec![Step::Cmd(list(&["sh", "-c", "exec redis-server --requirepass \"$REDIS_PASSWORD\""]))],
        ),
        clean("cmd-keycloak", vec![Step::Cmd(list(&["start", "--https-key-store-type=jks", "--optimized"]))]),
        clean("entrypoint", vec![Step::Entrypoint(list(&["docker-entrypoint.sh", "--token-auth"]))]),
        clean("healthcheck", vec![Step::Healthcheck("curl -fs http://localhost:8080/health?probe=1".into())]),
        clean(
            "healthcheck-secret",
            vec![Step::Healthcheck("mysqladmin ping -p$(cat /run/secrets/root)".into())],
        ),
        clean("onbuild", vec![Step::OnBuild("COPY . /app".into()), Step::OnBuild("ARG NPM_TOKEN".into())]),
    ]
}
