#!/usr/bin/env python3
"""The world's SSM: moto's Parameter Store over HTTP, with the three things that moto alone lacks here.

- It survives SIGKILL. moto keeps everything in memory; every acknowledged change is also appended to a journal, which
  is replayed at the start. Without it the docker host would outlive the parameters it was deployed from.
- It says which calls were made, so that a test can show that there were none: GET /world/calls.
- It makes parameters old, for the schedules of months that nobody waits for: POST /world/backdate.

Requests are served one at a time: moto's models are not made for concurrent changes.
"""
import argparse
import datetime
import io
import json
import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.ssm.models import SimpleSystemManagerBackend, ssm_backends
from werkzeug.serving import run_simple

ACCOUNT = "123456789012"
CHANGES = {
    "PutParameter", "DeleteParameter", "DeleteParameters", "LabelParameterVersion", "UnlabelParameterVersion",
    "AddTagsToResource", "RemoveTagsFromResource",
}
CALLS_KEPT = 200_000


class Journal:
    """Every version of a parameter after each change of it; the last record of a name counts."""

    def __init__(self, path: str) -> None:
        self.path = path
        latest = {}
        for record in self._records():
            latest[record["region"], record["name"]] = record
        for record in latest.values():
            self._apply(record)
        # Starts over with what counts, so that the file does not grow with the world's age.
        with open(path + ".new", "wb") as file:
            for record in latest.values():
                pickle.dump(record, file)
        os.replace(path + ".new", path)
        self.file = open(path, "ab")

    def _records(self) -> Iterable[dict]:
        try:
            with open(self.path, "rb") as file:
                while True:
                    yield pickle.load(file)
        except FileNotFoundError:
            return
        except (EOFError, pickle.UnpicklingError):
            return  # the end, or a record that was being written when the process was killed: never acknowledged

    @staticmethod
    def _apply(record: dict) -> None:
        backend = ssm_backends[ACCOUNT][record["region"]]
        if record["versions"]:
            backend._parameters[record["name"]].extend(record["versions"])
            backend._resource_tags["Parameter"][record["name"]].update(record["tags"])

    def write(self, region: str, name: str) -> None:
        backend = ssm_backends[ACCOUNT][region]
        key = key_of(backend, name)
        pickle.dump({
            "region": region,
            "name": key,
            "versions": list(backend._parameters.get(key, [])),
            "tags": dict(backend._resource_tags["Parameter"].get(key, {})),
        }, self.file)
        self.file.flush()

    def clear(self) -> None:
        self.file.truncate(0)


class World:
    """The WSGI application in front of moto."""

    def __init__(self, journal: Journal) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.journal = journal
        self.lock = threading.Lock()
        self.calls: list[dict] = []
        self.dropped = 0

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with self.lock:
            if environ["PATH_INFO"].startswith("/world/"):
                status, answer = self.own(environ, body)
                start_response(status, [("Content-Type", "application/json")])
                return [json.dumps(answer).encode() + b"\n"]
            return self.forward(environ, start_response, body)

    def forward(self, environ: dict, start_response: Callable, body: bytes) -> Iterable[bytes]:
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        statuses = []

        def remember_status(status: str, *rest: object) -> Callable:
            statuses.append(status)
            return start_response(status, *rest)

        answer = list(self.moto(environ, remember_status))
        if service == "AmazonSSM":
            request = json.loads(body or b"{}")
            region = region_of(environ.get("HTTP_AUTHORIZATION", ""))
            names = names_in(request)
            self.record(operation, region, names, int(statuses[0].split()[0]), environ)
            if operation in CHANGES and statuses[0].startswith("200"):
                for name in names:
                    self.journal.write(region, name)
        elif environ["PATH_INFO"] == "/moto-api/reset":
            self.journal.clear()
        return answer

    def record(self, operation: str, region: str, names: list[str], status: int, environ: dict) -> None:
        # Names only: what a request carries beside them may be a secret.
        self.calls.append({"at": time.time(), "operation": operation, "region": region, "names": names,
                           "status": status, "accessKey": access_key_of(environ.get("HTTP_AUTHORIZATION", "")),
                           "address": environ.get("REMOTE_ADDR", ""), "userAgent": environ.get("HTTP_USER_AGENT", "")})
        if len(self.calls) > CALLS_KEPT:
            self.dropped += len(self.calls) // 2
            del self.calls[: len(self.calls) // 2]

    def own(self, environ: dict, body: bytes) -> tuple[str, object]:
        match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
            case "GET", "/world/health":
                return "200 OK", {"parameters": sum(len(b._parameters) for b in ssm_backends[ACCOUNT].values())}
            case "GET", "/world/calls":
                # ?from=N leaves out the first N calls ever made; `next` is the N to go on with.
                given = re.search(r"from=(\d+)", environ.get("QUERY_STRING", ""))
                start = max(int(given[1]) - self.dropped, 0) if given else 0
                return "200 OK", {"calls": self.calls[start:], "next": self.dropped + len(self.calls)}
            case "POST", "/world/backdate":
                request = json.loads(body)
                return self.backdate(request["name"], float(request["days"]), request.get("region", "us-east-1"))
        return "404 Not Found", {"error": "GET /world/health, GET /world/calls?from=N, POST /world/backdate"}

    def backdate(self, name: str, days: float, region: str) -> tuple[str, object]:
        backend = ssm_backends[ACCOUNT][region]
        versions = backend._parameters.get(key_of(backend, name))
        if not versions:
            return "404 Not Found", {"error": f"no parameter {name} in {region}"}
        versions[-1].last_modified_date -= datetime.timedelta(days=days)
        self.journal.write(region, name)
        return "200 OK", {"name": name, "lastModified": versions[-1].last_modified_date.isoformat()}


def key_of(backend: SimpleSystemManagerBackend, name: str) -> str:
    """The key under which moto keeps a parameter. Debian 13's, 5.1, keeps each under the name that it was given."""
    return getattr(backend._parameters, "normalize_name", str)(name)


def region_of(authorization: str) -> str:
    scope = re.search(r"Credential=[^/]+/\d+/([^/]+)/", authorization)
    return scope[1] if scope else "us-east-1"


def access_key_of(authorization: str) -> str:
    scope = re.search(r"Credential=([^/]+)/", authorization)
    return scope[1] if scope else "unknown"


def names_in(request: dict) -> list[str]:
    names = request.get("Names") or [request.get(key) for key in ("Name", "ResourceId", "Path") if request.get(key)]
    for given in request.get("ParameterFilters") or ():
        if given.get("Key") in ("Name", "Path"):
            names = names + (given.get("Values") or [])
    return [re.sub(r"^arn:aws:ssm:[^:]*:\d*:parameter", "", name) for name in names]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--host", required=True)
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--journal", required=True)
    given = arguments.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    run_simple(given.host, given.port, World(Journal(given.journal)), threaded=True)


if __name__ == "__main__":
    main()
