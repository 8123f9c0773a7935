# SPDX-License-Identifier: Apache-2.0
"""A box that builds images: its own Docker and buildx, the lab's registry, and servers of git and files inside it."""

from __future__ import annotations

import io
import json
import secrets
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxes import ROOT, Box

from ansible_collections.hearth.spark.plugins.module_utils import _recipes

RECIPES = "/var/lib/hearth/recipes"
LOG = "/var/log/hearth/build-{}.log"
REGISTRY = "registry.hearth.test:5000"
TOOLS = ROOT / "lab/recipe_tools"
# The box half, as the job of images calls it; a line of JSON for whatever is told.
_SCRIPT = """
import json, sys
from pathlib import Path
import msgspec
from hearth.errors import HearthError
from hearth.images.build import Build, build

def tell(progress):
    print(json.dumps({"told": progress.line}), flush=True)

wanted = json.loads(sys.argv[1])
try:
    built = build(Build(**wanted), log=Path(f"/var/log/hearth/build-{wanted['name']}.log"), tell=tell)
    print(json.dumps({"built": msgspec.to_builtins(built)}))
except HearthError as error:
    print(json.dumps({"sentence": str(error), "log": error.log}))
"""


@dataclass(frozen=True)
class Outcome:
    """How a build ended: what it made, or the sentence and the lines that say why not."""

    built: dict[str, Any]
    sentence: str
    log: list[str]
    told: list[str]


class Workshop:
    """Builds recipes in a box."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self._folder = folder
        self._tools = self._host = ""
        self._run = secrets.token_hex(4)

    def recipe(self, name: str, dockerfile: str, *, settings: str = "disk_gb = 0.1\n", **files: str) -> _recipes.Recipe:
        """A recipe of this test, FROM the lab's image by its digest. Of an earlier run nothing is in the cache."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        texts = {
            "Dockerfile": f"FROM {self.box.image}\nENV RUN={self._run}\n{dockerfile}",
            "recipe.toml": settings,
            **files,
        }
        for path, text in texts.items():
            (folder / path).write_text(text, encoding="utf-8")
        return _recipes.read(folder)

    def ship(self, recipe: _recipes.Recipe) -> str:
        """Bring its files to the box, as the play does. Returns their folder."""
        folder = f"{RECIPES}/{recipe.name}/{recipe.fingerprint[:12]}"
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, file in recipe.files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(file.content), 0o755 if file.executable else 0o644
                tar.addfile(entry, io.BytesIO(file.content))
        script = f"rm -rf {folder} && mkdir -p {folder} && tar -C {folder} -xf -"
        subprocess.run(
            ["docker", "exec", "-i", self.box.name, "sh", "-c", script],
            input=archive.getvalue(),
            check=True,
            timeout=60,
        )
        return folder

    def _command(self, recipe: _recipes.Recipe, env: dict[str, str]) -> list[str]:
        wanted = {
            "name": recipe.name,
            "ref": recipe.ref,
            "fingerprint": recipe.fingerprint,
            "folder": self.ship(recipe),
        }
        variables = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        python = ["/opt/hearth/venv/bin/python", "-c", _SCRIPT, json.dumps(wanted)]
        return ["docker", "exec", *variables, self.box.name, *python]

    def build(self, recipe: _recipes.Recipe, timeout_s: float = 900, **env: str) -> Outcome:
        """Build it to its end."""
        done = subprocess.run(
            self._command(recipe, env), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return outcome(done.stdout)

    @contextmanager
    def building(self, recipe: _recipes.Recipe, **env: str) -> Iterator[subprocess.Popen[str]]:
        """Begin to build it, and have its process; it is ended if it still runs."""
        with subprocess.Popen(self._command(recipe, env), stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def pid(self) -> int:
        """The process in the box that builds."""
        return int(self.box.out("pgrep -of '[h]earth.images.build import'"))

    def image(self, ref: str) -> dict[str, Any] | None:
        shown = self.box.sh(f"docker image inspect {ref}")
        found: list[dict[str, Any]] = json.loads(shown.stdout or "[]")
        return found[0] if found else None

    def log(self, name: str) -> str:
        return self.box.out(f"cat {LOG.format(name)}")

    def until(self, script: str, timeout_s: float = 60) -> None:
        """Wait until a script in the box succeeds."""
        deadline = time.monotonic() + timeout_s
        while self.box.sh(script).returncode:
            assert time.monotonic() < deadline, script
            time.sleep(0.3)

    def tools(self) -> tuple[str, str]:
        """What recipes find in their base images, but for CUDA and torch: an image in the lab's registry, by digest.

        And the box, as containers in it reach it.
        """
        if not self._tools:
            self._copy(TOOLS, "/srv")
            name = f"{REGISTRY}/recipe-tools:{self.box.name}"
            made = self.box.out(f"/srv/{TOOLS.name}/on_box.sh tools {self.box.image} {name}", timeout_s=900)
            self._tools, self._host = made.splitlines()
        return self._tools, self._host

    def _copy(self, what: Path, where: str) -> None:
        subprocess.run(["docker", "cp", "--quiet", str(what), f"{self.box.name}:{where}"], check=True, timeout=120)

    def stand_in(self, name: str, *, stage: str = "prepared") -> Path:
        """A copy of a recipe of the catalog with the stand-ins of lab/recipe.py, which the box serves."""
        out, served = self._folder / "stand-in" / name, self._folder / "served"
        command = [sys.executable, str(ROOT / "lab/recipe.py"), name, str(out), str(served)]
        base, host = self.tools()
        subprocess.run([*command, "--base", base, "--host", host], check=True, timeout=120)
        self.box.out("rm -rf /srv/served")
        self._copy(served, "/srv/served")
        self.serve()
        settings = out / "recipe.toml"
        settings.write_text(settings.read_text().replace('stage = "prepared"', f'stage = "{stage}"'))
        return out

    def serve(self) -> None:
        """Serve what is in /srv/served."""
        self.tools()
        self.box.out(f"/srv/{TOOLS.name}/on_box.sh serve")


def outcome(text: str) -> Outcome:
    lines = [json.loads(line) for line in text.splitlines()]
    last = lines[-1]
    return Outcome(
        built=last.get("built", {}),
        sentence=last.get("sentence", ""),
        log=last.get("log", []),
        told=[line["told"] for line in lines[:-1]],
    )
