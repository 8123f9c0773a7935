# SPDX-License-Identifier: Apache-2.0
"""hearth.images.smoke: an image tells its version and its flags; what its engines are run with must be among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.images import smoke
from hearth.images.book import Smoke
from hearth.images.errors import ImageError
from hearth.images.progress import Progress
from hearth.images.request import User, Want

# As llama-server 0.7, vLLM 0.32 (argparse) and SGLang write them.
LLAMA = """
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use
--mlock                                 force system to keep model in RAM
--mmap, --no-mmap                       whether to memory-map model
-ngl,  --gpu-layers, --n-gpu-layers N   number of layers to store in VRAM
"""
VLLM = """
  --served-model-name SERVED_MODEL_NAME [SERVED_MODEL_NAME ...]
  --enable-prefix-caching, --no-enable-prefix-caching
  --compilation-config COMPILATION_CONFIG, -O COMPILATION_CONFIG
                        ... as in `--compilation-config.mode=3` or `--compilation-config '{...}'`
  --tensor-parallel-size TENSOR_PARALLEL_SIZE, -tp
"""
FILLER = "\n".join(f"  --filler-{number} X" for number in range(smoke._FEWEST))
MANY = tuple(f"--filler-{number}" for number in range(smoke._FEWEST))


def flags(text: str) -> tuple[str, ...]:
    return smoke.flags_of(text + FILLER)


class TestFlags:
    @pytest.mark.parametrize("flag", ["--ctx-size", "--flash-attn", "--no-mmap", "--mmap", "--gpu-layers", "--mlock"])
    def test_all_of_a_line_are_read(self, flag: str) -> None:
        assert smoke.unknown([flag], flags(LLAMA)) == []

    @pytest.mark.parametrize(
        "flag",
        [
            "--served-model-name",
            "--served_model_name",
            "--no-enable-prefix-caching",
            "--compilation-config.mode",
            "--compilation-config=3",
            "--tensor-parallel",
        ],
    )
    def test_a_flag_may_be_written_as_the_parser_takes_it(self, flag: str) -> None:
        assert smoke.unknown([flag], flags(VLLM)) == []

    @pytest.mark.parametrize("flag", ["--ctx-sizes", "--flash", "--moe-backend", "--f"])
    def test_others_are_not_known(self, flag: str) -> None:
        known = flags(LLAMA.replace("--flash-attn", "--flash-attn, --flash-decoding"))

        assert smoke.unknown(["--mlock", flag], known) == [flag]

    def test_the_opposite_of_a_switch_is_known_with_it(self) -> None:
        assert smoke.unknown(["--no-mlock"], flags(LLAMA)) == []

    def test_a_help_that_is_no_list_of_flags_says_nothing(self) -> None:
        assert smoke.flags_of("usage: serve [--help] GROUP") == ()
        assert smoke.unknown(["--anything"], ()) == []

    def test_dashes_in_a_text_are_no_flags(self) -> None:
        assert "--" not in flags("a -- b --- c")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("version: 5123 (a1b2c3)\nbuilt with cc (Debian 14.2.0) 14.2.0 for x86_64", "5123"),
        ("Warning: could not connect to a running Ollama instance\nWarning: client version is 0.35.1", "0.35.1"),
        ("INFO 11-28 04:36:46 [__init__.py:241] Automatically detected platform cuda.\n0.32.0", "0.32.0"),
        ("0.5.21.post1\n", "0.5.21.post1"),
        ("hello", ""),
    ],
)
def test_a_version_is_found_in_what_an_engine_says(said: str, version: str) -> None:
    assert smoke.version_of(said) == version


class Image:
    """An image that is a shell script; ``docker`` is a script that runs it and writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.docker = folder / "docker"
        self.script = folder / "image"
        self.docker.write_text(
            f'#!/bin/sh\necho "$@" >>{self.calls}\n[ "$1" = rm ] && exit 0\nshift 4\nexec /bin/sh {self.script} "$@"\n'
        )
        self.docker.chmod(0o755)
        self.does("echo 1.2.3", f"cat <<'END'\n{LLAMA}{FILLER}\nEND")

    def does(self, version: str, help_text: str) -> None:
        cases = f"case $1 in --version) {version} ;; --help) {help_text}\n ;; --more) echo {FILLER!r} ;; esac"
        self.script.write_text(cases.replace("\\n", "\n"))

    def want(self, *names: str, helps: tuple[str, ...] = ("--help",)) -> Want:
        run = (str(self.docker), "run", "--name", "hearth-smoke", smoke.IMAGE)
        return Want(
            name="x",
            source="registry.example/engine:1",
            engine="llama.cpp",
            users=tuple(User(name=name, flags=("--mlock", "--ctx-size")) for name in names),
            version=(*run, "--version"),
            help=tuple((*run, one) for one in helps),
        )


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def refused(want: Want) -> str:
    with pytest.raises(ImageError) as caught:
        smoke.try_out(want, "x", lambda _: None)
    return str(caught.value)


