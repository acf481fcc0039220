"""Checks the YAML documents of the files named against the schemas of each version of Kubernetes; prints each fault.

validate.py VERSIONS FILES...: VERSIONS with commas between. The last line says how many checks there were.
"""

import sys

import kubernetes_validate
import yaml


def main() -> None:
    checks = 0
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as file:
            documents = [document for document in yaml.safe_load_all(file) if document]
        for version in sys.argv[1].split(","):
            for document in documents:
                # Custom resources have no schema here.
                if document["apiVersion"].split("/")[0].endswith((".coreos.com", ".sh", "networking.k8s.io", "gke.io")):
                    if document["apiVersion"] != "networking.k8s.io/v1":
                        continue
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                    checks += 1
                except Exception as fault:  # each is a finding
                    print(f"{path}, {version}, {document['kind']}: {fault}")
    print(f"{checks} checks")


main()
