#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Removes the demo: its box with the inner engine's volume, .demo, and what only the demo used.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

BOX=hearth-demo

if have docker && timeout 20 docker version >/dev/null 2>&1; then
  if docker container inspect "${BOX}" >/dev/null 2>&1; then
    say "  removing the box ${BOX}"
    docker rm --force --volumes "${BOX}" >/dev/null
  fi
  "${LAB_DIR}/registry.sh" down
  "${LAB_DIR}/engine.sh" down
else
  say "  no Docker engine answers: if the box ${BOX} exists, start the engine and run 'make demo-down' again"
fi
rm -rf "${HEARTH_ROOT}/.demo"
say "The demo is gone. Cached images and models stay for the next time; 'make clean' removes them too."
