# SPDX-License-Identifier: Apache-2.0
"""docs/adding-a-model.md, done word for word: its file, its commands, its inventory.

Two things of a real Spark are replaced: the model's file is a tiny one under its name, since no hub answers here, and
the image, by the inventory's own means (engines_images), is the lab's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from boxes import ROOT, Box

pytestmark = pytest.mark.thorough

PAGE = (ROOT / "docs/adding-a-model.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of the page in that language, without their indentation."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, kind, text in found if kind == language]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone to work in."""
    folder = tmp_path_factory.mktemp("clone") / "hearth"
    subprocess.run([ROOT / "scripts/copy-tree.sh", folder], check=True, capture_output=True)
    (folder / "collections/ansible_collections/hearth").mkdir(parents=True)
    (folder / "collections/ansible_collections/hearth/spark").symlink_to("../../..")
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.fixture(scope="module")
def followed(box: Box, checkout: Path) -> Iterator[str]:
    """The page, followed from top to bottom on a box; gives what the last command printed."""
    entry, inventory = blocks("yaml")
    commands = [line for block in blocks("") for line in block.splitlines()]
    (file,) = re.findall(r"Write `(catalog/models/\S+\.yml)`", PAGE)
    (folder,) = re.findall(r"on the box: `~/(ai/models/\S+)/`", PAGE)
    (checkout / file).write_text(entry, encoding="utf-8")
    model = yaml.safe_load(entry)
    box.out(
        f"install -d -o spark -g spark /home/spark/{folder} && "
        f"cp -p /home/spark/ai/models/tiny/tiny-a/tiny-a.gguf /home/spark/{folder}/{model['file']}"
    )
    # Beside the box's own models, so that it is a box in use, and with the lab's image under the catalog's name.
    name, _, digest = box.image.partition("@")
    variables = yaml.safe_load(inventory)
    box.write_inventory(
        engines_models={**box.models(), **variables["engines_models"]},
        engines_images={model["image"]: {"ref": name, "digest": digest}},
        # The lab's file stands for the real one.
        models_offline=True,
    )
    printed = [_run(checkout, box, command) for command in commands]
    yield printed[-1]
    box.write_inventory()
    box.ok("site.yml")
    box.ok("switch.yml", "-e", "model=tiny-a")
    box.out(f"rm -r /home/spark/{Path(folder).parent}")


def _run(checkout: Path, box: Box, command: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        "ANSIBLE_INVENTORY": str(box.inventory),
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        command.split(), cwd=checkout, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_the_new_model_serves_under_its_name(followed: str, box: Box) -> None:
    assert box.active() == ["smollm2-360m"]
    assert "start smollm2-360m" in re.sub(r"\s+", " ", followed)


def test_it_is_in_the_table_of_models(followed: str, checkout: Path) -> None:
    assert "smollm2-360m" in (checkout / "docs/models.md").read_text(encoding="utf-8")


def test_a_typo_in_it_is_told_with_file_line_and_what_is_allowed(followed: str, checkout: Path) -> None:
    file = checkout / "catalog/models/smollm2-360m.yml"
    good = file.read_text(encoding="utf-8")
    file.write_text(good.replace("engine: llama.cpp", "engine: lama.cpp"), encoding="utf-8")
    try:
        done = subprocess.run(
            ["scripts/lint.sh", "catalog"], cwd=checkout, capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        file.write_text(good, encoding="utf-8")

    assert done.returncode != 0
    line = good.splitlines().index("engine: llama.cpp") + 1
    assert (
        f"catalog/models/smollm2-360m.yml:{line}: engine: must be one of sglang, vllm, llama.cpp, ollama, is 'lama.cpp'"
        in done.stdout + done.stderr
    )
