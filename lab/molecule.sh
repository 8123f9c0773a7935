#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# molecule.sh SCENARIO [WORDS…]: the lab, then `molecule test` of one scenario, or of all of them.
# MOLECULE_COMMAND=converge (verify, destroy, login…) does another thing than the whole test; with LOG_ONLY=yes its words go
# into the log alone, and of one that fails the end is shown.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scenario=${1:-default}
shift || true
lab=()
case ${scenario} in vllm | all) lab=(vllm) ;; esac
"${LAB_DIR}/up.sh" "${lab[@]}"
cd "${HEARTH_ROOT}"
DOCKER_HOST=$(docker_host)
export DOCKER_HOST
# Molecule looks for scenarios of a collection in extensions/ and complains about ours; this tells it where they are.
export MOLECULE_GLOB='molecule/*/molecule.yml'
export PATH="${HEARTH_ROOT}/.venv/bin:${PATH}"
export ANSIBLE_NOCOWS=1 MOLECULE_COMMAND_BORDERS=0
which=(--scenario-name "${scenario}")
if [ "${scenario}" = all ]; then which=(--all); fi
log=${HEARTH_ROOT}/.cache/molecule-${scenario}.log
started=${SECONDS}
say "  molecule ${MOLECULE_COMMAND:-test} ${scenario}, some minutes (log: ${log#"${HEARTH_ROOT}/"})"
show() { if [ -n "${LOG_ONLY:-}" ]; then cat >"${log}"; else tee "${log}"; fi; }
if ! "${HEARTH_ROOT}/.venv/bin/molecule" "${MOLECULE_COMMAND:-test}" "${which[@]}" "$@" 2>&1 | show; then
  if [ -n "${LOG_ONLY:-}" ]; then tail -n 100 "${log}" | sed "s/^/    ${scenario} | /" >&2; fi
  die "the scenario ${scenario} failed: the reason is above; 'make molecule SCENARIO=${scenario} ARGS=--destroy=never' leaves its box for a look."
fi
say "  scenario ${scenario} passed in $((SECONDS - started)) s"
