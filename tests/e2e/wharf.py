# SPDX-License-Identifier: Apache-2.0
"""A box with a registry of its own on its loopback: open, with a login, and by a way that can be cut."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boxes import Box

# Where the registry answers, where it wants a login, and the way to it that can be cut.
OPEN, LOGIN, CUT = "127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"
USER, PASSWORD = "me", "s3cret-of-the-test"
_HASH = "$2b$05$abcdefghijklmnopqrstuujsWknM8pfBPdRxoOJt8hu.sWw2vTXTq"
FOLDER = "/srv/lab-images"
MODE = f"{FOLDER}/mode"
# What a variant's own layer has, in bytes: none of it can be compressed.
SIZE = 12_000_000
_CONFIG = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/store}}, delete: {{enabled: true}}}}
http: {{addr: "{addr}"}}
{auth}"""


class Wharf:
    """Makes images, pushes them, and has plays bring them."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self._folder = folder
        self.made: list[str] = []

    def set_up(self) -> None:
        """Start registry and way. The program is the lab's registry's, which is a Debian as the box is."""
        box = self.box
        box.out(f"mkdir -p {FOLDER} && printf '%s' '{USER}:{_HASH}' >{FOLDER}/htpasswd && echo pass >{MODE}")
        program = self._folder / "docker-registry"
        copies = [
            ("hearth-lab-registry:/usr/bin/docker-registry", str(program)),
            (str(program), f"{box.name}:{FOLDER}/registry"),
            (str(Path(__file__).with_name("cutter.py")), f"{box.name}:{FOLDER}/cutter.py"),
        ]
        for source, target in copies:
            subprocess.run(["docker", "cp", "-q", source, target], check=True, capture_output=True)
        auth = f"auth: {{htpasswd: {{realm: lab, path: {FOLDER}/htpasswd}}}}\n"
        for name, addr, more in (("open", OPEN, ""), ("login", LOGIN, auth)):
            config = _CONFIG.format(folder=FOLDER, addr=addr, auth=more)
            box.out(f"cat >{FOLDER}/{name}.yml <<'END'\n{config}\nEND")
            box.out(f"systemd-run --quiet --unit=lab-images-{name} {FOLDER}/registry serve {FOLDER}/{name}.yml")
        port, target = CUT.rpartition(":")[2], OPEN.rpartition(":")[2]
        box.out(f"systemd-run --quiet --unit=lab-images-cut python3 {FOLDER}/cutter.py {port} {target} {MODE}")
        box.out(f"for _ in $(seq 100); do curl -sf http://{OPEN}/v2/ && exit; sleep 0.1; done; exit 1")

    def tear_down(self) -> None:
        self.clean()
        self.box.out(f"systemctl stop 'lab-images-*'; rm -rf {FOLDER}")

    def clean(self) -> None:
        """Nothing of a test is left in Docker, in the book and in the staging folder."""
        box = self.box
        box.out(f"echo pass >{MODE}; systemctl stop 'hearth-images-*'; rm -rf /var/lib/hearth/images/blobs")
        box.out(
            "for name in $(docker images --format '{{.Repository}}:{{.Tag}}' | grep ^localhost/hearth/engine); do "
            "docker rmi --force $name; done"
        )
        box.python(
            "from hearth.images import book\n"
            "known = book.read()\n"
            "for name in [one for one in known.images if one.startswith('localhost/hearth/engine')]:\n"
            "    known = known.without(name)\n"
            "book.write(known)"
        )

    def mode(self, said: str) -> None:
        """The way that can be cut: pass, hold N, die N."""
        self.box.out(f"echo '{said}' >{MODE}.new && mv {MODE}.new {MODE}")

    def push(self, tag: str = "1", *, lines: str = "", size: int = SIZE, base: str = "", platform: str = "") -> str:
        """Make an image, push it as ``engine:<tag>``, and leave none of it in Docker. Returns its digest."""
        name = f"{OPEN}/engine:{tag}"
        own = f"head -c {size} /dev/urandom >{FOLDER}/context/own && "
        options = f"--platform {platform} " if platform else ""
        dockerfile = f"FROM {base or self.box.local_image}\nCOPY own /own\n{lines}"
        said = self.box.out(
            f"mkdir -p {FOLDER}/context && {own}cd {FOLDER}/context && cat >Dockerfile <<'END'\n{dockerfile}\nEND\n"
            f"DOCKER_BUILDKIT=0 docker build -q {options}-t {name} . >/dev/null && docker push -q {name} >/dev/null && "
            f"docker image inspect --format '{{{{index .RepoDigests 0}}}}' {name} && docker rmi -f {name} >/dev/null",
            300,
        )
        return said.splitlines()[-1].partition("@")[2]

    def local(self, digest: str) -> str:
        """What the image of that digest is called on the box."""
        return f"localhost/hearth/engine:{digest[7:19]}"

    def image(self, digest: str = "", *, at: str = OPEN, tag: str = "1", **more: Any) -> dict[str, Any]:
        """An image as the module takes it; it is not tried out."""
        return {
            "name": self.local(digest) if digest else "",
            "repository": "localhost/hearth/engine",
            "source": f"{at}/engine" + ("" if digest else f":{tag}"),
            "digest": digest,
            "engine": "llama.cpp",
            **more,
        }

    def book(self, *images: dict[str, Any], **arguments: Any) -> str:
        """A playbook with one task that has these images."""
        path = self.box.inventory.with_name("images.yml")
        task = {"images": list(images), "smoke": False, "reserve_gib": 0, **arguments}
        variables = {"ansible_python_interpreter": "/opt/hearth/venv/bin/python"}
        play = {
            "hosts": "sparks",
            "gather_facts": False,
            "vars": variables,
            "tasks": [
                {"hearth.spark.images": task, "register": "had"},
                {"ansible.builtin.debug": {"msg": "{{ had.lines }}"}},
            ],
        }
        path.write_text(json.dumps([play]), encoding="utf-8")
        return str(path)

    def has(self, digest: str) -> bool:
        return self.box.sh(f"docker image inspect {self.local(digest)}").returncode == 0

    def left(self) -> int:
        """Bytes in the staging folder."""
        return int(self.box.out("cat /var/lib/hearth/images/blobs/* 2>/dev/null | wc -c"))

    def jobs(self) -> set[str]:
        return {name for name in self.box.sh("ls /run/hearth/images").stdout.split() if name.endswith(".json")}


Act = Callable[[], object]