class TestTrial:
    def test_it_tells_version_and_flags(self, image: Image) -> None:
        told: list[Progress] = []

        found = smoke.try_out(image.want("scout"), "localhost/hearth/x:1", told.append)

        assert found.version == "1.2.3"
        assert {"--ctx-size", "--no-mmap"} <= set(found.flags)
        assert [one.line for one in told] == ["trying it out, its version", "trying it out, its flags"]

    def test_its_name_stands_where_the_command_left_it_open(self, image: Image) -> None:
        smoke.try_out(image.want(), "localhost/hearth/x:1", lambda _: None)

        assert "run --name hearth-smoke localhost/hearth/x:1 --version" in image.calls.read_text().splitlines()

    def test_a_container_that_a_killed_trial_left_is_removed_first_and_none_is_left(self, image: Image) -> None:
        smoke.try_out(image.want(), "x", lambda _: None)

        calls = image.calls.read_text().splitlines()
        assert calls[0] == calls[-1] == "rm --force hearth-smoke"

    def test_an_image_that_does_not_run_may_not_serve(self, image: Image) -> None:
        image.does("echo Loading; echo libcuda.so.1: cannot open shared object file; exit 127", "true")

        said = refused(image.want())

        assert "does not run on this box (libcuda.so.1: cannot open shared object file), so it may not serve" in said

    def test_one_that_does_not_end_is_ended(self, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
        image.does("exec sleep 60", "true")
        monkeypatch.setattr(smoke, "_RUN_S", 0.2)

        assert "did not tell its version and flags within 0.2 s" in refused(image.want())
        assert image.calls.read_text().splitlines()[-1] == "rm --force hearth-smoke"

    def test_an_older_engine_is_asked_in_another_way(self, image: Image) -> None:
        image.does("echo 1.2.3", "echo no such option; exit 2")

        found = smoke.try_out(image.want(helps=("--help", "--more")), "x", lambda _: None)

        assert len(found.flags) >= smoke._FEWEST

    def test_one_that_tells_no_flags_takes_them_all(self, image: Image) -> None:
        image.does("echo 1.2.3", "echo no such option; exit 2")

        found = smoke.try_out(image.want("scout"), "x", lambda _: None)

        assert found.flags == ()
        smoke.assert_flags(image.want("scout"), found)

    def test_no_docker_is_told(self, image: Image) -> None:
        image.docker.unlink()

        assert "cannot be run" in refused(image.want())


def test_an_unknown_flag_is_told_with_its_model_and_what_to_do() -> None:
    want = Want(
        name="x",
        source="registry.example/vllm:1",
        engine="vllm",
        users=(User(name="scout", flags=("--filler-1",)), User(name="qwen", flags=("--moe-backend",))),
    )

    with pytest.raises(ImageError) as caught:
        smoke.assert_flags(want, Smoke(at="", version="0.28.0", flags=MANY))

    assert str(caught.value) == (
        "registry.example/vllm:1 (vllm 0.28.0) knows no flag --moe-backend, which qwen is run with: leave it out "
        '(engines_models.qwen.argv: {"--moe-backend": false}), or name another image'
    )
