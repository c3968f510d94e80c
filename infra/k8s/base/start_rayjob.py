#!/usr/bin/env python3
"""Start a RayJob from a suspended template, wait for it, and end as it ended.

Runs in the nightly CronJob's pod with the rights to read and create RayJobs. Started again for the
same name, it waits for the RayJob that is there. Exit codes: the job's (0 done, 1 failed, 2 the
request was wrong); 1 too when the RayJob is lost or the API server cannot be reached for long.
"""

import argparse
import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DONE, FAILED, WRONG = 0, 1, 2
_ENDED = ("Complete", "Failed", "ValidationFailed")
_EXIT_CODE = re.compile(r"exit code (\d+)")
_CONFLICT = 409


class RefusedError(Exception):
    """The API server answered, and the answer is no."""


class Api:
    """RayJobs of the pod's own namespace; waits out an API server that is away for a while."""

    def __init__(self, server: str, credentials: Path, *, patience: float, poll: float) -> None:
        namespace = (credentials / "namespace").read_text().strip()
        self._jobs = f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._credentials = credentials
        self._patience = patience
        self._poll = poll
        authority = credentials / "ca.crt"
        is_tls = server.startswith("https:")
        self._tls = ssl.create_default_context(cafile=str(authority)) if is_tls else None

    def read(self, name: str) -> dict[str, Any]:
        """One RayJob."""
        return self._call("GET", f"{self._jobs}/{name}")

    def create(self, job: dict[str, Any]) -> bool:
        """Create a RayJob; False when one of that name is there."""
        try:
            self._call("POST", self._jobs, json.dumps(job).encode())
        except urllib.error.HTTPError as error:
            if error.code != _CONFLICT:
                raise RefusedError(_answer(error)) from error
            return False
        return True

    def _call(self, method: str, url: str, body: bytes | None = None) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._call_once(method, url, body)
            except urllib.error.HTTPError as error:
                if error.code == _CONFLICT:
                    raise
                if error.code != 429 and error.code < 500:
                    raise RefusedError(_answer(error)) from error
                problem = f"the API server answers {error.code}"
            except OSError as error:
                problem = f"the API server cannot be reached ({type(error).__name__})"
            if time.monotonic() > deadline:
                raise RefusedError(problem)
            time.sleep(self._poll)

    def _call_once(self, method: str, url: str, body: bytes | None) -> dict[str, Any]:
        # read every time: the token is replaced while the pod lives
        token = (self._credentials / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, data=body, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def from_template(template: dict[str, Any], name: str, owner: str | None) -> dict[str, Any]:
    """A RayJob that runs; it goes when the Job that started it is cleaned up."""
    metadata: dict[str, Any] = {
        "name": name,
        "labels": template["metadata"].get("labels", {}),
        "annotations": {"ulsdram/template": template["metadata"]["name"]},
    }
    if owner:
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner}
        metadata["ownerReferences"] = [reference]
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": metadata,
        "spec": {**template["spec"], "suspend": False},
    }


def exit_code(status: dict[str, Any]) -> int:
    """What the job ended with; a request that was wrong keeps its 2."""
    deployment = status.get("jobDeploymentStatus")
    if deployment == "ValidationFailed":
        return WRONG
    if deployment == "Complete" and status.get("jobStatus") == "SUCCEEDED":
        return DONE
    found = _EXIT_CODE.search(status.get("message") or "")
    return WRONG if found and int(found[1]) == WRONG else FAILED


def wait(api: Api, name: str, *, poll: float) -> int:
    """Say every change of state; return the exit code."""
    said = ""
    while True:
        status = api.read(name).get("status") or {}
        states = [status.get("jobDeploymentStatus"), status.get("jobStatus")]
        text = " ".join(state for state in states if state)
        if text != said:
            _say(f"{name}: {text}")
            said = text
        if status.get("jobDeploymentStatus") in _ENDED:
            if status.get("message"):
                _say(f"{name}: {status['message']}")
            return exit_code(status)
        time.sleep(poll)


def _answer(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error).get("message", error))
    except ValueError:
        return str(error)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    """Start, wait, tell."""
    options = argparse.ArgumentParser(description=__doc__)
    add = options.add_argument
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), "443"
    port = os.environ.get("KUBERNETES_SERVICE_PORT", port)
    add("--template", required=True, help="suspended RayJob to copy")
    add("--name", required=True, help="name of the RayJob to start or to wait for")
    add("--owner", help="uid of the Job with that name: the RayJob is removed with it")
    add("--poll", type=float, default=15.0, help="seconds between two looks")
    add("--patience", type=float, default=900.0, help="seconds without an answer to wait out")
    add("--server", default=f"https://{host}:{port}", help="the API server")
    add("--credentials", type=Path, default=CREDENTIALS, help="folder of the pod's credentials")
    arguments = options.parse_args(argv)
    api = Api(
        arguments.server, arguments.credentials, patience=arguments.patience, poll=arguments.poll
    )
    try:
        template = api.read(arguments.template)
        is_new = api.create(from_template(template, arguments.name, arguments.owner))
        _say(f"{arguments.name}: {'started' if is_new else 'is there already, waiting for it'}")
        return wait(api, arguments.name, poll=arguments.poll)
    except RefusedError as error:
        _say(f"{arguments.name}: {error}")
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
