#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Removes everything that the make targets left on this machine: containers, network, images, caches, virtualenv.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

remove_from_engine() {
  local ids
  mapfile -t ids < <(docker ps --all --quiet --filter "label=${LAB_LABEL}")
  if [ "${#ids[@]}" -gt 0 ]; then
    say "  removing ${#ids[@]} container(s)"
    docker rm --force --volumes "${ids[@]}" >/dev/null
  fi
  if docker network inspect "${LAB_NETWORK}" >/dev/null 2>&1; then docker network rm "${LAB_NETWORK}" >/dev/null; fi
  mapfile -t ids < <(docker images --format '{{.Repository}}:{{.Tag}}' 'hearth-lab/*')
  if [ "${#ids[@]}" -gt 0 ]; then
    say "  removing ${#ids[@]} image(s)"
    docker rmi --force "${ids[@]}" >/dev/null
  fi
  docker image prune --force --filter "label=${LAB_LABEL}" >/dev/null
}

if have docker && timeout 20 docker version >/dev/null 2>&1; then
  remove_from_engine
  "${LAB_DIR}/engine.sh" down
else
  say "  no Docker engine answers: its containers and images, if there are any, stay as they are"
fi
say "  removing .venv, .cache, .demo and dist"
cd "${HEARTH_ROOT}"
rm -rf .venv .demo dist
rm -rf .cache || as_root rm -rf .cache
