# SPDX-License-Identifier: Apache-2.0
"""`make bench-resolve`: what resolving 45 models for 10 hosts adds to a run of Ansible.

Two plays side by side, over the same ten hosts: one sets a fact, the other sets it to the resolved engines. No box is
needed: the facts of a Spark are given. Prints the median of some runs of each.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible_collections.hearth.spark.plugins.lookup.catalog import read
from ansible_collections.hearth.spark.plugins.module_utils import _catalog

ROOT = Path(__file__).resolve().parent.parent
HOSTS = 10
MODELS = 45
RUNS = 5
FACTS = {
    "user": {"name": "spark", "uid": 1000, "gid": 1000, "home": "/home/spark"},
    "memory": {"total_gib": _catalog.SPARK_GIB},
    "arch": "aarch64",
}
RESOLVE = (
    "{{ engines_models | hearth.spark.resolve_engines(catalog=lookup('hearth.spark.catalog'), facts=facts,"
    " root='/home/spark/ai', gpu='nvidia.com/gpu=all') }}"
)


def playbook(value: str) -> list[dict[str, Any]]:
    """One play over all hosts with one task."""
    task = {"name": "Resolve", "ansible.builtin.set_fact": {"resolved": value}}
    return [{"name": "Bench", "hosts": "sparks", "gather_facts": False, "tasks": [task]}]


def inventory() -> dict[str, Any]:
    """Ten Sparks with 45 models each."""
    catalog = _catalog.check_catalog(**read())
    fit = [name for name, model in catalog.models.items() if _catalog.refusal(model, _catalog.SPARK_GIB, 10) is None]
    models = {name: {"start": "demand"} for name in fit[:MODELS]}
    if len(models) < MODELS:
        raise SystemExit(f"only {len(models)} models of the catalog fit a Spark")
    variables = {"ansible_connection": "local", "facts": FACTS, "engines_models": models}
    return {"sparks": {"hosts": {f"spark{index}": {} for index in range(HOSTS)}, "vars": variables}}


def seconds(folder: Path, name: str) -> float:
    """One run of a play."""
    program = str(Path(sys.executable).parent / "ansible-playbook")
    begun = time.monotonic()
    done = subprocess.run(
        [program, "-i", str(folder / "hosts.json"), str(folder / name)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"ansible-playbook failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - begun


def main() -> None:
    """Run as a command."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "hosts.json").write_text(json.dumps(inventory()), encoding="utf-8")
        for name, value in (("bare.yml", "x"), ("resolve.yml", RESOLVE)):
            (folder / name).write_text(json.dumps(playbook(value)), encoding="utf-8")
        times: dict[str, list[float]] = {"bare.yml": [], "resolve.yml": []}
        for turn in range(RUNS):
            print(f"  run {turn + 1} of {RUNS}", file=sys.stderr, flush=True)
            for name, found in times.items():
                found.append(seconds(folder, name))
    bare, resolved = (statistics.median(found) for found in times.values())
    print(f"a play over {HOSTS} hosts: {bare:.2f} s; with {MODELS} models resolved for each: {resolved:.2f} s")
    print(f"resolving adds {resolved - bare:.2f} s ({resolved / bare:.2f} times the bare play)")


if __name__ == "__main__":
    main()
