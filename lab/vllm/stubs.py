#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write stand-ins for the NVIDIA libraries that torch is linked with and never calls on a processor.

PyPI has torch only with CUDA, whose libraries weigh more than all the rest of this image together. The dynamic
loader wants them there, with their versions and every name that torch takes from them. What it gets here are
libraries of a few kilobytes in which every name leads to an instruction that ends the program.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

TRAP = {"x86_64": "ud2", "aarch64": "udf #0"}
NEEDED = re.compile(r"\(NEEDED\).*\[(?P<file>[^]]+)\]")
FILE = re.compile(r"Version: 1\s+File: (?P<file>\S+)")
VERSION = re.compile(r"Name: (?P<version>\S+)\s+Flags:")
# Symbol tables of readelf: number, value, size, type, binding, visibility, section, name[@version].
SYMBOL = re.compile(r"\s*\d+: \S+\s+\S+\s+\S+\s+(?P<bind>\S+)\s+\S+\s+(?P<section>\S+)\s+(?P<name>\S+)")
# Libraries of the system, which are there, and the driver's own, whose absence says that there is no GPU.
LEFT_OUT = re.compile(r"(lib(c|m|dl|rt|util|pthread|gcc_s|stdc\+\+|gomp|numa|cuda)|ld-linux.*)\.so\.")
# Libraries whose names have no versions, and how those names begin. A name that is missing would show in the build:
# Python wants all of them when it loads torch.
PREFIXES = {"libcufile.so": "cuFile", "libcusparseLt.so": "cusparseLt", "libnccl.so": "nccl"}


@dataclass
class Libraries:
    """What the libraries that are there define and want."""

    there: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)
    # Wanted names without a version.
    plain: set[str] = field(default_factory=set)
    # The versions that are wanted of a library, and the names of each version.
    versions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    names: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def readelf(*words: str) -> list[str]:
    """Return the lines that readelf prints."""
    done = subprocess.run(["readelf", "--wide", *words], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def add(found: Libraries, library: Path) -> None:
    """Read one library."""
    found.there.add(library.name)
    for line in readelf("--dynamic", str(library)):
        if match := NEEDED.search(line):
            found.needed.add(match["file"])
    file = ""
    for line in readelf("--version-info", str(library)):
        if match := FILE.search(line):
            file = match["file"]
        elif file and (match := VERSION.search(line)):
            found.versions[file].add(match["version"])
    for line in readelf("--dyn-syms", str(library)):
        if not (match := SYMBOL.match(line)):
            continue
        name, _, version = match["name"].partition("@")
        if match["section"] != "UND":
            found.defined.add(name)
        elif version:
            found.names[version.lstrip("@")].add(name)
        elif match["bind"] != "WEAK":
            found.plain.add(name)


def write_stub(out: Path, versions: dict[str, set[str]], plain: set[str], trap: str) -> None:
    """Link one stand-in that has these names in these versions, and these without one."""
    names = sorted(set(plain).union(*versions.values()))
    code = [".text", "trap:", f"  {trap}"]
    for name in names:
        code += [f".globl {name}", f".type {name}, %function", f".set {name}, trap"]
    script = [
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(of))} }};" for version, of in versions.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, compiled, version_script = (Path(folder) / name for name in ("stub.s", "stub.o", "versions"))
        source.write_text("\n".join([*code, ""]))
        version_script.write_text("\n".join([*script, ""]))
        subprocess.run(["as", "-o", compiled, source], check=True)
        more = [f"--version-script={version_script}"] if versions else []
        subprocess.run(
            ["ld", "-shared", "-z", "noexecstack", f"-soname={out.name}", *more, "-o", out, compiled], check=True
        )


def main() -> int:
    """Run as a command: the first folder gets the stand-ins, all of them are looked through for libraries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, metavar="FOLDER")
    parser.add_argument("more", type=Path, nargs="*", metavar="FOLDER")
    given = parser.parse_args()
    found = Libraries()
    for folder in (given.out, *given.more):
        for library in sorted(folder.rglob("*.so*")):
            add(found, library)
    missing = sorted(file for file in found.needed - found.there if not LEFT_OUT.match(file))
    for file in missing:
        versions = {version: found.names[version] for version in sorted(found.versions[file])}
        prefix = PREFIXES.get(file[: file.index(".so") + 3])
        plain = {name for name in found.plain - found.defined if prefix and name.startswith(prefix)}
        write_stub(given.out / file, versions, plain, TRAP[platform.machine()])
    print(f"{len(missing)} stand-ins in {given.out}: {' '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
