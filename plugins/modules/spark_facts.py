#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Read, in one run, everything the roles need to know of a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: spark_facts
short_description: Read everything the roles need to know of a box, in one run
version_added: 0.1.0
author: Hearth contributors (!UNKNOWN)
description:
  - Reads operating system, DGX release, kernel, memory, GPU and driver, Docker, container toolkit, CDI devices, disk,
    the user who owns the models, listening ports and engine units.
  - Nothing is required to exist, so it works on any Linux host; what is not there is empty.
  - The serial number that C(/etc/dgx-release) holds is never read into the facts.
options:
  user:
    description: The user who owns C(~/ai). Its home resolves C(~) in O(paths) and O(tree).
    type: str
    default: ""
  paths:
    description: Paths to look at. A leading C(~/) is the home of O(user).
    type: list
    elements: str
    default: []
  tree:
    description: The folder whose file system's free space is told. It need not exist yet.
    type: str
    default: ~/ai
  names:
    description: Names of hosts that the box is to resolve; each is given two seconds, all at the same time.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - hearth.spark.attributes
  - hearth.spark.attributes.info
"""

EXAMPLES = r"""
- name: Read the box
  hearth.spark.spark_facts:
    user: spark
    paths: [~/ai/models/tiny/tiny-a/tiny-a.gguf]
"""

RETURN = r"""
ansible_facts:
  description: The facts, below the one key C(spark).
  returned: always
  type: dict
  contains:
    spark:
      description: What was read.
      type: dict
      contains:
        os:
          description: >-
            C(id), C(version), C(codename) and C(name) of C(/etc/os-release).
          type: dict
          sample: {id: ubuntu, version: "24.04", codename: noble, name: Ubuntu 24.04.5 LTS}
        dgx:
          description: >-
            DGX OS: C(name) of the product, C(platform), C(build) of the factory, C(ota) of the last update, and
            C(release), which is the later of these two. Empty on any other system.
          type: dict
          sample: {name: NVIDIA DGX Spark, platform: GX10, build: 7.2.3, ota: 7.6.0, release: 7.6.0}
        arch:
          description: The architecture, as the kernel names it.
          type: str
          sample: aarch64
        kernel:
          description: The kernel's release.
          type: str
          sample: 7.0.0-1019-nvidia
        kho:
          description: >-
            Kexec HandOver: C(cmdline), what the kernel's command line says of it; C(disabled), whether that switches it
            off; C(problem), whether it is on by default in this kernel of NVIDIA's (7.0 and newer) and not switched
            off, or marks C(/proc/meminfo). It then keeps about 9 GiB to itself and breaks RDMA; the package
            C(nvidia-spark-grub-kho) and a reboot end that.
          type: dict
          sample: {cmdline: "off", disabled: true, problem: false}
        memory:
          description: C(total_gib), C(available_gib), C(swap_total_gib) and C(swap_free_gib), in GiB.
          type: dict
          sample: {total_gib: 121.6, available_gib: 112.0, swap_total_gib: 16.0, swap_free_gib: 16.0}
        disk:
          description: >-
            The file system of O(tree): C(total_gb) and C(free_gb) in decimal GB, and C(path), the part of O(tree) that
            exists. Empty where C(~) is nobody's.
          type: dict
          sample: {path: /home/spark/ai, total_gb: 3936.8, free_gb: 3264.2}
        gpu:
          description: >-
            C(name) of the first GPU, C(count) of GPUs, version of the C(driver), and C(error): why C(nvidia-smi), where
            it is installed, cannot tell; it is given 5 seconds. C(users) are programs with memory on the GPU that are
            no engines of Hearth's, each with C(pid), C(name), C(gib) and the id of its C(container).
          type: dict
          sample: {name: NVIDIA GB10, count: 1, driver: 580.178.04, error: "", users: []}
        docker:
          description: >-
            C(installed), whether there is an engine; C(packaged), whether it is the distribution's own package
            docker.io; C(version) of the one that runs, or else C(error); C(cdi), whether that one gives containers CDI
            devices.
          type: dict
          sample: {installed: true, packaged: false, version: 29.6.2, error: "", cdi: true}
        toolkit:
          description: The version of the NVIDIA container toolkit.
          type: str
          sample: 1.20.1
        toolkit_packages:
          description: Those of its four packages that are installed, with their versions.
          type: dict
          sample: {nvidia-container-toolkit: 1.20.1-1, libnvidia-container1: 1.20.1-1}
        cdi:
          description: The kinds of device that CDI specifications offer.
          type: list
          elements: str
          sample: [nvidia.com/gpu]
        cdi_devices:
          description: >-
            The devices that CDI specifications offer. A specification in YAML of another shape than C(nvidia-ctk)
            writes has its kind in C(cdi) and no devices here.
          type: list
          elements: str
          sample: [nvidia.com/gpu=0, nvidia.com/gpu=all]
        systemd:
          description: Whether systemd runs the host.
          type: bool
        container:
          description: What kind of container this host is itself; empty for a machine.
          type: str
        clock_synchronised:
          description: Whether somebody keeps the clock (NTP), as the kernel has it; none where it cannot be told.
          type: bool
        unresolved:
          description: Those of O(names) for which the box finds no address.
          type: list
          elements: str
        python:
          description: C(executable) and C(version) of the Python that this ran with, and whether it can make a C(venv).
          type: dict
          sample: {executable: /usr/bin/python3, version: 3.12.3, venv: true}
        images:
          description: >-
            What the box knows of the images of its engines; C(images) by their names there, C(models) with what each
            engine runs from, and C(pins) with what tags meant when they were asked for.
          type: dict
        runtime:
          description: Whether the package C(hearth) is on the host.
          type: bool
        user:
          description: >-
            C(name), C(uid), C(gid), C(home) and C(groups), by name, of O(user); empty where there is no such user.
          type: dict
          sample: {name: spark, uid: 1000, gid: 1000, home: /home/spark, groups: [docker, spark]}
        paths:
          description: >-
            For each of O(paths) C(path) with the home in it, C(exists), C(is_dir) and C(size) in bytes.
          type: dict
        listening:
          description: The program that listens on each TCP port, by port; empty where it cannot be told.
          type: dict
          sample: {"22": sshd, "8080": docker-proxy}
        units:
          description: The state of each engine unit that systemd knows.
          type: dict
          sample: {hearth-engine-scout.service: active}
        engine_ports:
          description: The ports of the engines that run.
          type: list
          elements: int
          sample: [8080]
"""

import importlib.util
import pwd
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hearth.spark.plugins.module_utils import _facts


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "default": ""},
            "paths": {"type": "list", "elements": "str", "default": []},
            "tree": {"type": "str", "default": "~/ai"},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    user = None
    if module.params["user"]:
        try:
            entry = pwd.getpwnam(module.params["user"])
        except KeyError:
            pass
        else:
            user = {
                "name": entry.pw_name,
                "uid": entry.pw_uid,
                "gid": entry.pw_gid,
                "home": entry.pw_dir,
                "groups": _facts.groups(entry.pw_name, entry.pw_gid),
            }
    module.exit_json(
        changed=False,
        ansible_facts={
            "spark": {
                **_facts.read(Path("/"), module.params["names"]),
                "python": {
                    "executable": sys.executable,
                    "version": sys.version.split()[0],
                    "venv": importlib.util.find_spec("ensurepip") is not None,
                },
                "user": user or {},
                "disk": _facts.disk(module.params["tree"], user),
                "paths": {path: _facts.look_at(path, user) for path in module.params["paths"]},
            }
        },
    )


if __name__ == "__main__":
    main()
