#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The catalog's workshop: check it with file and line, and write what is derived from it.

catalog.py check    every file against the fields; the first mistake of each file, with its line
catalog.py write    catalog/*.schema.json and docs/models.md
catalog.py stale    fails when what `write` would write is not what is there
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _fields, _recipes  # noqa: E402

Document = dict[str, Any]


def _read() -> tuple[dict[str, Document], dict[str, Document], list[str]]:
    documents: dict[str, dict[str, Document]] = {"models": {}, "images": {}}
    mistakes = []
    for kind, entries in documents.items():
        for path in sorted((ROOT / "catalog" / kind).glob("*.yml")):
            try:
                entries[path.stem] = yaml.safe_load(path.read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                mistakes.append(f"catalog/{kind}/{path.name}: {' '.join(str(error).split())}")
    return documents["models"], documents["images"], mistakes


def _read_recipes() -> tuple[dict[str, str], list[str]]:
    """What each recipe of the catalog makes."""
    made, mistakes = {}, []
    for path in sorted(_recipes.FOLDER.glob("*/Dockerfile")):
        try:
            made[path.parent.name] = _recipes.read(path.parent).ref
        except _recipes.RecipeError as error:
            mistakes.append(str(error).removeprefix(f"{ROOT}/"))
    return made, mistakes


def _line(file: Path, keys: tuple[str, ...]) -> int:
    """The line of the value that the keys lead to, or of the last one that is there."""
    node = yaml.compose(file.read_text(encoding="utf-8"))
    line = 1
    for key in keys:
        found = None
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == key:
                    line, found = name.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            found = node.value[int(key)]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line


def _place(error: _fields.FieldError) -> str:
    file = ROOT / "catalog" / error.path[0]
    sentence = str(error).removeprefix(".".join(error.path) + ": ")
    return f"catalog/{error.path[0]}:{_line(file, error.path[1:])}: {'.'.join(error.path[1:])}: {sentence}"


def check() -> list[str]:
    """The mistakes, a line each."""
    models, images, mistakes = _read()
    recipes, more = _read_recipes()
    mistakes += more
    good: dict[str, dict[str, Document]] = {"models": {}, "images": {}}
    for kind, table, entries in (("models", _fields.MODEL, models), ("images", _fields.IMAGE, images)):
        for name, data in entries.items():
            try:
                _fields.check(table, data, (f"{kind}/{name}.yml",))
            except _fields.FieldError as error:
                mistakes.append(_place(error))
            else:
                good[kind][name] = data
    try:
        _catalog.check_catalog(**good, recipes=recipes)
    except _fields.FieldError as error:
        mistakes.append(_place(error))
    return mistakes


def derived() -> dict[str, str]:
    """The text of every derived file, by its path."""
    models, images, _ = _read()
    catalog = _catalog.check_catalog(models, images, _read_recipes()[0])
    schemas = {"model": (_fields.MODEL, "A model of the catalog"), "image": (_fields.IMAGE, "An image of the catalog")}
    texts = {
        f"catalog/{name}.schema.json": json.dumps(_fields.json_schema(table, title), indent=2) + "\n"
        for name, (table, title) in schemas.items()
    }
    texts["docs/models.md"] = _page(catalog)
    return texts


def _page(catalog: _catalog.Catalog) -> str:
    ready = {name: model for name, model in catalog.models.items() if model["status"]["is"] != "broken"}
    broken = {name: model for name, model in catalog.models.items() if model["status"]["is"] == "broken"}
    lines = [
        "<!-- Written by scripts/catalog.py from catalog/; do not edit. -->",
        "# Models",
        "",
        f"{len(catalog.models)} models, {len(ready)} of them to run. Sizes in GB, needs in GiB; ~ marks an estimate.",
        f"A 128 GB Spark has {_catalog.SPARK_GIB:g} GiB, of which 10 stay free.",
        "",
        "## Which one for what",
        "",
        "| for | take | needs | context |",
        "|---|---|---|---|",
    ]
    for name, model in sorted(ready.items(), key=lambda item: (item[1]["nodes"], _rank(item[1]), item[0])):
        lines += [
            f"| {_cell(use)} | `{name}` | {_need(model)} | {model['context']['practical']} |"
            for use in model["good_for"]
        ]
    lines += ["", "## All of them", "", _HEAD, "|---|---|---|---|---|---|---|---|"]
    lines += [_row(name, model) for name, model in sorted(ready.items())]
    lines += ["", "## Known not to work", "", "| model | why |", "|---|---|"]
    lines += [f"| `{name}` | {_cell(model['status']['reason'])} |" for name, model in sorted(broken.items())]
    lines += ["", "## What to look out for", ""]
    for name, model in sorted(ready.items()):
        if model["caveats"]:
            lines += [f"**{name}**", "", *(f"- {caveat}" for caveat in model["caveats"]), ""]
    return "\n".join(lines).rstrip() + "\n"


_HEAD = "| model | engine | size | needs | context | tok/s | can | status |"


def _rank(model: Mapping[str, Any]) -> int:
    return _fields.STATUSES.index(model["status"]["is"])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _about(estimated: bool, text: str) -> str:
    return f"~{text}" if estimated else text


def _need(model: Mapping[str, Any]) -> str:
    need = _about(model["memory_estimated"], f"{_catalog.need_gib(model):.0f} GiB")
    return need if model["nodes"] == 1 else f"{need} on {model['nodes']} Sparks"


def _row(name: str, model: Mapping[str, Any]) -> str:
    aliases = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
    size = _about(model["disk_estimated"], f"{model['disk_gb']:.1f}") if model["disk_gb"] else ""
    cells = (
        f"`{name}`{aliases}",
        model["engine"],
        size,
        _need(model),
        str(model["context"]["practical"]),
        model["decode_tps"] or "",
        ", ".join(model["capabilities"]),
        model["status"]["is"],
    )
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def main() -> int:
    """Run one verb; returns its exit code."""
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    mistakes = check()
    if verb in ("write", "stale") and not mistakes:
        for name, text in derived().items():
            path = ROOT / name
            if verb == "write":
                path.write_text(text, encoding="utf-8")
            elif not path.exists() or path.read_text(encoding="utf-8") != text:
                mistakes.append(f"{name} is stale: run 'make catalog'")
    elif verb not in ("check", "write", "stale"):
        mistakes = ["catalog.py knows the verbs check, write and stale"]
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
