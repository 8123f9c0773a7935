#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The lab's door into a box: pipes connections to the active engine.

This is part of the lab, not of the product. A box's engines listen on its loopback only, and until the
gateway exists nothing else lets the machine that runs `make demo` in. The gateway takes this file's place.

For each connection it reads the contract, asks systemd which engine is active and pipes bytes to that
engine's port. Where none is active it closes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

CONTRACT = Path(os.environ.get("HEARTH_CONTRACT", "/etc/hearth/engines.json"))
PORT = int(os.environ.get("HEARTH_DOOR_PORT", "8009"))
CHUNK = 65536


def contract_engines() -> list[dict[str, Any]]:
    """Read the main engines of the contract; none where it cannot be read."""
    try:
        engines: list[dict[str, Any]] = json.loads(CONTRACT.read_text(encoding="utf-8"))["engines"]
    except (OSError, ValueError, KeyError) as error:
        print(f"door: cannot read {CONTRACT}: {error}", file=sys.stderr, flush=True)
        return []
    return [engine for engine in engines if engine.get("lane", "main") == "main"]


async def active_port() -> int | None:
    """Return the port of the first main engine whose unit is active."""
    engines = contract_engines()
    if not engines:
        return None
    process = await asyncio.create_subprocess_exec(
        "systemctl", "is-active", *(engine["unit"] for engine in engines), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    for engine, state in zip(engines, out.decode().split(), strict=False):
        if state == "active":
            return int(engine["port"])
    return None


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on as they come, and the end of the stream too."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one connection."""
    with contextlib.suppress(OSError), contextlib.closing(writer):
        port = await active_port()
        if port is None:
            return
        engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(engine_writer):
            directions = [
                asyncio.ensure_future(pipe(reader, engine_writer)),
                asyncio.ensure_future(pipe(engine_reader, writer)),
            ]
            try:
                # A caller may end its half and still read; when the engine has ended, it is over.
                await asyncio.wait({directions[1]})
                await directions[1]
            finally:
                directions[0].cancel()
                await asyncio.gather(*directions, return_exceptions=True)


async def main() -> None:
    """Listen until told to stop."""
    # All addresses of the box; the box publishes the port on its host's loopback alone.
    server = await asyncio.start_server(serve, "0.0.0.0", PORT)  # noqa: S104
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
