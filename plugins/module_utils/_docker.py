# SPDX-License-Identifier: Apache-2.0
"""The ``docker run`` of an engine, and how systemd wants it written. Pure functions, no I/O.

PRIVATE to the collection.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hearth.spark.plugins.module_utils import _downloads, _engines
from ansible_collections.hearth.spark.plugins.module_utils._complete import Model

KEY_FILE = "/etc/hearth/secrets/engine.env"
# Of the container: everything below is the engine's own folder of the box's caches.
CACHE = "/cache"
# Where the images of vLLM and SGLang have CUDA's own assembler. Triton up to 3.5 brings one that does not know sm_121a
# (GB10 platform survey, 2.3); later ones bring a second for Blackwell and do not look at this (triton issue 10331).
_PTXAS = "/usr/local/cuda/bin/ptxas"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where on a host an engine runs: folders, the owner of the tree, the GPU, its limits.

    ``gpu`` is a CDI name (nvidia.com/gpu=all), what ``--gpus`` takes behind gpus= (gpus=all), or none.
    """

    root: str
    uid: int
    gid: int
    user: str
    gpu: str
    ulimits: Sequence[str]


def store_dir(place: Place, name: str, fields: Mapping[str, Any]) -> str:
    """The folder on the box that the engine has as /models: one a model, and for Ollama the store that all share."""
    return _downloads.folder(place.root, name, fields)


def cache_dir(place: Place, fields: Mapping[str, Any]) -> str:
    """The engine's folder of compiled kernels and the like, shared by the models of that engine."""
    return posixpath.join(place.root, "cache", fields["engine"])


