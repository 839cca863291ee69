#!/usr/bin/env python3
"""Writes a container image as a tar to standard output: a handful of files, no base, no registry, no daemon.

    image.py --name localhost/keyturn:dev --entrypoint /keyturn --user 65532:65532 target/keyturn:/keyturn

The same files give the same bytes, so an image's identity says whether anything changed.
"""
import argparse
import hashlib
import io
import json
import os
import platform
import sys
import tarfile


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))


def layer_of(files: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        folders: set[str] = set()
        for pair in files:
            source, _, target = pair.rpartition(":")
            target = target.lstrip("/")
            for end in (i for i, character in enumerate(target) if character == "/"):
                if target[:end] not in folders:
                    folders.add(target[:end])
                    info = tarfile.TarInfo(target[:end])
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(info)
            with open(source, "rb") as file:
                add(archive, target, file.read(), 0o755 if os.access(source, os.X_OK) else 0o644)
    return out.getvalue()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--name", required=True)
    arguments.add_argument("--entrypoint", required=True)
    arguments.add_argument("--user", default="0:0")
    arguments.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    arguments.add_argument("files", nargs="+", metavar="SOURCE:TARGET")
    given = arguments.parse_args()

    layer = layer_of(given.files)
    config = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": [given.entrypoint], "User": given.user, "Env": [],
                   "Labels": dict(label.split("=", 1) for label in given.label)},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created_by": "dev/lib/image.py"}],
    }).encode()
    manifest = [{"Config": "config.json", "RepoTags": [given.name], "Layers": ["layer.tar"]}]
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
        add(archive, "config.json", config, 0o644)
        add(archive, "layer.tar", layer, 0o644)
        add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


main()
