# SPDX-License-Identifier: Apache-2.0
"""A box with engines of a Spark's size that misbehave on demand, and the proof that they were never too many at once.

The engines are the lab's: a real llama-server behind ``lab/moody/llama-server``. Their sizes are played:
``lab/meter.py`` writes down which are alive, and a meminfo in which they have what they say they need.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from boxes import ROOT, Box

MODELS = "/home/spark/ai/models/moody"
MEASURED = "/var/lib/hearth/measured.json"
FOLDER = "/var/lib/hearth-lab"
MEMINFO = "/run/hearth-lab/meminfo"
TOTAL_GIB, BASE_GIB, FLOOR_GIB = 119.0, 4.0, 10.0
# Two looks of the meter, and more.
LOOKS_S = 0.1
# What may be alive at once, in GiB: what the host has, but its own part and the floor.
BUDGET_GIB = TOTAL_GIB - BASE_GIB - FLOOR_GIB
# Two of the main lane that fit side by side with the utility (big and small), and two that do not (big and other).
NEEDS = {"big": 60.0, "other": 50.0, "small": 30.0, "helper": 8.0}

_METER = f"""[Unit]
Description=The lab's meter
Before=docker.service
[Service]
Type=notify
ExecStart=/usr/bin/python3 {FOLDER}/meter.py {FOLDER} {MEMINFO}
Restart=always
[Install]
WantedBy=multi-user.target
"""
_ENVIRONMENT = f"[Manager]\nDefaultEnvironment=HEARTH_MEMINFO={MEMINFO}\n"
_MAKE = f"""
mkdir -p {FOLDER} /etc/systemd/system.conf.d
cat >/etc/systemd/system/hearth-lab-meter.service <<'END'
{_METER}END
cat >/etc/systemd/system.conf.d/hearth-lab.conf <<'END'
{_ENVIRONMENT}END
for name in {" ".join(NEEDS)}; do
  mkdir -p {MODELS}/$name && cp /home/spark/ai/models/tiny/tiny-a/tiny-a.gguf {MODELS}/$name/tiny.gguf
done
chown -R spark:spark {MODELS}
"""
_SIZE = f"""
import json, pathlib
path = pathlib.Path("/etc/hearth/engines.json")
contract = json.loads(path.read_text())
needs = json.loads('{json.dumps(NEEDS)}')
for engine in contract["engines"]:
    engine["memory_gib"] = needs[engine["name"]]
