#!/usr/bin/env python3
"""Prints which crates are in a program: a CycloneDX 1.6 document.

Taken from what cargo resolves for the target (`cargo tree` for which, `cargo metadata` and Cargo.lock for the rest), so it
names what is linked or ran while building, and not what only tests or other platforms use. Needs no network.
"""

import argparse
import datetime
import hashlib
import json
import re
import subprocess
import sys
import tomllib
import uuid

PACKAGE = "standalone"
# What deploy/image/build compiles it with.
FEATURES = f"{PACKAGE}/otlp-grpc"


def cargo(*arguments: str) -> str:
    command = ["cargo", *arguments, "--locked"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"sbom: {' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def linked(target: str) -> set[tuple[str, str]]:
    """Names and versions of the crates of the program, build scripts and macros included, with the features it has."""
    options = ("--package", PACKAGE, "--features", FEATURES, "--target", target)
    tree = cargo("tree", *options, "--edges", "normal,build", "--prefix", "none")
    # "serde v1.0.1", "edge v0.1.0 (/path)", "paste v1.0 (proc-macro)", each perhaps with "(*)".
    return {(name, version) for name, version in re.findall(r"^(\S+) v(\S+)", tree, re.MULTILINE)}


def purl(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package: dict, checksums: dict) -> dict:
    found = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package["description"]:
        found["description"] = " ".join(package["description"].split())
    if package["license"]:
        # The old way of writing "or" is still seen; the format takes SPDX only.
        found["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if checksum := checksums.get((package["name"], package["version"])):
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return found


def document(target: str, program: str, timestamp: int) -> dict:
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--features", FEATURES, "--filter-platform", target))
    with open("Cargo.lock", "rb") as file:
        lock = tomllib.load(file)["package"]
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock}
    wanted = linked(target)
    packages = {entry["id"]: entry for entry in metadata["packages"] if (entry["name"], entry["version"]) in wanted}
    if missing := wanted - {(entry["name"], entry["version"]) for entry in packages.values()}:
        sys.exit(f"sbom: cargo metadata does not know {sorted(missing)}")
    dependencies = []
    for node in metadata["resolve"]["nodes"]:
        if node["id"] not in packages:
            continue
        used = {
            purl(packages[edge["pkg"]])
            for edge in node["deps"]
            if edge["pkg"] in packages and any(kind["kind"] != "dev" for kind in edge["dep_kinds"])
        }
        dependencies.append({"ref": purl(packages[node["id"]]), "dependsOn": sorted(used)})
    with open(program, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    [main] = [entry for entry in packages.values() if entry["name"] == PACKAGE]
    subject = component(main, checksums) | {
        "type": "application",
        "name": "message-center",
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "properties": [{"name": "target", "value": target}],
    }
    rest = [component(entry, checksums) for entry in packages.values() if entry["name"] != PACKAGE]
    moment = datetime.datetime.fromtimestamp(timestamp, datetime.UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same program has the same document.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{purl(main)}#{digest}')}",
        "version": 1,
        "metadata": {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": subject},
        "components": sorted(rest, key=lambda entry: entry["bom-ref"]),
        "dependencies": sorted(dependencies, key=lambda entry: entry["ref"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="the triple that the program was compiled for")
    parser.add_argument("--program", required=True, help="the program, for its hash")
    parser.add_argument("--timestamp", type=int, required=True, help="seconds since 1970, for the document")
    options = parser.parse_args()
    json.dump(document(options.target, options.program, options.timestamp), sys.stdout, indent=1)
    print()


main()
