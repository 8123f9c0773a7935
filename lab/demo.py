# SPDX-License-Identifier: Apache-2.0
"""`make demo`: a box on this machine, provisioned by site.yml, that has switched models and answers.

Run from the repository's root as `python -m lab.demo up`. Running it again is quick and says whether anything
changed. All output of Ansible goes to .demo/demo.log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

from lab.play import PlayError, run_play

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "lab"
CACHE = ROOT / ".cache" / "lab"
STATE = ROOT / ".demo"
LOG = STATE / "demo.log"
INVENTORY = STATE / "inventory.yml"
ENV = STATE / "env"
BOX = "hearth-demo"
PORT = 8009
QUESTION = "What does a hearth do?"
MARK = "/etc/hearth-lab-prepared"
KEY_NAME = "demo"

# All questions go to this machine's loopback: a proxy of the environment has no part in them.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

INVENTORY_TEXT = """\
# The demo's box, as a user would describe a Spark. Made by `make demo`; try your own changes with
#   .venv/bin/ansible-playbook -i .demo/inventory.yml site.yml
---
sparks:
  hosts:
    {box}:
      ansible_connection: community.docker.docker
      ansible_host: {box}
      ansible_python_interpreter: /usr/bin/python3
      # The lab's own: which port of this machine leads in.
      lab_box_port: {port}
      lab_cache: "{{{{ inventory_dir }}}}/../.cache/lab"
      layout_user: spark
      engines_gpu: none
      engines_models:
        tiny-a:
          engine: llama.cpp
          image: "{image}"
          family: tiny
          file: tiny-a.gguf
          context: 512
          memory_gib: 0.3
          start: boot
        tiny-b:
          engine: llama.cpp
          image: "{image}"
          family: tiny
          file: tiny-b.gguf
          context: 512
          memory_gib: 0.3
"""


def say(text: str = "") -> None:
    """Tell the person who waits, at once."""
    print(text, flush=True)


def fail(step: str, advice: str) -> NoReturn:
    """End with the step that failed, the log's end and what to do."""
    if LOG.exists():
        lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
        print("\n".join(f"    | {line}" for line in lines), file=sys.stderr)
    print(f"make demo: {step} failed. {advice} The whole log: {LOG.relative_to(ROOT)}", file=sys.stderr)
    raise SystemExit(1)


def docker(*words: str) -> str | None:
    """Return what a docker command prints, or nothing when it fails."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def prepare_lab() -> None:
    """Bring engine, images, registry and models; the scripts speak for themselves."""
    say("== The lab: engine, images, registry, models")
    if subprocess.run([str(LAB / "up.sh")], check=False).returncode != 0:
        print("make demo: preparing the lab failed; the reason is in the lines above.", file=sys.stderr)
        raise SystemExit(1)


def free_port() -> int:
    """Return a port of the loopback that leads to the box: the usual one, or any when that is taken."""
    for wanted in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            port = int(probe.getsockname()[1])
            if port != PORT:
                say(f"  port {PORT} is taken on this machine: the demo uses port {port} instead")
            return port
    fail("finding a free port", "Close something that listens on 127.0.0.1 and try again.")


def box_port() -> int:
    """Return the published port of the box that exists, or choose one for the box to come."""
    bindings = docker("container", "inspect", "--format", "{{json .HostConfig.PortBindings}}", BOX)
    if bindings is None:
        return free_port()
    published: dict[str, list[dict[str, str]]] = json.loads(bindings) or {}
    for binding in published.get("8009/tcp", []):
        return int(binding["HostPort"])
    fail(f"using the container {BOX}", "It was not made by this demo: remove it with 'make demo-down'.")


def play(title: str, advice: str, *words: str) -> int:
    """Run a playbook against the box; return how many tasks changed something."""
    say(f"== {title}")
    try:
        return run_play(["-i", str(INVENTORY), *words], cwd=ROOT, log=LOG)
    except PlayError as failure:
        if failure.told:
            print(f"make demo: {title.lower()}: {failure}. {advice}", file=sys.stderr)
            print(f"The whole log: {LOG.relative_to(ROOT)}", file=sys.stderr)
            raise SystemExit(1) from None
        fail(f"'{title}'", advice)


def preparation() -> str:
    """Return a hash of everything that prepare.yml brings into the box."""
    files = [ROOT / "molecule/shared/prepare.yml"]
    files += [CACHE / "ca/ca.crt", *sorted((CACHE / "models").rglob("*.gguf"))]
    files += sorted(Path("/usr/local/share/ca-certificates").glob("*.crt"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def bring_box(advice: str) -> int:
    """Have the box run and prepared; return how many tasks changed something."""
    title, changes = "The box: a fresh machine in a container", 0
    if docker("container", "inspect", "--format", "{{.State.Running}}", BOX) != "true":
        changes += play(title, advice, "molecule/shared/create.yml")
        title = "The box: its owner, models and trust"
    wanted = preparation()
    if docker("exec", BOX, "cat", MARK) != wanted:
        changes += play(title, advice, "molecule/shared/prepare.yml")
        # Written last: a preparation that was cut short is done again.
        docker("exec", BOX, "sh", "-c", f"echo {wanted} >{MARK}")
    elif not changes:
        say(f"== The box {BOX} is up and prepared")
    return changes


def a_key(url: str) -> str:
    """Return a key for the gateway: that of an earlier run while it is good, else a new one."""
    if ENV.exists():
        kept = dict(line.split("=", 1) for line in ENV.read_text(encoding="utf-8").splitlines() if "=" in line)
        key = kept.get("HEARTH_API_KEY", "")
        with contextlib.suppress(OSError), OPENER.open(request(f"{url}/v1/models", key), timeout=10):
            return key
    docker("exec", BOX, "hearth", "keys", "revoke", KEY_NAME)
    made = docker("exec", BOX, "hearth", "keys", "add", KEY_NAME)
    if not made:
        fail("making a key", f"'docker exec {BOX} hearth keys add {KEY_NAME}' says why.")
    return made


def request(url: str, key: str, body: dict[str, Any] | None = None) -> urllib.request.Request:
    """A request to the gateway."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    return urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - the address is our own


