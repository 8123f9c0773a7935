# SPDX-License-Identifier: Apache-2.0
"""Ships the recipes that the box is to build from, and shows how the work goes on."""

from __future__ import annotations

import base64
from typing import Any

from ansible.errors import AnsibleActionFail

from ansible_collections.hearth.spark.plugins.module_utils import _recipes
from ansible_collections.hearth.spark.plugins.plugin_utils._turns import Turns


class ActionModule(Turns):
    """See the module's documentation."""

    MODULE = "hearth.spark.images"
    WORK = "work on images"
    LOOK = "journalctl -u 'hearth-images-*'"
    TURN_S = 30.0
    REWRITE_S = 2.0

    def _module(
        self, arguments: dict[str, Any], task_vars: dict[str, Any], *, wrap_async: bool = False
    ) -> dict[str, Any]:
        sent = dict(arguments)
        base = str(sent.pop("recipes", None) or "")
        recipes = {} if sent.get("attach") else _read(sent.get("images") or [], base)
        if recipes:
            sent["images"] = [_with_fingerprint(image, recipes) for image in sent["images"]]
        answer = super()._module(sent, task_vars, wrap_async=wrap_async)
        lacking = answer.get("lacking")
        if not lacking:
            return answer
        # They are sent only where the box has not got them: mostly it has.
        sent["contexts"] = [_shipped(recipes[build]) for build in lacking]
        return super()._module(sent, task_vars, wrap_async=wrap_async)


def _read(images: list[Any], base: str) -> dict[str, _recipes.Recipe]:
    """The recipes that images are built from, by their field ``build``."""
    builds = {image["build"] for image in images if isinstance(image, dict) and image.get("build")}
    try:
        return {build: _recipes.read(_recipes.folder(build, base)) for build in sorted(builds)}
    except _recipes.RecipeError as error:
        raise AnsibleActionFail(str(error)) from error


def _with_fingerprint(image: Any, recipes: dict[str, _recipes.Recipe]) -> Any:
    recipe = recipes.get(image.get("build") or "") if isinstance(image, dict) else None
    return image if recipe is None else {**image, "recipe": recipe.name, "fingerprint": recipe.fingerprint}


def _shipped(recipe: _recipes.Recipe) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint,
        "files": {
            path: {"content": base64.b64encode(file.content).decode(), "executable": file.executable}
            for path, file in recipe.files.items()
        },
    }
