# SPDX-License-Identifier: Apache-2.0
"""The metadata of the collection agrees with itself and with the files."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.hearth.spark.plugins.doc_fragments.attributes import ModuleDocFragment

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())
MODULES = sorted(path for path in (ROOT / "plugins" / "modules").glob("*.py") if path.name != "__init__.py")
SANITY_IGNORES = sorted((ROOT / "tests" / "sanity").glob("ignore-*.txt"))


def load(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def main_spec(role: str) -> dict[str, Any]:
    spec: dict[str, Any] = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]
    return spec


def defaults(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    return (load(path) or {}) if path.exists() else {}


def assigned_string(module: Path, name: str) -> str | None:
    """The literal that the module assigns to ``name`` at its top level."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if name in names and isinstance(node.value.value, str):
                return node.value.value
    return None


def test_versions_agree() -> None:
    version = load("galaxy.yml")["version"]
    package = assigned_string(ROOT / "src" / "hearth" / "__init__.py", "__version__")

    assert package == version, "galaxy.yml and src/hearth/__init__.py name different versions"


def test_requirements_are_the_dependencies() -> None:
    wanted = load("galaxy.yml")["dependencies"]
    offered = {row["name"]: row["version"] for row in load("requirements.yml")["collections"]}

    assert offered == wanted


def test_action_group_lists_every_module() -> None:
    listed = load("meta/runtime.yml")["action_groups"]["spark"]

    assert listed == sorted(listed)
    assert set(listed) == {path.stem for path in MODULES}


def test_there_are_roles_and_modules() -> None:
    assert ROLES
    assert MODULES


@pytest.mark.parametrize("role", ROLES)
def test_role_has_argument_specs(role: str) -> None:
    spec = main_spec(role)

    assert spec.get("short_description")
    assert spec.get("description"), "antsibull-docs wants a description of the entry point"
    for name, option in spec.get("options", {}).items():
        assert option.get("description"), f"{name} has no description"
        assert option.get("type"), f"{name} has no type"


@pytest.mark.parametrize("role", ROLES)
def test_role_options_are_its_defaults(role: str) -> None:
    options = main_spec(role).get("options", {})
    # What the user must give has no default.
    expected = {name for name, option in options.items() if not option.get("required")}

    assert set(defaults(role)) == expected


@pytest.mark.parametrize("role", ROLES)
def test_role_defaults_have_the_documented_values(role: str) -> None:
    values = defaults(role)
    documented = {
        name: option["default"] for name, option in main_spec(role).get("options", {}).items() if "default" in option
    }

    assert {name: values.get(name) for name in documented} == documented


@pytest.mark.parametrize("role", ROLES)
def test_role_variables_carry_its_name(role: str) -> None:
    strangers = [name for name in defaults(role) if not name.startswith(f"{role}_")]
    path = ROOT / "roles" / role / "vars" / "main.yml"
    internal = (load(path) or {}) if path.exists() else {}
    strangers += [name for name in internal if not name.startswith(f"__{role}_")]

    assert strangers == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
@pytest.mark.parametrize("part", ["DOCUMENTATION", "EXAMPLES", "RETURN"])
def test_module_is_documented(module: Path, part: str) -> None:
    text = assigned_string(module, part)

    assert text, f"{module.name} has no {part}"
    assert yaml.safe_load(text), f"{part} of {module.name} is empty"


def attributes(documentation: dict[str, Any]) -> set[str]:
    """What a module says of itself, with what it takes from the fragments."""
    found = set(documentation.get("attributes", {}))
    for name in documentation.get("extends_documentation_fragment", []):
        part = name.removeprefix("hearth.spark.attributes").lstrip(".").upper() or "DOCUMENTATION"
        found |= set(yaml.safe_load(getattr(ModuleDocFragment, part))["attributes"])
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_documents_its_attributes(module: Path) -> None:
    documentation = yaml.safe_load(assigned_string(module, "DOCUMENTATION") or "")

    assert documentation["module"] == module.stem
    assert {"check_mode", "diff_mode"} <= attributes(documentation)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
@pytest.mark.parametrize("ignores", SANITY_IGNORES, ids=lambda path: path.stem)
def test_sanity_expects_the_licence(module: Path, ignores: Path) -> None:
    entry = f"plugins/modules/{module.name} validate-modules:missing-gplv3-license"

    assert entry in ignores.read_text(encoding="utf-8"), f"add to {ignores.name}: {entry}"


@pytest.mark.parametrize("ignores", SANITY_IGNORES, ids=lambda path: path.stem)
def test_sanity_ignores_only_what_exists(ignores: Path) -> None:
    lines = ignores.read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if not (ROOT / line.split()[0]).is_file()] == []
    assert [line for line in lines if " # " not in line] == [], "each entry says why"


def test_the_link_resolves_to_the_root() -> None:
    link = ROOT / "collections" / "ansible_collections" / "hearth" / "spark"

    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT


def test_the_box_pins_are_the_controllers() -> None:
    """The package is tested on the controller with the very versions that run on the box."""
    controller = pins(ROOT / "requirements" / "dev.txt")
    box = pins(ROOT / "roles" / "runtime" / "files" / "requirements.txt")

    assert box
    assert {name: version for name, version in box.items() if controller.get(name) != version} == {}


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ ;\\]+)", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "lock", ["requirements/dev.txt", "requirements/uv.txt", "roles/runtime/files/requirements.txt"]
)
def test_every_pin_has_a_hash_and_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=[a-z0-9-]+==)", text)[1:]

    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not re.search(r"--(find-links|index-url|extra-index-url)|file:", text)


def options_of(*types: str) -> list[str]:
    """Names of all public variables of such a type."""
    specs = [load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"] for role in ROLES]
    rows = [row for spec in specs for entry in spec.values() for row in (entry.get("options") or {}).items()]
    return sorted({name for name, option in rows if option.get("type") in types})


EXPRESSION = re.compile(r"\{[{%](.*?)[}%]\}|^ *(?:- |that: |when: )([^{\n]*)$", flags=re.MULTILINE | re.DOTALL)
WORDS = [
    *((name, "bool") for name in options_of("bool")),
    *((name, "int|float") for name in options_of("int", "float")),
]


def expressions_with(name: str) -> list[str]:
    """What roles and playbooks reckon with a variable. Modules make of a bare argument what it is, and so do people."""
    found = []
    files = [path for folder in ("roles", "playbooks") for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    for path in files:
        if path.parent.name in ("tasks", "vars", "templates", "handlers", "playbooks"):
            text = re.sub(r"^ *#.*$|'[^'\n]*'", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            # In vars, what is bare may become a member of anything.
            bare = rf'(?<!"){{{{ {name} }}}}' if path.parent.name == "vars" else rf"{{{{ {name} }}}}"
            code = ("".join(parts) for parts in EXPRESSION.findall(re.sub(bare, "", text)))
            found += [
                f"{path.relative_to(ROOT)}: {' '.join(one.split())}" for one in code if re.search(rf"\b{name}\b", one)
            ]
    return found


@pytest.mark.parametrize(("name", "types"), WORDS, ids=[name for name, _ in WORDS])
def test_a_variable_that_comes_as_a_word_means_what_it_says(name: str, types: str) -> None:
    """-e name=false and lines of an INI inventory are words: "false" is as good as true, "5" * 1000 is long."""
    converted = rf"\b{name}\b\s*(?:\|\s*default\([^)]*\)\s*)?\|\s*(?:{types}|string)\b"

    assert [one for one in expressions_with(name) if re.search(rf"\b{name}\b", re.sub(converted, "", one))] == []