def ask(url: str, key: str, model: str) -> str:
    """Return the model's answer to the question."""
    body = {
        "model": model,
        "max_tokens": 24,
        # Without it so small a model says one word for ever.
        "frequency_penalty": 1.5,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    reason = ""
    for _ in range(20):
        try:
            with OPENER.open(request(f"{url}/v1/chat/completions", key, body), timeout=60) as response:
                answer: dict[str, Any] = json.load(response)
            return str(answer["choices"][0]["message"]["content"]).strip()
        except (OSError, ValueError, KeyError, urllib.error.URLError) as error:
            reason = str(error)
            time.sleep(0.5)
    fail("asking the model", f"{url} answered: {reason}. 'docker exec {BOX} journalctl -n 50' tells more.")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    half = path.with_suffix(".new")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    half.replace(path)


def up() -> None:
    """Bring everything up and show that it answers."""
    started = time.monotonic()
    os.chdir(ROOT)
    STATE.mkdir(mode=0o700, exist_ok=True)
    LOG.write_text("", encoding="utf-8")
    prepare_lab()
    # The modules' library knows DOCKER_HOST, but not the contexts of the docker command.
    endpoint = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    if endpoint:
        os.environ.setdefault("DOCKER_HOST", endpoint)
    port = box_port()
    image = json.loads((CACHE / "facts.json").read_text(encoding="utf-8"))["llama_image"]
    write_private(INVENTORY, INVENTORY_TEXT.format(box=BOX, port=port, image=image))
    again = "Run 'make demo' again; if it stays, 'make demo-down' and then 'make demo' begin afresh."
    changes = bring_box(again)
    changes += play("site.yml: from a fresh machine to an inference server", again, "site.yml")
    changes += play("switch.yml: from tiny-a to tiny-b", again, "switch.yml", "-e", "model=tiny-b")
    say("== A question")
    url = f"http://127.0.0.1:{port}"
    key = a_key(url)
    answer = ask(url, key, "tiny-b")
    write_private(ENV, f"HEARTH_URL={url}\nHEARTH_API_KEY={key}\nHEARTH_BOX={BOX}\n")
    report(url, key, answer, changes, time.monotonic() - started)


def report(url: str, key: str, answer: str, changes: int, seconds: float) -> None:
    """Say what there is now and what to try next."""
    changed = f"Tasks that changed something: {changes}" if changes else "Nothing changed: all was in place"
    say(f"""  you:    {QUESTION}
  tiny-b: {answer}
  (Two random layers: the words are noise, everything around them is real.)

{changed}; {seconds:.0f} s.

  Base URL  {url}      (OpenAI clients add /v1)
  Key       {key}
  Both are in .demo/env as HEARTH_URL and HEARTH_API_KEY.

Try next
  . .demo/env
  curl -N $HEARTH_URL/v1/chat/completions -H "Authorization: Bearer $HEARTH_API_KEY" \\
    -d '{{"model": "tiny-a", "stream": true, "messages": [{{"role": "user", "content": "Hi"}}]}}'
  (tiny-a does not run: the request wakes it.)
  .venv/bin/ansible-playbook -i .demo/inventory.yml switch.yml -e model=tiny-a
  docker exec {BOX} systemctl status 'hearth-engine-*'
  make demo-down""")


def main() -> int:
    """Run as a command."""
    if sys.argv[1:] not in ([], ["up"]):
        print("demo.py knows one verb: up.", file=sys.stderr)
        return 2
    try:
        up()
    except KeyboardInterrupt:
        print("\nmake demo: interrupted. Running it again continues from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
