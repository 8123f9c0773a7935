# SPDX-License-Identifier: Apache-2.0
"""What buildx says of a build is understood, and why one failed is told with what to do.

The logs in buildlogs/ are those of buildx 0.13.1 with Docker 26.1.5, as they were recorded (digests are shortened, and
from first.rawjson most of the messages that only say that something is still being unpacked are left out).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hearth.images import mishaps
from hearth.images.buildlog import BuildLog, step_name

RECORDED = Path(__file__).parent / "buildlogs"
# Of the step that fails in patch.rawjson.
PATCH_LINES = ("error: patch failed: a.py:3", "error: a.py: patch does not apply", "working")


def followed(name: str) -> tuple[BuildLog, list[str]]:
    log, lines = BuildLog(), []
    for line in (RECORDED / name).read_text(encoding="utf-8").splitlines():
        lines += log.feed(line)
    return log, lines


def compact(name: str) -> list[str]:
    """The recorded messages as a later buildx writes them: one a line."""
    text = (RECORDED / name).read_text(encoding="utf-8")
    return [json.dumps(json.loads(whole)) for whole in re.findall(r"^\{\n.*?^\}$", text, re.DOTALL | re.MULTILINE)]


class TestWhatBuildxSays:
    def test_steps_are_counted_and_the_log_can_be_read(self) -> None:
        log, lines = followed("first.rawjson")
        assert (log.standing.done, log.standing.steps, log.cached, log.error) == (4, 4, 0, "")
        said = [line.split(" ", 1)[1] for line in lines if re.match(r"#\d+ (hello|err|line)", line)]
        assert said == ["hello-stdout", "line 1", "err", "line 2", "line 3"]

    def test_a_pull_is_told_in_bytes(self) -> None:
        log = BuildLog()
        pulled = []
        for line in (RECORDED / "first.rawjson").read_text(encoding="utf-8").splitlines():
            log.feed(line)
            pulled.append((log.standing.bytes_done, log.standing.bytes_total))
        assert max(pulled) == (72407207, 72407207)
        assert log.standing.bytes_total == 0

    def test_the_step_at_work_and_its_last_words_are_told(self) -> None:
        log = BuildLog()
        seen = set()
        for line in (RECORDED / "first.rawjson").read_text(encoding="utf-8").splitlines():
            log.feed(line)
            seen.add((log.standing.doing, log.standing.said))
        assert ("sources 2/2: RUN echo hello-stdout; echo err >&2; for i in 1 2 3; do ech…", "line 2") in seen

    def test_cached_steps_are_known(self) -> None:
        log, _ = followed("cached.rawjson")
        assert (log.cached, log.standing.steps) == (4, 4)

    @pytest.mark.parametrize("form", ["several lines a message", "one line a message"])
    def test_a_step_that_fails_is_known_with_its_lines(self, form: str) -> None:
        log = BuildLog()
        lines = compact("patch.rawjson") if form.startswith("one") else []
        for line in lines or (RECORDED / "patch.rawjson").read_text(encoding="utf-8").splitlines():
            log.feed(line)
        assert log.failed_step.startswith("sources 2/2: RUN echo working")
        assert log.failed_lines == PATCH_LINES
        assert "exit code: 1" in log.error

    def test_plain_lines_of_an_older_buildx_are_told_as_they_are(self) -> None:
        log, lines = followed("patch.plain")
        assert "#5 0.196 error: a.py: patch does not apply" in [
            line.replace("0.227", "0.196") for line in lines
        ] or any("patch does not apply" in line for line in lines)
        assert "did not complete successfully: exit code: 1" in log.error

    @pytest.mark.parametrize(
        "line", ["{", "}", "{}", '{"vertexes": 3}', "{not json}", '{"logs":[{"vertex":"a","data":"%"}]}']
    )
    def test_what_is_no_message_hurts_nobody(self, line: str) -> None:
        log = BuildLog()
        log.feed(line)
        log.feed("ERROR: failed to solve: it broke")
        log.feed("}")
        log.feed("ERROR: failed to solve: it broke")
        assert log.error == "it broke"

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("[compile 3/5] RUN --mount=type=cache,id=x,target=/y   make\n  all", "compile 3/5: RUN make all"),
            ("[2/3] COPY --from=a /b /c", "image 2/3: COPY /b /c"),
            ("exporting to image", "exporting to image"),
        ],
    )
    def test_a_step_has_a_short_name(self, name: str, said: str) -> None:
        assert step_name(name) == said


NGC = "nvcr.io/nvidia/pytorch@sha256:6a"
UNRESOLVED = f"{NGC}: failed to resolve source metadata for {NGC}: "
HERE = "127.0.0.1:5004"
LOCAL = f"{HERE}/a@sha256:6a: failed to resolve source metadata for {HERE}/a@sha256:6a: "
EXIT = 'process "/bin/sh -c patch does not apply" did not complete successfully: exit code: 1'


class TestWhatWentWrong:
    """Errors are buildx's own words, recorded (5001 and 5004 were registries that want a login)."""

    @pytest.mark.parametrize(
        ("error", "lines", "said"),
        [
            pytest.param(
                EXIT, ["x", "patch: vllm/1.patch does not apply"], "the patch vllm/1.patch of the recipe", id="patch"
            ),
            pytest.param(EXIT, ["error: a.py: patch does not apply"], "the patch of the recipe does not fit", id="git"),
            pytest.param(EXIT, ["make: *** [all] Error 2"], "its last word was: make: *** [all] Error 2", id="other"),
            pytest.param(
                "digest mismatch sha256:58: sha256:44", [], "what was downloaded is not what the recipe", id="checksum"
            ),
            pytest.param(
                EXIT,
                ["ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."],
                "what was downloaded is not what the recipe",
                id="pip",
            ),
            pytest.param(
                f"{UNRESOLVED}failed to authorize: failed to fetch anonymous token: status from GET request "
                "to https://nvcr.io/proxy_auth: 401 Unauthorized",
                [],
                "the registry nvcr.io gives the base image only to whoever is logged in: make an account and a key",
                id="ngc",
            ),
            pytest.param(
                f"{LOCAL}unexpected status from HEAD request to https://{HERE}/v2/a: 401 Unauthorized",
                [],
                "the registry 127.0.0.1:5004 gives the base image only to whoever is logged in: give its user",
                id="login",
            ),
            pytest.param(
                f'{UNRESOLVED}failed to do request: Head "https://nvcr.io/v2/nvidia/pytorch/manifests": dial tcp: '
                "lookup nvcr.io on 127.0.0.11:53: no such host",
                [],
                "the box does not reach nvcr.io: ",
                id="no name",
            ),
            pytest.param(
                f'{LOCAL}failed to do request: Head "https://{HERE}/v2": dial tcp {HERE}: connect: connection refused',
                [],
                "the box does not reach 127.0.0.1: ",
                id="refused",
            ),
            pytest.param(
                EXIT,
                [
                    "fatal: unable to access 'https://github.com/a/b/': Could not resolve host: github.com",
                    "fetch: a: …",
                ],
                "the box does not reach github.com: ",
                id="git without a network",
            ),
            pytest.param(
                EXIT,
                [
                    "Could not fetch URL https://pypi.org/simple/six/: [SSL] certificate verify failed",
                    "ERROR: No matching distribution found for packaging==26.0",
                ],
                "the certificate of pypi.org is not one that is trusted",
                id="proxy",
            ),
            pytest.param(
                f"{LOCAL}127.0.0.1:5004/a@sha256:6a: not found",
                [],
                "the base image 127.0.0.1:5004/a@sha256:6a is not in its registry",
                id="no base image",
            ),
            pytest.param(
                "failed to load cache key: invalid response status 404",
                [],
                "an address of the recipe answers with HTTP 404",
                id="moved",
            ),
            pytest.param(
                EXIT,
                [f"fetch: vllm: https://github.com/a/b.git does not give commit {'ab' * 20}"],
                f"a git server does not give commit {'ab' * 20}",
                id="no commit",
            ),
            pytest.param(
                EXIT, ["head: error writing 'standard output': No space left on device"], "the disk is full", id="disk"
            ),
            pytest.param(EXIT.replace("code: 1", "code: 137"), [], "a process of it was killed", id="killed"),
            pytest.param(
                EXIT,
                [
                    "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
                    "ninja: build stopped: subcommand failed.",
                ],
                "a process of it was killed",
                id="compiler killed",
            ),
            pytest.param(
                EXIT,
                ['expect: vllm/CMakeLists.txt does not say: set(CUTLASS_REVISION "v4.4.2")'],
                "the sources do not go together (vllm/CMakeLists.txt does not say",
                id="sources",
            ),
            pytest.param(
                EXIT, ["met: a.txt asks for x==2: it is 1"], "the recipe's lock file does not go with", id="lock"
            ),
        ],
    )
    def test_the_reason_and_what_to_do_are_told(self, error: str, lines: list[str], said: str) -> None:
        assert mishaps.reason(error, lines).startswith(said)

    def test_a_command_that_only_names_a_mishap_is_none(self) -> None:
        assert mishaps.reason(EXIT, ["it broke"]) == "its last word was: it broke"
