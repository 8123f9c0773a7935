# SPDX-License-Identifier: Apache-2.0
"""The command line of every model of the catalog is one that its engine's own parser accepts.

vLLM and SGLang are asked in a virtualenv of their own (scripts/engines-venv.sh), llama.cpp in the lab's image. Where
one of them is missing its tests are skipped; with HEARTH_CONTRACT=1, which `make test-contract` sets, that is an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from ansible_collections.hearth.spark.plugins.lookup import catalog as lookup
from ansible_collections.hearth.spark.plugins.module_utils import _catalog, _engines

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".cache" / "engines" / "venv"
LLAMA_IMAGE = "hearth-lab/llama"


CATALOG = _catalog.check_catalog(**lookup.read())
FORK_FLAGS: Mapping[str, Mapping[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("fork_flags.yml").read_text(encoding="utf-8")
)


def engine_argv(name: str, model: Mapping[str, Any]) -> list[str]:
    """What the model's engine is given on a Spark, without the flags that only a fork knows."""
    own = {flag: value for flag, value in (model["argv"] or {}).items() if flag not in model["fork_flags"]}
    return _engines.argv(
        _engines.Run(name=name, model={**model, "argv": own}, port=30000, total_gib=_catalog.SPARK_GIB, gpu=True)
    )


def models_of(*engines: str) -> list[str]:
    """Those whose engine is one of these. What is known as broken proves nothing by its flags."""
    return [
        name
        for name, model in CATALOG.models.items()
        if model["engine"] in engines and model["status"]["is"] != "broken"
    ]


# What must be refused, with a piece of the reason: else a test that passes would say nothing.
WRONG: dict[str, tuple[str, list[str], str]] = {
    "vllm-unknown-flag": ("vllm", ["/models", "--no-such-flag", "1"], "--no-such-flag is unknown"),
    "vllm-fork-flag": ("vllm", ["/models", "--mxfp4-backend", "CUTLASS"], "--mxfp4-backend is unknown"),
    "vllm-tp": ("vllm", ["/models", "--tp", "1"], "--tp is unknown"),
    "vllm-abbreviation": ("vllm", ["/models", "--max-model", "4096"], "write --max-model-len"),
    "vllm-choice": ("vllm", ["/models", "--kv-cache-dtype", "fp9"], "invalid choice: 'fp9'"),
    "vllm-type": ("vllm", ["/models", "--max-model-len", "much"], "argument --max-model-len: invalid"),
    "vllm-missing-value": ("vllm", ["/models", "--max-model-len"], "argument --max-model-len: expected one argument"),
    "vllm-value-too-many": ("vllm", ["/models", "--enforce-eager", "true"], "unrecognized arguments: true"),
    "vllm-broken-json": ("vllm", ["/models", "--speculative-config", "{no"], "argument --speculative-config"),
    "vllm-draft-method": (
        "vllm",
        ["/models", "--speculative-config", '{"method": "guess", "num_speculative_tokens": 2}'],
        "'guess' is none of",
    ),
    "vllm-tool-parser": (
        "vllm",
        ["/models", "--enable-auto-tool-choice", "--tool-call-parser", "no-such-parser"],
        "argument --tool-call-parser: 'no-such-parser' is none of",
    ),
    "vllm-no-tool-parser": ("vllm", ["/models", "--enable-auto-tool-choice"], "requires --tool-call-parser"),
    "vllm-reasoning-parser": ("vllm", ["/models", "--reasoning-parser", "none-such"], "argument --reasoning-parser"),
    "vllm-quantization": ("vllm", ["/models", "--quantization", "fp3"], "argument --quantization: 'fp3' is none of"),
    "vllm-load-format": ("vllm", ["/models", "--load-format", "slowly"], "argument --load-format: 'slowly' is none of"),
    "vllm-attention": ("vllm", ["/models", "--attention-backend", "FLASHINFERNO"], "--attention-backend"),
    "sglang-unknown-flag": ("sglang", ["--model-path", "/m", "--no-such-flag"], "--no-such-flag is unknown"),
    "sglang-tp": ("sglang", ["--model-path", "/m", "--tp", "1"], "--tp is an abbreviation: write --tp-size"),
    "sglang-choice": ("sglang", ["--model-path", "/m", "--quantization", "fp3"], "invalid choice: 'fp3'"),
    "sglang-type": ("sglang", ["--model-path", "/m", "--tp-size", "one"], "invalid int value: 'one'"),
    "sglang-missing-value": ("sglang", ["--model-path", "/m", "--tp-size"], "expected one argument"),
    "sglang-no-model": ("sglang", ["--port", "30000"], "required: --model-path"),
    "sglang-draft": ("sglang", ["--model-path", "/m", "--speculative-algorithm", "GUESS"], "--speculative-algorithm"),
}
# What is accepted, and what the engine warns about all the same.
OUTDATED: dict[str, tuple[str, list[str], str]] = {
    "vllm-flag": ("vllm", ["/models", "--disable-cascade-attn"], "--disable-cascade-attn is deprecated"),
    "sglang-flag": ("sglang", ["--model-path", "/m", "--disable-cuda-graph"], "--disable-cuda-graph is deprecated"),
    "sglang-value": ("sglang", ["--model-path", "/m", "--tool-call-parser", "qwen25"], "'qwen25' is deprecated"),
}
LLAMA_WRONG: dict[str, tuple[list[str], str]] = {
    "unknown-flag": (["--no-such-flag"], "invalid argument: --no-such-flag"),
    "tp": (["--tp", "1"], "invalid argument: --tp"),
    "choice": (["--flash-attn", "perhaps"], "unknown value for --flash-attn: 'perhaps'"),
    "missing-value": (["--ctx-size"], 'error while handling argument "--ctx-size": expected value'),
}