def docker_run(contract: Mapping[str, Any], model: Model, argv: Sequence[str], place: Place) -> tuple[str, ...]:
    """The whole command: models read-only, only the cache writable, no way to more rights, loopback only."""
    fields = model.fields
    engine = fields["engine"]
    labels = ["--label", f"hearth.engine={contract['name']}"]
    if model.image.get("source"):
        # Where the image came from, which its name on the box does not say.
        origin = "@".join(filter(None, (model.image["source"], model.image["digest"])))
        labels += ["--label", f"hearth.image={origin}"]
    command = [*_confined(contract["container"], fields, place), *labels]
    if engine in ("vllm", "sglang"):
        # Their processes share tensors through /dev/shm (NVIDIA's playbooks give --ipc host or 16g) and leave children.
        command += ["--init", "--shm-size", "16g"]
    command += _limits(fields)
    command += ["--publish", f"127.0.0.1:{contract['port']}:{contract['port']}"]
    store = store_dir(place, contract["name"], fields)
    command += _mount(store, _engines.MODEL_DIR, write=engine == "ollama")
    command += _mount(cache_dir(place, fields), CACHE, write=True)
    for mount in fields["mounts"]:
        command += _mount(posixpath.join(place.root, mount["source"]), mount["target"], write=mount["write"])
    env = {**_environment(fields, contract["port"], place), **(fields["env"] or {})}
    command += [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
    if engine in ("llama.cpp", "vllm"):
        # SGLang takes a key on its command line only, where everybody could read it, and Ollama knows none.
        command += ["--env-file", KEY_FILE]
    return (*command, *_program(model), *argv)


def probe(model: Model, program: Sequence[str], place: Place, container: str) -> tuple[str, ...]:
    """A short run in the engine's image that only tells something: confined as the engine, and without a network.

    Nothing of the box is mounted, and nothing it writes lasts.
    """
    fields = model.fields
    command = [*_confined(container, fields, place), "--network", "none"]
    command += ["--tmpfs", f"{CACHE}:rw,nosuid,nodev,mode=1777"]
    env = _environment(fields, 0, place)
    command += [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
    return (*command, *_in_image(model, program))


def _confined(container: str, fields: Mapping[str, Any], place: Place) -> list[str]:
    """How every container is run: no way to more rights, nothing of it writable but /tmp, and the GPU."""
    command = ["/usr/bin/docker", "run", "--rm", "--name", container]
    # Bringing images is the role's work: a start never waits for a registry.
    command += ["--pull", "never"]
    # The unit's journal is the one place of the log; attached output does not need a log driver.
    command += ["--log-driver", "none"]
    command += ["--user", f"{place.uid}:{place.gid}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    python = fields["engine"] in ("vllm", "sglang")
    # Kernels that are compiled at run time are loaded from where they were built, which begins in /tmp.
    command += ["--read-only", "--tmpfs", f"/tmp:rw,{'exec,' if python else ''}nosuid,nodev"]  # noqa: S108
    if place.gpu == "none":
        return command
    by_hook = place.gpu.startswith("gpus=")
    command += ["--gpus", place.gpu.removeprefix("gpus=")] if by_hook else ["--device", place.gpu]
    return command + [word for limit in place.ulimits for word in ("--ulimit", limit)]


def _mount(source: str, target: str, *, write: bool) -> list[str]:
    return ["--mount", f"type=bind,source={source},target={target}" + ("" if write else ",readonly")]


def _limits(fields: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    limits = fields["limits"]
    if limits["cpus"]:
        words += ["--cpus", f"{limits['cpus']:g}"]
    if limits["memory_gib"]:
        bound = f"{math.ceil(limits['memory_gib'] * 1024)}m"
        # Without the second, docker allows as much swap again.
        words += ["--memory", bound, "--memory-swap", bound]
    return words


def _environment(fields: Mapping[str, Any], port: int, place: Place) -> dict[str, str]:
    """What every engine of that kind needs; a model's own ``env`` wins."""
    env = {"HOME": CACHE, "XDG_CACHE_HOME": CACHE}
    engine = fields["engine"]
    if engine in ("vllm", "sglang"):
        env |= {
            # The image knows no user of that id, and Python then asks the environment for a name.
            "USER": place.user,
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "DO_NOT_TRACK": "1",
            # Else below /tmp, and compiled anew at each start.
            "TORCHINDUCTOR_CACHE_DIR": f"{CACHE}/inductor",
            "TRITON_CACHE_DIR": f"{CACHE}/triton",
        }
        if place.gpu != "none":
            env["TRITON_PTXAS_PATH"] = _PTXAS
        elif engine == "vllm":
            # In whole GiB (vllm/envs.py); on a processor it is what --gpu-memory-utilization is on a GPU.
            env["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, math.ceil(fields["memory_gib"]["kv_cache"])))
    if engine == "ollama":
        env |= {
            "OLLAMA_HOST": f"0.0.0.0:{port}",
            "OLLAMA_MODELS": _engines.MODEL_DIR,
            "OLLAMA_CONTEXT_LENGTH": str(fields["context"]["practical"]),
            # The unit's life is the model's life: what is loaded stays until the unit is stopped.
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_NUM_PARALLEL": "1",
            # Else it gives up by itself on a load that stands still for five minutes (its envconfig).
            "OLLAMA_LOAD_TIMEOUT": str(fields["start_timeout"]),
            # Else each start deletes what another engine has half fetched into the store (its server/routes.go).
            "OLLAMA_NOPRUNE": "1",
            "OLLAMA_NO_CLOUD": "1",
        }
    return env


def _program(model: Model) -> list[str]:
    """The image and what comes before the engine's arguments."""
    programs = {"vllm": ["vllm", "serve"], "sglang": ["python3", "-m", "sglang.launch_server"]}
    return _in_image(model, programs.get(model.fields["engine"], []))


def _in_image(model: Model, program: Sequence[str]) -> list[str]:
    """The image with a program to run, or with words for its own where that is the engine."""
    reference = model.image["ref"]
    if not program or model.fields["engine"] not in ("vllm", "sglang") or model.image["keep_entrypoint"]:
        return [reference, *program]
    return ["--entrypoint", program[0], reference, *program[1:]]


def systemd_command(argv: Sequence[str]) -> str:
    """An ExecStart= value, an option a line; quoted as systemd.service(5), "COMMAND LINES", wants it."""
    words = [_systemd_word(word) for word in argv]
    lines: list[str] = []
    for word in words:
        if lines and not word.startswith("-") and lines[-1].startswith("--") and " " not in lines[-1]:
            lines[-1] += f" {word}"
        elif not lines or word.startswith("-") or lines[-1].startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n    ".join(lines)


def _systemd_word(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    if escaped and re.fullmatch(r"[A-Za-z0-9_@%+=:,./$-]+", escaped):
        return escaped
    return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t") + '"'
