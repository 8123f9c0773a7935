# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the lab's scripts share. To be sourced, not run.

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HEARTH_ROOT=$(dirname "${LAB_DIR}")
LAB_CACHE=${HEARTH_ROOT}/.cache/lab
LAB_LABEL=hearth.lab=true
# shellcheck disable=SC2034  # the scripts that source this file use it
LAB_NETWORK=hearth-lab
export LAB_DIR HEARTH_ROOT LAB_CACHE LAB_LABEL
# dockerd, debootstrap and iptables live here; a plain user's PATH on Debian does not name it.
PATH=${PATH}:/usr/local/sbin:/usr/sbin:/sbin
mkdir -p "${LAB_CACHE}"

say() { printf '%s\n' "$*"; }

die() {
  printf 'lab: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Root, or a sudo that asks no questions: the lab never stops at a password prompt.
may_be_root() { [ "$(id -u)" -eq 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

is_debian_like() {
  [ -r /etc/os-release ] && have apt-get &&
    (. /etc/os-release && case " ${ID:-} ${ID_LIKE:-} " in *" debian "* | *" ubuntu "*) true ;; *) false ;; esac)
}

# logged TEXT LOGFILE COMMAND…: says what happens, keeps the output in a file, gives a sign of life
# every fifteen seconds, and shows the end of the file when the command fails.
logged() {
  local text=$1 log=$2 started=${SECONDS} pid status=0 tick=0
  shift 2
  mkdir -p "$(dirname "${log}")"
  say "  ${text} (log: ${log#"${HEARTH_ROOT}/"})"
  "$@" >"${log}" 2>&1 </dev/null &
  pid=$!
  while kill -0 "${pid}" 2>/dev/null; do
    sleep 0.2
    tick=$((tick + 1))
    if [ $((tick % 75)) -eq 0 ]; then say "    still at it after $((SECONDS - started)) s"; fi
  done
  wait "${pid}" || status=$?
  if [ "${status}" -ne 0 ]; then
    tail -n 20 "${log}" | sed 's/^/    | /' >&2
    die "${text}: failed with status ${status}; the whole log is ${log}."
  fi
}

# One user of the cache at a time: two targets may be running side by side.
lab_lock() {
  exec 9>"${LAB_CACHE}/lock"
  if ! flock -n 9; then
    say "  waiting for another lab command to finish"
    flock -w 1800 9 || die "another lab command has held ${LAB_CACHE}/lock for 30 minutes: stop it and try again."
  fi
}

apt_install() {
  local log=${LAB_CACHE}/apt.log
  if ! is_debian_like || ! may_be_root; then
    die "$* is missing and can be installed here only as root on Debian or Ubuntu: install it and retry."
  fi
  logged "installing $* with apt, usually under a minute" "${log}" apt_install_now "$@"
}

apt_install_now() {
  local options=(-q -y -o DPkg::Lock::Timeout=300)
  # A third-party source that does not answer must not stop us: the installation itself decides.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" update || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install --no-install-recommends "$@"
}

# Where the engine listens, for libraries that know DOCKER_HOST but nothing of docker contexts.
docker_host() {
  if [ -n "${DOCKER_HOST:-}" ]; then
    echo "${DOCKER_HOST}"
  else
    docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || echo unix:///var/run/docker.sock
  fi
}
