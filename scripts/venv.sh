#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The controller's virtualenv: .venv, with what requirements/dev.txt locks, on the newest Python that really runs.
# Does nothing, quickly, when .venv/.ready says that it was made from the same files and the same choice of Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR source=../lab/lib.sh
. lab/lib.sh

VENV=${HEARTH_ROOT}/.venv
STAMP=${VENV}/.ready
LOG=${HEARTH_ROOT}/.cache/venv.log
# Make puts the virtualenv on the PATH. It must not be what it is made from, nor what a shim finds there.
PATH=:${PATH}:
while [[ ${PATH} == *":${VENV}/bin:"* ]]; do PATH=${PATH//":${VENV}/bin:"/:}; done
PATH=${PATH#:}
PATH=${PATH%:}

# A name on the PATH proves nothing (a version manager's shim may lead nowhere): the candidate has to run.
usable() {
  "$1" -c 'import sys, ssl, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

real_path() { "$1" -c 'import sys; print(sys.executable)'; }

candidates() { # newest first
  local name
  for name in python3.13 python3.12 python3.11 python3; do type -ap "${name}" || true; done
}

choose() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    usable "${PYTHON}" || die "PYTHON=${PYTHON} does not run, has no ssl or venv module, or is older than 3.11: name another one."
    real_path "${PYTHON}"
    return 0
  fi
  while read -r candidate; do
    if usable "${candidate}"; then
      real_path "${candidate}"
      return 0
    fi
  done < <(candidates)
  die "no Python 3.11 or newer was found: install one (Debian and Ubuntu: 'apt-get install python3 python3-venv'), or name it with PYTHON=…"
}

minor_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# The stamp has three lines: what was installed, on which Python, and which Pythons there were to choose from. The last
# one spares running them all every time; that another shell has another PATH is no reason to begin again.
locked() { cat requirements/uv.txt requirements/dev.txt "${BASH_SOURCE[0]}" | sha256sum; }
choices() { { candidates; echo "${PYTHON:-}"; } | sha256sum; }

is_ready() {
  local lines chosen
  mapfile -t lines < <(cat "${STAMP}" 2>/dev/null)
  [ "${#lines[@]}" -eq 3 ] && [ "${lines[0]}" = "$(locked)" ] && usable "${VENV}/bin/python" || return 1
  if [ "${lines[2]}" = "$(choices)" ]; then return 0; fi
  chosen=$(choose) || exit 1
  [ "${lines[1]}" = "$(minor_version "${chosen}")" ] || return 1
  stamp "${chosen}"
}

stamp() { # python
  printf '%s\n' "$(locked)" "$(minor_version "$1")" "$(choices)" >"${STAMP}.new"
  mv "${STAMP}.new" "${STAMP}"
}

ensure_venv_module() { # python
  local version
  if "$1" -c 'import ensurepip' >/dev/null 2>&1; then return 0; fi
  version=$(minor_version "$1")
  if ! is_debian_like || ! may_be_root; then
    die "$1 cannot make virtualenvs: install the package python${version}-venv (or run this as root)."
  fi
  apt_install "python${version}-venv"
}

fill() { # the operating system's trust store counts, also where a company's proxy has its own CA
  "${VENV}/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
  UV_NATIVE_TLS=1 UV_SYSTEM_CERTS=1 VIRTUAL_ENV=${VENV} \
    "${VENV}/bin/uv" pip install --require-hashes -r requirements/dev.txt
}

if is_ready; then exit 0; fi
python=$(choose)
lab_lock
# Somebody else may have made it while this waited for the lock.
if is_ready; then exit 0; fi
ensure_venv_module "${python}"
say "Virtualenv .venv with $("${python}" -c 'import platform; print("Python", platform.python_version())') (${python})"
rm -rf "${VENV}"
"${python}" -m venv "${VENV}" || die "${python} -m venv failed: the reason is above."
logged "installing Ansible, Molecule and the test tools, one or two minutes the first time" "${LOG}" fill
stamp "${python}"
