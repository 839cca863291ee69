//! Tests a malicious database: it knows its clients, and sends them any data as fast as it can.

use super::controller;
use super::postgres::Database;
use super::project::Project;
use super::ssm;
use super::world::{eventually, in_box, on_host};

const PASSWORD: &str = "first-0123456789abcdef";
/// Number of secrets whose role is on it: as many as the controller handles at once.
const ROLES: usize = 8;
/// Number of other people's secrets that rotate at the same time, in each of two namespaces.
const OF_OTHERS: usize = 10;

/// A program in place of Postgres: it accepts everybody who has the password, with SCRAM, and then sends without end,
/// in one of three ways. It counts sessions and the mebibytes that clients took.
const HIJACKER: &str = r#"
import base64, hashlib, hmac, os, socket, struct, threading

PASSWORD, SALT, COUNT = os.environ["PASSWORD"].encode(), os.urandom(16), 4096
taken, lock = {"sessions": 0, "bytes": 0}, threading.Lock()

def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body

def exactly(stream, length):
    data = b""
    while len(data) < length:
        part = stream.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data

def received(stream):
    kind, length = struct.unpack("!cI", exactly(stream, 5))
    return exactly(stream, length - 4)

def mac(key, text):
    return hmac.digest(key, text, "sha256")

def authenticate(stream):
    length = struct.unpack("!I", exactly(stream, 4))[0]
    startup = exactly(stream, length - 4)
    if startup == struct.pack("!I", 80877103):
        stream.sendall(b"N")
        return authenticate(stream)
    stream.sendall(message(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0"))
    bare = received(stream).split(b"n,,", 1)[1]
    nonce = bare.split(b"r=", 1)[1] + base64.b64encode(os.urandom(18))
    first = b"r=%s,s=%s,i=%d" % (nonce, base64.b64encode(SALT), COUNT)
    stream.sendall(message(b"R", struct.pack("!I", 11) + first))
    final = received(stream).rsplit(b",p=", 1)[0]
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD, SALT, COUNT)
    proof = mac(mac(salted, b"Server Key"), b",".join([bare, first, final]))
    stream.sendall(message(b"R", struct.pack("!I", 12) + b"v=" + base64.b64encode(proof)))
    stream.sendall(message(b"R", struct.pack("!I", 0)))

def flood(stream, what):
    while True:
        stream.sendall(what)
        with lock:
            taken["bytes"] += len(what)
            text = "%(sessions)d " % taken + str(taken["bytes"] >> 20)
            with open("/counts/hijacked.new", "w") as file:
                file.write(text)
            os.rename("/counts/hijacked.new", "/counts/hijacked")

def serve(stream, way):
    try:
        authenticate(stream)
        if way == 0:
            # Notices may come at any time.
            stream.sendall(message(b"Z", b"I"))
            flood(stream, message(b"N", b"SNOTICE\0C00000\0M" + b"x" * 1_000_000 + b"\0\0"))
        elif way == 1:
            # One answer of a gigabyte.
            stream.sendall(message(b"Z", b"I") + b"D" + struct.pack("!I", 1 << 30))
            flood(stream, b"x" * 1_000_000)
        else:
            # The login that never ends.
            flood(stream, message(b"S", b"name\0" + b"x" * 100_000 + b"\0"))
    except (EOFError, OSError, IndexError):
        stream.close()

server = socket.create_server(("", 5432))
while True:
    stream, _ = server.accept()
    with lock:
        taken["sessions"] += 1
        way = taken["sessions"] % 3
    threading.Thread(target=serve, args=(stream, way), daemon=True).start()
"#;

fn role(number: usize) -> String {
    format!("role{number}")
}

/// Returns a database with roles that keyturn has adopted, one for each secret.
fn database_of_many_roles() -> Database {
    let database = Database::new("hijacked", &["web"]);
    let (project, port) = (&database.project, database.port);
    let roles: Vec<String> = (0..ROLES).map(role).collect();
    let all = format!("roles: [{}]", roles.join(", "));
    project.apply(&database.grant().replace("roles: [musehub, app, app_a, app_b]", &all));
    database.start(PASSWORD);
    for role in &roles {
        database.psql(&format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}'")).unwrap();
        ssm::put(&project.path(role), PASSWORD);
        let postgres = format!(
            "  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: musehub, \
             singleRole: {{name: {role}}}}}}}\n"
        );
        project.apply(&project.secret(role, role, &postgres));
    }
    for role in &roles {
        project.wait(&format!("managedsecret/{role}"), "Ready", "True");
    }
    database
}

fn hijack(database: &Database) {
    let (name, port) = (&database.project.name, database.port);
    on_host(&format!(
        "set -e; cd ~/e2e/{name}; sudo -n docker rm --force {name}-postgres-1; cat >hijacker.py <<'PY'{HIJACKER}PY
sudo -n docker run --detach --name {name}-hijacker --publish 127.0.0.1:{port}:5432 --env PASSWORD={PASSWORD} \
--volume ./hijacker.py:/hijacker.py:ro --volume ./counts:/counts musehub:world python3 -u /hijacker.py"
    ));
}

/// Returns the number of sessions, and the mebibytes that were taken in them.
fn taken_from(database: &Database) -> (u64, u64) {
    let counts =
        on_host(&format!("cat ~/e2e/{}/counts/hijacked 2>/dev/null || echo 0 0", database.project.name));
    let mut numbers = counts.split(' ').filter_map(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Returns the peak memory of a controller on the node, and the chart's limit, in mebibytes.
fn memory() -> (u64, u64) {
    let peaks = in_box(
        "node",
        "for process in /proc/[0-9]*; do tr '\\0' ' ' <$process/cmdline 2>/dev/null | grep -q 'keyturn controller' && \
         sed -n 's/^VmHWM:[[:space:]]*\\([0-9]*\\) kB/\\1/p' $process/status; done; true",
    );
    let peak = peaks.lines().filter_map(|kibibytes| kibibytes.parse::<u64>().ok()).max();
    let path = "jsonpath={.spec.template.spec.containers[0].resources.limits.memory}";
    let limit = controller::kubectl(&["get", "deployment/keyturn", "-o", path]);
    let limit = limit.strip_suffix("Mi").and_then(|mebibytes| mebibytes.parse().ok());
    (peak.expect("a controller runs") / 1024, limit.expect("the chart has a limit"))
}

#[test]
#[ignore = "needs the world"]
fn a_hijacked_database_at_full_speed_holds_up_no_secret_of_others() {
    let database = database_of_many_roles();
    let project = &database.project;
    hijack(&database);
    for number in 0..ROLES {
        project.request(&role(number), "hijacked");
    }
    let others = [project.beside("hijacked-a"), project.beside("hijacked-b")];
    let secrets = || {
        let of = |other: &'static str| (0..OF_OTHERS).map(move |number| format!("{other}-{number}"));
        others.iter().flat_map(move |project: &Project| of("token").map(move |name| (project, name)))
    };
    for (other, name) in secrets() {
        other.apply(&other.secret(&name, &name, ""));
    }
    for (other, name) in secrets() {
        other.wait(&format!("managedsecret/{name}"), "Ready", "True");
        other.request(&name, "meanwhile");
    }
    for (other, name) in secrets() {
        assert_eq!(other.answered(&name, "meanwhile"), "Succeeded", "{name}");
        assert_eq!(other.version(&name), 2, "{name}: one value, and one for the request");
    }
    eventually("every secret of the hijacked database says what is the matter", || {
        for number in 0..ROLES {
            let object = format!("managedsecret/{}", role(number));
            let conditions = project.kubectl(&["get", &object, "-o", "jsonpath={.status}"]);
            if !conditions.contains("MiB") {
                return Err(conditions);
            }
        }
        Ok(())
    });
    let (sessions, mebibytes) = taken_from(&database);
    let (peak, limit) = memory();
    println!(
        "{sessions} sessions, {mebibytes} MiB were taken; the controller had {peak} MiB at most, of {limit}"
    );
    assert!(sessions >= ROLES as u64 && mebibytes > 0, "nobody was talked to");
    assert!(peak < limit, "{peak} MiB of {limit}");
    let ends = "{range .items[*].status.containerStatuses[*]}{.lastState.terminated.reason} {end}";
    let path = format!("jsonpath={ends}");
    let ends = controller::kubectl(&["get", "pods", "-l", controller::SELECTOR, "-o", &path]);
    assert!(!ends.contains("OOMKilled"), "{ends}");
}