def missing(what: str) -> NoReturn:
    text = f"{what}; 'make test-contract' brings it"
    if os.environ.get("HEARTH_CONTRACT") == "1":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def fork_words(flag: str, value: Any) -> list[str]:
    return [flag] if value is True else [flag, str(value)]


def questions() -> list[dict[str, Any]]:
    """All that is asked: an engine takes seconds to import, and does so once."""
    asked = [
        {
            "name": f"model {name}",
            "engine": CATALOG.models[name]["engine"],
            "argv": engine_argv(name, CATALOG.models[name]),
        }
        for name in models_of("vllm", "sglang")
    ]
    for group, cases in (("wrong", WRONG), ("outdated", OUTDATED)):
        asked += [{"name": f"{group} {name}", "engine": case[0], "argv": case[1]} for name, case in cases.items()]
    for fork, flags in FORK_FLAGS.items():
        for flag, about in flags.items():
            for value in about.get("values", ["x"]):
                asked.append({"name": f"fork {fork} {flag}", "engine": "vllm", "argv": ["/models", flag, value]})
    return asked


def ask_parsers(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers of one engine's parser, by tests/contract/parse.py in the engines' virtualenv."""
    done = subprocess.run(
        [VENV / "bin" / "python", Path(__file__).with_name("parse.py")],
        input=json.dumps(entries),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"parse.py failed:\n{done.stderr[-4000:]}"
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="session")
def answers() -> dict[str, dict[str, Any]]:
    """Every answer by the name of its question."""
    if not (VENV / ".ready").exists():
        missing("the engines' virtualenv .cache/engines/venv is not there")
    asked = questions()
    parts = [[entry for entry in asked if entry["engine"] == engine] for engine in ("vllm", "sglang")]
    with ThreadPoolExecutor() as pool:
        return {answer["name"]: answer for part in pool.map(ask_parsers, parts) for answer in part}


@pytest.mark.parametrize("name", models_of("vllm", "sglang"))
def test_engine_accepts_argv_of_model(name: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
    answer = answers[f"model {name}"]
    assert answer["accepted"], f"catalog/models/{name}.yml: {answer['engine']} refuses its argv: {answer['reason']}"


@pytest.mark.parametrize("name", models_of("vllm", "sglang"))
def test_model_uses_nothing_outdated(name: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
    answer = answers[f"model {name}"]
    assert not answer["notes"], f"catalog/models/{name}.yml: {answer['engine']} warns: {'; '.join(answer['notes'])}"


@pytest.mark.parametrize("name", WRONG)
def test_wrong_argv_is_refused(name: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
    answer = answers[f"wrong {name}"]
    assert not answer["accepted"]
    assert WRONG[name][2] in answer["reason"]


@pytest.mark.parametrize("name", OUTDATED)
def test_outdated_argv_is_noticed(name: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
    answer = answers[f"outdated {name}"]
    assert answer["accepted"], answer["reason"]
    assert OUTDATED[name][2] in " ".join(answer["notes"])


@pytest.mark.parametrize("name", [name for name, model in CATALOG.models.items() if model["fork_flags"]])
def test_fork_flags_of_model_are_recorded(name: str) -> None:
    model = CATALOG.models[name]
    known = FORK_FLAGS.get(CATALOG.images[model["image"]]["fork"], {})
    for flag in model["fork_flags"]:
        assert flag in known, f"catalog/models/{name}.yml: fork_flags: {flag} is not in tests/contract/fork_flags.yml"
        values = known[flag].get("values")
        value = model["argv"][flag]
        assert values is None or value in values, (
            f"catalog/models/{name}.yml: argv.{flag}: {value} is not among the fork's values: {', '.join(values)}"
        )


def test_every_recorded_fork_flag_has_a_source_and_a_user() -> None:
    used = {
        (CATALOG.images[model["image"]]["fork"], flag)
        for model in CATALOG.models.values()
        for flag in model["fork_flags"]
    }
    assert {(fork, flag) for fork, flags in FORK_FLAGS.items() for flag in flags} == used
    assert all(about["source"] for flags in FORK_FLAGS.values() for about in flags.values())


@pytest.mark.parametrize(("fork", "flag"), [(fork, flag) for fork, flags in FORK_FLAGS.items() for flag in flags])
def test_recorded_fork_flag_is_not_upstream(fork: str, flag: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
    # Once upstream knows it, its parser can be asked like any other.
    assert not answers[f"fork {fork} {flag}"]["accepted"]


@pytest.fixture(scope="session")
def llama_image() -> str:
    found = subprocess.run(["docker", "image", "inspect", LLAMA_IMAGE], capture_output=True, timeout=60, check=False)
    if found.returncode:
        missing(f"the image {LLAMA_IMAGE} is not there, or no Docker engine answers")
    return LLAMA_IMAGE


def ask_llama(image: str, argv: Sequence[str]) -> str:
    """What llama-server says. It parses all of its argv before it looks for the model, and there is none."""
    name = f"hearth-contract-{uuid.uuid4().hex[:12]}"
    command = ["docker", "run", "--rm", "--name", name, "--network", "none", "--label", "hearth.lab=true", image, *argv]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        # It runs on without the client that started it.
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, timeout=60, check=False)
        pytest.fail("llama-server has not ended after 60 s, though it has no model to load")
    assert done.returncode == 1, f"llama-server ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", models_of("llama.cpp"))
def test_llama_server_accepts_argv_of_model(name: str, llama_image: str) -> None:
    model = CATALOG.models[name]
    said = ask_llama(llama_image, engine_argv(name, model))
    refusal = "; ".join(line for line in said.splitlines() if line.startswith("error"))
    assert not refusal, f"catalog/models/{name}.yml: llama-server refuses its argv: {refusal}"
    assert f"failed to open GGUF file '/models/{model['file']}'" in said


@pytest.mark.parametrize("name", LLAMA_WRONG)
def test_llama_server_refuses_wrong_argv(name: str, llama_image: str) -> None:
    argv, reason = LLAMA_WRONG[name]
    said = ask_llama(llama_image, ["--model", "/models/none.gguf", *argv])
    assert reason in said
    assert "failed to open GGUF file" not in said
