//! Ways in which secrets get into images.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};

use super::corpus::{Random, env, run};
use super::image::Step;

/// The name of a form, the steps that build it, and the secrets in it.
pub(crate) type Form = (&'static str, Vec<Step>, Vec<String>);

/// Returns a form whose steps are made from a secret.
fn with(name: &'static str, secret: String, steps: impl Fn(&str) -> Vec<Step>) -> Form {
    (name, steps(&secret), vec![secret])
}

pub(crate) fn forms(random: &mut Random) -> Vec<Form> {
    let mut forms = formats(random);
    forms.extend(variables(random));
    forms.extend(commands(random));
    forms.extend(elsewhere(random));
    forms
}

/// Returns tokens that are recognised by their form, under names that do not indicate a secret.
fn formats(random: &mut Random) -> Vec<Form> {
    let upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let jwt = |random: &mut Random| {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signature = random.base64url(43);
        format!(
            "{}.{}.{signature}",
            part(r#"{"alg":"HS256","typ":"JWT"}"#),
            part(r#"{"sub":"1","name":"app"}"#)
        )
    };
    let body = |random: &mut Random| (0..6).map(|_| random.alphanumeric(64)).collect::<Vec<_>>().join("\n");
    let pem_body = body(random);
    let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{pem_body}\n-----END RSA PRIVATE KEY-----");
    let escaped_body = body(random).replace('\n', "\\n");
    let escaped =
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\\n{escaped_body}\\n-----END OPENSSH PRIVATE KEY-----");
    let encoded = STANDARD
        .encode(format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----", body(random)));
    let fernet =
        |random: &mut Random| URL_SAFE.encode(random.of("abcdefghijklmnopqrstuvwxyz0123456789!%&#", 32));
    let slack = format!("T{}/B{}/{}", random.of(upper, 9), random.of(upper, 9), random.alphanumeric(24));
    let jwt = jwt(random);
    vec![
        with("aws-id-env", format!("AKIA{}", random.of(upper, 16)), |s| vec![env("BACKUP_USER", s)]),
        with("aws-id-run", format!("AKIA{}", random.of(upper, 16)), |s| {
            vec![run(format!("aws configure set x {s} && aws s3 ls"))]
        }),
        with("github-arg", format!("ghp_{}", random.alphanumeric(36)), |s| {
            vec![Step::Arg("GH", s.into(), false), run("make")]
        }),
        with("github-clone", format!("ghs_{}", random.alphanumeric(36)), |s| {
            vec![run(format!("git clone https://x-access-token:{s}@github.com/a/b"))]
        }),
        with("github-fine", format!("github_pat_{}", random.alphanumeric(82)), |s| {
            vec![run(format!("git clone https://{s}@github.com/a/b"))]
        }),
        with("gitlab", format!("glpat-{}", random.base64url(20)), |s| {
            vec![run(format!("curl -H 'PRIVATE-TOKEN: {s}' https://git.example/api"))]
        }),
        with("slack", format!("xoxb-{}-{}", random.of("123456789", 12), random.alphanumeric(24)), |s| {
            vec![env("NOTIFY", s)]
        }),
        with("slack-webhook", slack, |s| {
            vec![env("ALERTS", format!("https://hooks.slack.com/services/{s}"))]
        }),
        with("stripe", format!("sk_live_{}", random.alphanumeric(24)), |s| vec![env("BILLING", s)]),
        with("cloudflare", format!("cfat_{}", random.alphanumeric(48)), |s| vec![env("CF", s)]),
        with("npm", format!("npm_{}", random.alphanumeric(36)), |s| {
            vec![run(format!("echo '//registry.npmjs.org/:_authToken={s}' > .npmrc && npm ci"))]
        }),
        with("pypi", format!("pypi-AgEIcHlwaS5vcmc{}", random.base64url(70)), |s| {
            vec![run(format!("twine upload -u __token__ -p {s} dist/*"))]
        }),
        with("jwt-env", jwt.clone(), |s| vec![env("SUPABASE", s)]),
        with("jwt-run", jwt, |s| {
            vec![run(format!("curl -H \"Authorization: Bearer {s}\" https://api.example/x"))]
        }),
        ("pem-env", vec![env("DEPLOY", pem)], vec![pem_body]),
        ("pem-echo", vec![run(format!("echo -e \"{escaped}\" > /root/.ssh/id_rsa"))], vec![escaped_body]),
        with("pem-base64", encoded, |s| vec![env("DEPLOY_B64", s)]),
        with("fernet-env", fernet(random), |s| vec![env("WEBHOOK", s)]),
        with("fernet-arg", fernet(random), |s| vec![Step::Arg("FERNET", s.into(), true), run("make")]),
        with("openai", format!("sk-proj-{}", random.base64url(60)), |s| vec![env("LLM", s)]),
        with("sendgrid", format!("SG.{}.{}", random.base64url(22), random.base64url(43)), |s| {
            vec![env("MAIL", s)]
        }),
        with("docker-hub", format!("dckr_pat_{}", random.base64url(27)), |s| {
            vec![run(format!("echo {s} | crane auth login index.docker.io -u a --stdin"))]
        }),
    ]
}

/// Returns ENV and ARG under names that indicate a secret.
fn variables(random: &mut Random) -> Vec<Form> {
    vec![
        with("password-hex", random.hex(48), |s| vec![env("DB_PASSWORD", s)]),
        with("password-word", "Winter-Garden-91".into(), |s| vec![env("POSTGRES_PASSWORD", s)]),
        with("password-plain", "trustno1please".into(), |s| vec![env("MYSQL_ROOT_PASSWORD", s)]),
        with("password-spaces", "correct horse battery staple".into(), |s| vec![env("APP_PASSPHRASE", s)]),
        with("password-digits", "8305172946".into(), |s| vec![env("REDIS_PASSWORD", s)]),
        with("password-slash", "/Hq8+zr2Fx/9c1".into(), |s| vec![env("ADMIN_PASSWORD", s)]),
        with("pgpassword", random.alphanumeric(20), |s| vec![env("PGPASSWORD", s)]),
        with("mysql-pwd", random.alphanumeric(14), |s| vec![env("MYSQL_PWD", s)]),
        with("camel", random.alphanumeric(18), |s| vec![env("dbPassword", s)]),
        with("dotted", random.alphanumeric(18), |s| vec![env("spring.datasource.password", s)]),
        with("runner-token", random.hex(64), |s| vec![env("RUNNER_TOKEN", s)]),
        with("django", "django-insecure-k3v$8w1p0x2q9z7r5t4y6u".into(), |s| {
            vec![env("DJANGO_SECRET_KEY", s)]
        }),
        with("rails", random.hex(128), |s| vec![env("SECRET_KEY_BASE", s)]),
        with("api-key", random.hex(32), |s| vec![env("MAILGUN_API_KEY", s)]),
        with("r2-secret", random.hex(64), |s| vec![env("R2_SECRET_ACCESS_KEY", s)]),
        with("r2-id", random.hex(32), |s| vec![env("R2_ACCESS_KEY_ID", s)]),
        with("aws-secret", random.alphanumeric(40), |s| vec![env("AWS_SECRET_ACCESS_KEY", s)]),
        with("bare-key", random.base64url(32), |s| vec![env("WEBHOOK_KEY", s)]),
        with("cookie", random.hex(40), |s| vec![env("RABBITMQ_ERLANG_COOKIE", s)]),
        with("credentials-json", random.alphanumeric(28), |s| {
            vec![env("SERVICE", format!("{{\"user\":\"a\",\"password\":\"{s}\"}}"))]
        }),
        with("database-url", random.alphanumeric(16), |s| {
            vec![env("DATABASE_URL", format!("postgres://app:{s}@db:5432/app"))]
        }),
        with("redis-url", random.alphanumeric(16), |s| {
            vec![env("CACHE", format!("redis://:{s}@cache:6379/0"))]
        }),
        with("jdbc", random.alphanumeric(16), |s| {
            vec![env("JDBC", format!("jdbc:postgresql://db/app?user=app&password={s}"))]
        }),
        with("dotnet", random.alphanumeric(16), |s| {
            vec![env("ConnectionStrings__Main", format!("Server=db;User Id=sa;Password={s};Encrypt=true"))]
        }),
        with("azure", STANDARD.encode(random.alphanumeric(64)), |s| {
            vec![env(
                "STORAGE",
                format!(
                    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={s};EndpointSuffix=core.windows.net"
                ),
            )]
        }),
        with("java-opts", random.alphanumeric(16), |s| {
            vec![env("JAVA_OPTS", format!("-Xmx1g -Djavax.net.ssl.keyStorePassword={s}"))]
        }),
        with("pip-index", random.alphanumeric(16), |s| {
            vec![env("PIP_INDEX_URL", format!("https://ci:{s}@pypi.example/simple"))]
        }),
        with("proxy", random.alphanumeric(12), |s| {
            vec![
                Step::Arg("HTTP_PROXY", format!("http://build:{s}@proxy:3128"), false),
                run("apt-get update"),
            ]
        }),
        with("arg-token", random.hex(40), |s| vec![Step::Arg("NPM_TOKEN", s.into(), false), run("npm ci")]),
        with("arg-default", random.hex(40), |s| vec![Step::Arg("SENTRY_AUTH_TOKEN", s.into(), true)]),
        with("arg-of-three", random.alphanumeric(20), |s| {
            vec![
                Step::Arg("VERSION", "1 2".into(), false),
                Step::Arg("DEPLOY_PASSWORD", s.into(), false),
                Step::Arg("COMMIT", "9f1c2ab".into(), false),
                run("make release"),
            ]
        }),
        with("env-unset-later", random.hex(40), |s| {
            vec![env("BUILD_TOKEN", s), run("make"), env("BUILD_TOKEN", "")]
        }),
        with("docker-auth", STANDARD.encode("ci:Wg7-Lm2-Qx9"), |s| {
            vec![env("DOCKER_AUTH_CONFIG", format!("{{\"auths\":{{\"r.example\":{{\"auth\":\"{s}\"}}}}}}"))]
        }),
        (
            "config-base64",
            vec![env("APP_CONFIG", STANDARD.encode("{\"db\":{\"password\":\"Lq4-Zm8-Tv2\"}}"))],
            vec!["Lq4-Zm8-Tv2".into()],
        ),
    ]
}

/// Returns secrets in commands that were run.
fn commands(random: &mut Random) -> Vec<Form> {
    let mut line = |name: &'static str, command: &'static str| {
        with(name, random.alphanumeric(18), |s| vec![run(command.replace("SECRET", s))])
    };
    vec![
        line("export", "export GITHUB_AUTH_TOKEN=SECRET && make deps"),
        line("export-quoted", "export DB_PASSWORD=\"SECRET\"; ./migrate"),
        line("prefix", "PGPASSWORD='SECRET' psql -h db -c 'select 1'"),
        line("option-equals", "./configure --admin-password=SECRET"),
        line("option-space", "dotnet nuget add source https://n.example --username ci --password SECRET"),
        line("curl-user", "curl -fsSL -u deploy:SECRET https://artifacts.example/x.tgz | tar xz"),
        line("curl-bearer", "curl -H \"Authorization: Bearer SECRET\" https://api.example/file"),
        line("curl-header", "curl -H 'X-Api-Key: SECRET' https://api.example/file"),
        line("curl-query", "curl -o x 'https://api.example/download?access_token=SECRET'"),
        line("curl-json", "curl -d '{\"client_secret\":\"SECRET\"}' https://id.example/oauth"),
        line("curl-json-escaped", "curl -d \"{\\\"password\\\":\\\"SECRET\\\"}\" https://id.example/login"),
        line("npmrc", "echo \"//npm.example/:_authToken=SECRET\" > ~/.npmrc && npm ci && rm ~/.npmrc"),
        line("npm-set", "npm config set //npm.example/:_authToken SECRET && npm ci"),
        line("netrc", "echo 'machine git.example login ci password SECRET' > ~/.netrc"),
        line("pip", "pip install --extra-index-url https://ci:SECRET@pypi.example/simple app"),
        line("git-clone", "git clone https://ci:SECRET@git.example/app.git"),
        line("git-header", "git config --global http.extraheader \"AUTHORIZATION: basic SECRET\""),
        line("chpasswd", "echo 'root:SECRET' | chpasswd"),
        line("sshpass", "sshpass -p SECRET scp ci@files.example:/x ."),
        line("docker-login", "docker login -u ci -p SECRET registry.example"),
        line("mysql", "service mysql start && mysql -uroot -pSECRET -e 'create database app'"),
        line("alter-role", "psql -c \"ALTER USER app PASSWORD 'SECRET';\""),
        line("identified-by", "mysql -e \"CREATE USER 'a'@'%' IDENTIFIED BY 'SECRET'\""),
        line("redis", "redis-cli -a SECRET ping"),
        line("redis-conf", "echo 'requirepass=SECRET' >> /etc/redis.conf"),
        line("keytool", "keytool -genkey -alias a -storepass SECRET -keystore /k.jks"),
        line("openssl", "openssl pkcs12 -export -passout pass:SECRET -out /k.p12"),
        line("aws-configure", "aws configure set aws_secret_access_key SECRET && aws s3 cp s3://b/x ."),
        line(
            "aws-credentials",
            "printf '[default]\\naws_secret_access_key = SECRET\\n' > ~/.aws/credentials",
        ),
        line("env-file", "printf 'DB_HOST=db\\nDB_PASSWORD=SECRET\\n' > /app/.env"),
        line("yaml", "printf 'database:\\n  password: SECRET\\n' > /app/config.yml"),
        line("heredoc", "<<EOF\ncat > /app/app.properties\ndb.password=SECRET\nEOF"),
        line("nested-shell", "bash -c \"export API_TOKEN=SECRET && make\""),
        line("default-of", ": ${ADMIN_PASSWORD:=SECRET} && ./setup"),
        line("sed", "sed -i 's/^password=.*/password=SECRET/' /etc/app.conf"),
        line("maven", "mvn deploy -Drepo.password=SECRET"),
        line("composer", "composer config github-oauth.token SECRET"),
        line("bundle", "bundle config set gems.example ci:SECRET && bundle install"),
    ]
}

/// Returns secrets in labels, commands of the container, health checks and triggers.
fn elsewhere(random: &mut Random) -> Vec<Form> {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    vec![
        with("label-token", random.hex(40), |s| vec![Step::Label("com.example.deploy-token", s.into())]),
        with("label-url", random.alphanumeric(14), |s| {
            vec![Step::Label("com.example.source", format!("https://ci:{s}@git.example/app"))]
        }),
        with("cmd-option", random.alphanumeric(16), |s| {
            vec![Step::Cmd(list(&["redis-server", "--requirepass", s]))]
        }),
        with("cmd-shell", random.alphanumeric(16), |s| {
            vec![Step::Cmd(list(&["sh", "-c", &format!("DB_PASSWORD={s} ./app")]))]
        }),
        with("entrypoint-option", random.hex(32), |s| {
            vec![Step::Entrypoint(list(&["/runner", &format!("--token={s}")]))]
        }),
        with("entrypoint-url", random.alphanumeric(16), |s| {
            vec![Step::Entrypoint(list(&["/app", "-dsn", &format!("amqp://a:{s}@mq:5672/")]))]
        }),
        with("healthcheck-user", random.alphanumeric(16), |s| {
            vec![Step::Healthcheck(format!("curl -fs -u probe:{s} http://localhost/health"))]
        }),
        with("healthcheck-header", random.hex(32), |s| {
            vec![Step::Healthcheck(format!("wget -q --header='X-Auth-Token: {s}' http://localhost/health"))]
        }),
        with("onbuild-env", random.hex(32), |s| vec![Step::OnBuild(format!("ENV API_TOKEN={s}"))]),
        with("onbuild-run", random.alphanumeric(16), |s| {
            vec![Step::OnBuild(format!(
                "RUN pip install -i https://ci:{s}@pypi.example/simple -r requirements.txt"
            ))]
        }),
    ]
}