contract["floor_gib"] = {FLOOR_GIB}
path.write_text(json.dumps(contract))
"""
_REMOVE = f"""
systemctl disable --now hearth-lab-meter
docker rmi {{image}}
rm -rf /etc/systemd/system/hearth-lab-meter.service /etc/systemd/system.conf.d/hearth-lab.conf {FOLDER} {MODELS}
rm -f {MEASURED}
systemctl daemon-reload
"""


def _playing(settings: dict[str, float]) -> str:
    """A shell command that tells the meter what to play."""
    said = json.dumps({"total": TOTAL_GIB, "base": BASE_GIB, **settings})
    return f"echo '{said}' >{FOLDER}/meter.new && mv {FOLDER}/meter.new {FOLDER}/meter.json"


@dataclass
class Record:
    """What was alive from one moment to another, by name with GiB; and the longest time nobody looked."""

    alive: list[dict[str, float]] = field(default_factory=list)
    gap_s: float = 0.0

    def assert_never_over_budget(self) -> None:
        assert self.alive, "the meter wrote nothing"
        assert self.gap_s < 5, f"nobody looked for {self.gap_s} s"
        worst = max(self.alive, key=lambda names: sum(names.values()))
        assert sum(worst.values()) <= BUDGET_GIB, f"{worst} were alive at once, of {BUDGET_GIB} GiB: {self.alive}"


class Stage:
    """A box with the engines of NEEDS: "big" starts at boot and runs, with the utility "helper"."""

    # Of "other" alone, so that it can be missed.
    own_image = "hearth.test/other:1"

    def __init__(self, box: Box) -> None:
        self.box = box

    def models(self) -> dict[str, dict[str, Any]]:
        """The engines as an inventory says them: small enough for any machine, sized afterwards."""
        common = {
            "engine": "llama.cpp",
            "image": self.box.image,
            "family": "moody",
            "file": "tiny.gguf",
            "context": 512,
            "memory_gib": 0.1,
            "start_timeout": 60,
            "stop_timeout": 3,
            # An answer of any length, so that one can be under way for as long as a test wants.
            # By one thread: two wait for each other, which takes ages where the machine has other work.
            "argv": {"--context-shift": True, "--threads": 1},
            "mounts": [
                {"source": f"{FOLDER}/llama-server", "target": "/usr/bin/llama-server"},
                {"source": f"{FOLDER}/real-llama-server", "target": "/usr/local/bin/llama-server"},
            ],
        }
        return {
            "big": {**common, "start": "boot"},
            "other": {**common, "start_timeout": 6, "image": self.own_image},
            "small": common,
            "helper": {**common, "lane": "utility", "start": "boot"},
        }

    def set_up(self) -> None:
        """Make it so. What ran before is stopped."""
        self.box.out(_MAKE)
        for source in ("meter.py", "killer.py", "moody/llama-server"):
            self._copy(ROOT / "lab" / source)
        # The real one, out of the image: the moody one is mounted in its place.
        self.box.out(
            f"docker tag {self.box.local_image} {self.own_image}; "
            f"docker create --name lab-donor {self.box.local_image} >/dev/null && "
            f"docker cp -q lab-donor:/usr/bin/llama-server {FOLDER}/real-llama-server; docker rm -f lab-donor"
        )
        self.box.write_inventory(engines_models=self.models(), ansible_docker_extra_env={"HEARTH_MEMINFO": MEMINFO})
        self.box.out("systemctl daemon-reload && systemctl enable --now hearth-lab-meter")
        self.box.ok("site.yml", "--tags", "engines")
        self.box.out(f"/opt/hearth/venv/bin/python - <<'END'\n{_SIZE}\nEND\nrm -f {MEASURED}")

    def tear_down(self) -> None:
        """Leave the box as it was found."""
        self.reset(work=False)
        self.box.write_inventory()
        self.box.out(_REMOVE.format(image=f"{self.own_image} {self.image_of('other')}"))
        self.box.ok("site.yml", "--tags", "engines,gateway")

    def image_of(self, engine: str) -> str:
        """What an engine's unit runs from."""
        engines = json.loads(self.box.out("cat /etc/hearth/engines.json"))["engines"]
        found: str = next(one["image"] for one in engines if one["name"] == engine)
        return found

    def _copy(self, source: Path) -> None:
        target = f"{self.box.name}:{FOLDER}/{source.name}"
        subprocess.run(["docker", "cp", str(source), target], check=True, capture_output=True)

    def reset(self, *, work: bool = True) -> None:
        """Good moods and good memory, nothing measured, and big and helper run, whatever a test did."""
        # What was measured while memory was played strangely would hold for the tests behind it.
        forget = f"rm -f {MODELS}/*/mood {MEASURED}"
        self.box.out(f"{forget}; systemctl start docker hearth-lab-meter; {_playing({})}")
        time.sleep(LOOKS_S)
        # Most tests leave them so, and looking is quicker than switching to what runs.
        if work and not self._is_as_made():
            self.ok("switch", "big")
            self.ok("switch", "helper")
            assert self.active() == ["big", "helper"]
            # Where the machine is starved, the meter may look after they have loaded: they would seem to need less.
            self.box.out(f"rm -f {MEASURED}")

    def _is_as_made(self) -> bool:
        """Whether big and helper run and start at boot, nothing else does, and no change was left half done."""
        if self.box.sh("test -s /run/hearth/switch.json").returncode == 0:
            return False
        stands = {row["name"]: (row["state"], row["boot"]) for row in self.rows()}
        at_rest = [("inactive", False), ("failed", False)]
        return all(
            stands[name] == ("active", True) if name in {"big", "helper"} else stands[name] in at_rest for name in NEEDS
        )

    def mood(self, engine: str, *lines: str) -> None:
        """How an engine behaves from its next start on; without lines, well."""
        path = f"{MODELS}/{engine}/mood"
        text = "\n".join(lines)
        self.box.out(f"printf '%s\\n' '{text}' >{path}" if lines else f"rm -f {path}")

    def memory(self, **settings: float) -> None:
        """What the meter plays: see lab/meter.py. What is not said is as usual."""
        self.box.out(_playing(settings))
        time.sleep(LOOKS_S)

    def command(self, *words: str) -> str:
        """A command line that sees the played memory, as the units do."""
        return f"HEARTH_MEMINFO={MEMINFO} hearth {' '.join(words)}"

    def hearth(self, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the box's own command line."""
        return self.box.sh(self.command(*words), timeout_s)

    def ok(self, *words: str) -> str:
        """Run the box's own command line, and insist on success."""
        return self.box.out(self.command(*words))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start the box's own command line, and leave it to itself."""
        return subprocess.Popen(
            ["docker", "exec", self.box.name, "sh", "-c", f"exec env {self.command(*words)}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill_at(self, step: str, old: str, new: str) -> str:
        """Kill whoever changes engines, at a step of lab/killer.py."""
        return self.box.out(f"/opt/hearth/venv/bin/python {FOLDER}/killer.py {step} {old} {new} 30")

    def until(self, condition: str, timeout_s: float = 60) -> None:
        """Wait until a shell's condition holds inside."""
        loop = f"for i in $(seq {round(timeout_s * 20)}); do {condition} && exit 0; sleep 0.05; done; exit 1"
        assert self.box.sh(loop, timeout_s + 10).returncode == 0, f"{condition}: not within {timeout_s} s"

    def settled(self, timeout_s: float = 60) -> list[str]:
        """What is up once no engine is on its way up or down."""
        self.until("! systemctl list-units --no-legend 'hearth-engine-*' | grep -Eq ' (de)?activating '", timeout_s)
        return self.active()

    def wait_for_jobs(self) -> None:
        """Until no change of engines is under way, whoever asked for it."""
        self.until("! systemctl list-units --no-legend 'hearth-switch-*' | grep -q .")

    def pin(self, *names: str) -> None:
        """Pin these engines and no other, as an inventory would."""
        script = f"""
import json, pathlib
path = pathlib.Path("/etc/hearth/engines.json")
contract = json.loads(path.read_text())
for engine in contract["engines"]:
    engine["pinned"] = engine["name"] in {names!r}
path.write_text(json.dumps(contract))
"""
        self.box.python(script)

    def _asking(self, engine: str, path: str, options: str = "") -> str:
        row = next(row for row in self.rows() if row["name"] == engine)
        key = "$(sed -n s/^LLAMA_API_KEY=//p /etc/hearth/secrets/engine.env)"
        return f'curl -sf {options} -H "Authorization: Bearer {key}" {row["url"]}{path}'

    def stream(self, engine: str) -> subprocess.Popen[str]:
        """Ask for a streamed answer without an end, as far as the real engine is asked; it goes on by itself."""
        messages = [{"role": "user", "content": "Hi"}]
        body = {"stream": True, "max_tokens": 1_000_000, "ignore_eos": True, "messages": messages}
        asking = self._asking(engine, "/v1/chat/completions", f"-N -m 120 -d '{json.dumps(body)}'")
        return subprocess.Popen(
            ["docker", "exec", self.box.name, "sh", "-c", f"{asking} | tail -c 200"], stdout=subprocess.PIPE, text=True
        )

    def stream_ended_well(self, stream: subprocess.Popen[str]) -> bool:
        """Whether the answer came to its own end."""
        return "data: [DONE]" in stream.communicate(timeout=120)[0]

    def end(self, stream: subprocess.Popen[str]) -> None:
        """The client goes away in the middle of its answer."""
        self.box.out("pkill -x curl")
        stream.communicate(timeout=60)

    def until_in_flight(self, engine: str, count: int = 1) -> None:
        """Wait until an engine works on so many requests."""
        self.until(f"{self._asking(engine, '/metrics', '-m 5')} | grep -q '^llamacpp:requests_processing {count}'")

    def rows(self) -> list[dict[str, Any]]:
        """The engines as ``hearth status`` has them."""
        said = json.loads(self.box.out("hearth status --json"))
        rows: list[dict[str, Any]] = said["engines"] if isinstance(said, dict) else said
        return rows

    def invocations(self) -> dict[str, str]:
        """The newest run of each engine: another one means that it was started again."""
        names = list(NEEDS)
        units = " ".join(f"hearth-engine-{name}" for name in names)
        found = self.box.out(f"systemctl show --value -p InvocationID {units}").split("\n\n")
        boots = self.box.sh(f"systemctl is-enabled {units}").stdout.split()
        return {name: f"{run} {boot}" for name, run, boot in zip(names, found, boots, strict=False)}

    def answers(self, engine: str) -> bool:
        """Whether an engine answers a chat."""
        body = json.dumps({"model": engine, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]})
        done = self.box.sh(self._asking(engine, "/v1/chat/completions", f"-m 20 -d '{body}'"))
        return done.returncode == 0 and '"choices"' in done.stdout

    def active(self) -> list[str]:
        """The engines that are up."""
        return [row["name"] for row in self.rows() if row["state"] == "active"]

    def boots(self) -> list[str]:
        """The engines that start at boot."""
        return [row["name"] for row in self.rows() if row["boot"]]

    def assert_converges(self, *words: str, running: list[str]) -> None:
        """The same command again leads where it should, and once more changes nothing."""
        self.ok(*words)
        assert self.active() == running
        assert all(self.answers(engine) for engine in running)
        before = self.invocations()
        self.ok(*words)
        assert self.invocations() == before

    @contextmanager
    def recorded(self) -> Iterator[Record]:
        """What is alive meanwhile; at the end it is asserted that it was never too much."""
        path = f"{FOLDER}/samples.jsonl"
        first = int(self.box.out(f"wc -l <{path}"))
        record = Record()
        yield record
        # The line before says what was alive when this began.
        lines = [json.loads(line) for line in self.box.out(f"tail -n +{max(1, first)} {path}").splitlines()]
        record.alive = [line["alive"] for line in lines]
        record.gap_s = max((line["gap_s"] for line in lines[1:]), default=0.0)
        record.assert_never_over_budget()


@pytest.fixture(scope="module")
def made(box: Box) -> Iterator[Stage]:
    """The box with these engines, for one file of tests."""
    stage = Stage(box)
    try:
        stage.set_up()
        yield stage
    finally:
        stage.tear_down()


@pytest.fixture
def stage(made: Stage) -> Iterator[Stage]:
    """Big and helper run; whatever the test does, never too much may be alive at once."""
    made.reset()
    with made.recorded():
        yield made
        made.wait_for_jobs()
