"""Checks the YAML documents of FILES against the schemas of each Kubernetes version; prints each error.

validate.py VERSIONS FILES...: VERSIONS is a comma-separated list. A document that occurs in several files is
checked once. The last line says how many checks were made.
"""

import functools
import importlib.resources
import json
import re
import sys

import jsonschema
import yaml
from referencing import Registry, Resource

SCHEMAS = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
# Custom resources have no schema here; custom.cjs checks them.
CUSTOM = re.compile(r"(\.coreos\.com|keda\.sh|gateway\.networking\.k8s\.io|networking\.gke\.io)/")


@functools.cache
def folder(version: str):
    """The strict schemas of the newest release of this version."""
    names = [entry.name for entry in SCHEMAS.iterdir() if entry.name.startswith(f"v{version}.")]
    names = [name for name in names if name.endswith("-local-strict")]
    if not names:
        sys.exit(f"no schemas of Kubernetes {version}")
    return SCHEMAS / max(names, key=lambda name: int(name.split("-")[0].split(".")[2]))


@functools.cache
def definitions(version: str) -> Registry:
    contents = json.loads((folder(version) / "_definitions.json").read_text(encoding="utf-8"))
    return Resource.from_contents(contents) @ Registry()


@functools.cache
def validator(version: str, api: str, kind: str) -> jsonschema.Draft202012Validator:
    # policy/v1 is policy-v1, networking.k8s.io/v1 is networking-v1.
    api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = json.loads((folder(version) / f"{kind.lower()}-{api}.json").read_text(encoding="utf-8"))
    registry = Resource.from_contents(schema) @ definitions(version)
    return jsonschema.Draft202012Validator(schema, registry=registry)


def documents(paths: list[str]) -> dict[str, tuple[str, dict]]:
    """Each distinct document, with the first file that contains it."""
    found = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for document in yaml.load_all(file, yaml.CSafeLoader):
                if document and not CUSTOM.search(document["apiVersion"]):
                    found.setdefault(json.dumps(document, sort_keys=True), (path, document))
    return found


def main() -> None:
    checks = 0
    for path, document in documents(sys.argv[2:]).values():
        for version in sys.argv[1].split(","):
            checks += 1
            for fault in validator(version, document["apiVersion"], document["kind"]).iter_errors(document):
                where = ".".join(str(step) for step in fault.absolute_path)
                print(f"{path}, {version}, {document['kind']} {where}: {fault.message[:300]}")
    print(f"{checks} checks")


main()
