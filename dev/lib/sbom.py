#!/usr/bin/env python3
"""Writes what is compiled into keyturn as a CycloneDX document, to standard output: each crate with its version, the
checksum that Cargo.lock holds it to, its licence, and which other crates it uses.

    sbom.py x86_64-unknown-linux-gnu > keyturn.cdx.json

Programs and macros that only run while it is compiled are not in it. The same Cargo.lock gives the same bytes.
"""
import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def metadata(target: str) -> dict:
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}"]
    return json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout)


def checksums() -> dict[tuple[str, str], str]:
    lock = tomllib.loads((REPOSITORY / "Cargo.lock").read_text())
    return {(one["name"], one["version"]): one["checksum"] for one in lock["package"] if "checksum" in one}


def compiled_in(target: str) -> set[tuple[str, str]]:
    """Name and version of each, with the features that the program has and not those that tests add."""
    command = ["cargo", "tree", "--locked", "--package=keyturn", "--edges=normal,no-proc-macro", f"--target={target}"]
    tree = subprocess.run([*command, "--prefix=none"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    words = (line.split() for line in tree.stdout.splitlines())
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def main() -> None:
    (target,) = sys.argv[1:]
    read = metadata(target)
    part = compiled_in(target)
    packages = {one["id"]: one for one in read["packages"] if (one["name"], one["version"]) in part}
    root = read["resolve"]["root"]
    nodes = [node for node in read["resolve"]["nodes"] if node["id"] in packages]
    uses = {node["id"]: [one["pkg"] for one in node["deps"] if one["pkg"] in packages] for node in nodes}
    known = checksums()

    def reference(package_id: str) -> str:
        return "pkg:cargo/{name}@{version}".format(**packages[package_id])

    def component(package_id: str) -> dict:
        package = packages[package_id]
        told = {
            "type": "application" if package_id == root else "library",
            "bom-ref": reference(package_id),
            "name": package["name"],
            "version": package["version"],
            "purl": reference(package_id),
        }
        if package["license"]:
            told["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if checksum := known.get((package["name"], package["version"])):
            told["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return told

    ordered = sorted(packages, key=reference)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root), "properties": [{"name": "keyturn:target", "value": target}]},
        "components": [component(one) for one in ordered if one != root],
        "dependencies": [
            {"ref": reference(one), "dependsOn": sorted({reference(other) for other in uses[one]})} for one in ordered
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    json.dump(document, sys.stdout, indent=1)
    print()


main()
