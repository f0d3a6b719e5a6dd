#!/usr/bin/env python3
"""manifests.py FOLDER: validates the manifests below deploy/ (FOLDER) strictly: unknown fields are errors.

The output of `kubectl kustomize` (where there is a kubectl; else the files themselves) against the schemas of
kubernetes-validate, the WorkflowTemplate against the model that the package hera is generated with from Argo's own schema: what
the model does not know is lost on the way through it. Also the rules that no schema tells: see RULES.
"""
import os, shutil, subprocess, sys
import kubernetes_validate, yaml
from hera.workflows import models

folder = sys.argv[1]
faults = []
kustomized = os.path.join(folder, "kubernetes")
if shutil.which("kubectl"):
    text = subprocess.run(["kubectl", "kustomize", kustomized], check=True, capture_output=True, text=True).stdout
else:
    text = "\n---\n".join(open(os.path.join(kustomized, name)).read() for name in ("job.yaml", "volumes.yaml"))
documents = list(yaml.safe_load_all(text))
for document in documents:
    try:
        kubernetes_validate.validate(document, "1.37", strict=True)
    except kubernetes_validate.ValidationError as error:
        faults.append(f"{document['kind']}: {'.'.join(map(str, error.path))}: {error.message}")

template = yaml.safe_load(open(os.path.join(folder, "argo/workflow-template.yaml")))
model = models.WorkflowTemplate.model_validate(template)


def lost(given, known, place):
    """What is given and not in what came out of the model."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(known, dict) or key not in known:
                faults.append(f"WorkflowTemplate: {place}.{key} is not known")
            else:
                lost(value, known[key], f"{place}.{key}")
    elif isinstance(given, list):
        for number, value in enumerate(given):
            lost(value, known[number], f"{place}[{number}]")
    elif str(given) != str(known):
        faults.append(f"WorkflowTemplate: {place}: {given!r} became {known!r}")


lost(template, model.model_dump(mode="json", by_alias=True, exclude_none=True), "")


def locked(where, pod, containers):
    """The rules of the restricted Pod Security Standard, and what winject can do without."""
    context = pod["securityContext"]
    RULES = {
        "not root": context.get("runAsNonRoot") is True and context.get("runAsUser") == 107,
        "seccomp": context.get("seccompProfile") == {"type": "RuntimeDefault"},
        "no token": pod.get("automountServiceAccountToken") is False,
    }
    for container in containers:
        own = container.get("securityContext", {})
        RULES |= {
            "read-only root": own.get("readOnlyRootFilesystem") is True,
            "no escalation": own.get("allowPrivilegeEscalation") is False,
            "no capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "limits": set(container["resources"]["limits"]) == {"cpu", "memory"},
        }
    faults.extend(f"{where}: {rule}" for rule, holds in RULES.items() if not holds)


for document in documents:
    if document["kind"] == "Job":
        spec = document["spec"]
        pod = spec["template"]["spec"]
        locked("Job", pod, pod["containers"])
        environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        if environment["JOB_COMPLETIONS"] != str(spec["completions"]):
            faults.append("Job: JOB_COMPLETIONS is not completions")
        grace = [int(word.split("=")[1]) for word in pod["containers"][0]["args"] if word.startswith("--grace=")]
        if not grace or grace[0] >= pod["terminationGracePeriodSeconds"]:
            faults.append("Job: --grace is not below terminationGracePeriodSeconds")
locked("WorkflowTemplate", template["spec"], [one["container"] for one in template["spec"]["templates"] if "container" in one])
print("\n".join(faults) or f"well: {len(documents) + 1} manifests")
sys.exit(1 if faults else 0)
