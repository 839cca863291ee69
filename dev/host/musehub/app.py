"""MuseHub's app, reduced to what its secrets are for.

/explore is 200 only when DB_PASSWORD logs in to Postgres right now, a runner has shown the right RUNNER_TOKEN since
this process started and within the last seconds, and WEBHOOK_SECRET_KEY, where there is one, is a Fernet key.
Otherwise 503, with a line per thing that is wrong and never a value.
"""
import hmac
import http.server
import os
import signal
import ssl
import sys
import time

import psycopg2
from cryptography.fernet import Fernet

RUNNER_SILENCE = 5.0  # seconds after which a runner counts as gone; it reports every half second

runner_seen = 0.0


def database() -> str | None:
    try:
        psycopg2.connect(host="postgres", dbname="musehub", user="musehub", password=os.environ.get("DB_PASSWORD", ""),
                         connect_timeout=3).close()
    except psycopg2.OperationalError as error:
        return f"database: {str(error).strip().splitlines()[-1]}"
    return None


def runner() -> str | None:
    if not os.environ.get("RUNNER_TOKEN"):
        return "runner: RUNNER_TOKEN is not set"
    if time.monotonic() - runner_seen > RUNNER_SILENCE or not runner_seen:
        return "runner: none has authenticated"
    return None


def webhooks() -> str | None:
    key = os.environ.get("WEBHOOK_SECRET_KEY")
    if key is None:
        return None
    try:
        Fernet(key)
    except ValueError:
        return "webhooks: WEBHOOK_SECRET_KEY is not a Fernet key"
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status: int, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path != "/explore":
            return self.answer(404, "not found")
        wrong = [problem for check in (database, runner, webhooks) if (problem := check())]
        self.answer(503 if wrong else 200, "\n".join(wrong) or "explore")

    def do_POST(self) -> None:
        global runner_seen
        if self.path != "/runner":
            return self.answer(404, "not found")
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        expected = os.environ.get("RUNNER_TOKEN", "")
        if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
            return self.answer(401, "not the runner's token")
        runner_seen = time.monotonic()
        self.answer(200, "no job")

    def log_message(self, form: str, *values: object) -> None:
        if self.path != "/runner":
            super().log_message(form, *values)


class Server(http.server.ThreadingHTTPServer):
    def get_request(self) -> tuple:
        # The handshake is made by the connection's own thread: one silent client must not stop the others.
        connection, address = super().get_request()
        connection.settimeout(10)
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: object, address: object) -> None:
        print("connection ended:", sys.exc_info()[1], file=sys.stderr)


# As the first process of a container nothing ends us but a handler of our own.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/localhost.crt", "/tls/localhost.key")
Server(("", 1337), Handler).serve_forever()
