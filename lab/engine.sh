#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A Docker engine for the lab: the one that is running, else one that we install and start.
#
#   engine.sh up     make sure that an engine answers
#   engine.sh down   stop the engine, if it was started here and runs no container any more
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PIDFILE=${LAB_CACHE}/dockerd.pid
BY_SYSTEMD=${LAB_CACHE}/engine-by-systemd
LOG=${LAB_CACHE}/dockerd.log

# The exit status of `docker info` depends on the client's version, that of `docker version` does not.
engine_answers() { timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# A pid alone proves nothing after a reboot: the process must be a dockerd that was given our pid file.
our_dockerd() {
  local pid
  pid=$(cat "${PIDFILE}" 2>/dev/null) || return 1
  [ -n "${pid}" ] && [ "$(cat "/proc/${pid}/comm" 2>/dev/null)" = dockerd ] &&
    tr '\0' ' ' <"/proc/${pid}/cmdline" | grep -qF -- "${PIDFILE}" && echo "${pid}"
}

refuse_what_we_cannot_start() {
  local answer context
  have docker || return 0
  answer=$(timeout 20 docker version 2>&1 >/dev/null || true)
  if grep -qi 'permission denied' <<<"${answer}"; then
    die "a Docker engine is running, but $(id -un) may not use it: run 'sudo usermod -aG docker $(id -un)', log in again and retry."
  fi
  if [ -n "${DOCKER_HOST:-}" ]; then
    die "no Docker engine answers at DOCKER_HOST=${DOCKER_HOST}: start that engine, or unset DOCKER_HOST to use one on this machine."
  fi
  context=$(docker context show 2>/dev/null || echo default)
  if [ "${context}" != default ]; then
    die "the engine of the docker context '${context}' does not answer: start it, or run 'docker context use default'."
  fi
}

install_engine() {
  local packages=()
  have dockerd || packages+=(docker.io)
  have iptables || packages+=(iptables)
  # From Debian 13 on the client is a package of its own.
  if ! have docker && apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
  if [ "${#packages[@]}" -gt 0 ]; then
    apt_install "${packages[@]}"
    hash -r
  fi
  have docker || apt_install docker-cli
  if have dockerd && have docker; then return 0; fi
  die "dockerd is still missing after the installation: see ${LAB_CACHE}/apt.log."
}

show_dead_start() {
  # dockerd says much that is no news; its last word is the reason.
  grep -v 'level=info' "$1" | tail -n 15 | sed 's/^/    | /' >&2 || true
  die "the Docker engine did not start: the reason is in the lines above (whole log: $1)."
}

start_by_systemd() {
  local log=${LAB_CACHE}/systemctl.log
  say "  starting the Docker engine (systemctl start docker)"
  if ! as_root systemctl start docker >"${log}" 2>&1; then
    as_root journalctl -u docker -n 15 --no-pager >>"${log}" 2>&1 || true
    show_dead_start "${log}"
  fi
  touch "${BY_SYSTEMD}"
}

# Without an init nobody else starts a daemon. Its socket belongs to our group, so that no new login is needed.
start_in_background() {
  local group
  group=$(id -gn)
  say "  starting the Docker engine in the background (log: ${LOG#"${HEARTH_ROOT}/"})"
  as_root rm -f "${PIDFILE}"
  as_root setsid dockerd --pidfile "${PIDFILE}" --group "${group}" >"${LOG}" 2>&1 </dev/null &
  local child=$! waited
  for waited in $(seq 1 120); do
    if engine_answers; then return 0; fi
    kill -0 "${child}" 2>/dev/null || our_dockerd >/dev/null || [ "${waited}" -lt 5 ] || show_dead_start "${LOG}"
    if [ $((waited % 20)) -eq 0 ]; then say "    not answering yet after $((waited / 2)) s"; fi
    sleep 0.5
  done
  show_dead_start "${LOG}"
}

up() {
  if have docker && engine_answers; then return 0; fi
  refuse_what_we_cannot_start
  if ! have dockerd || ! have docker || ! have iptables; then
    if ! is_debian_like || ! may_be_root; then
      die "no Docker engine is running: install one (https://docs.docker.com/engine/install/) and start it, or run this as root on Debian or Ubuntu."
    fi
    install_engine
  fi
  may_be_root || die "no Docker engine is running: start it (for example 'sudo systemctl start docker'), or run this as root."
  if engine_answers; then
    say "  the package started the Docker engine"
  elif [ -d /run/systemd/system ]; then
    start_by_systemd
    refuse_what_we_cannot_start
  else
    start_in_background
  fi
  engine_answers || die "the Docker engine started but does not answer: see 'docker version'."
  say "  Docker engine $(docker version --format '{{.Server.Version}}') answers"
}

down() {
  local pid running
  pid=$(our_dockerd || true)
  if [ -z "${pid}" ] && [ ! -e "${BY_SYSTEMD}" ]; then return 0; fi
  running=$(docker ps -q 2>/dev/null | wc -l)
  if [ "${running}" -gt 0 ]; then
    say "  the Docker engine stays up: ${running} container(s) still run on it"
    return 0
  fi
  if [ -n "${pid}" ]; then
    say "  stopping the Docker engine that was started here (pid ${pid})"
    as_root sh -c "kill ${pid}"
    for _ in $(seq 1 60); do
      [ -e "/proc/${pid}" ] || break
      sleep 0.5
    done
    [ ! -e "/proc/${pid}" ] || die "dockerd (pid ${pid}) has not ended 30 s after SIGTERM: see ${LOG}."
    as_root rm -f "${PIDFILE}"
  else
    say "  stopping the Docker engine that was started here (systemctl stop docker)"
    as_root systemctl stop docker.socket docker.service
    rm -f "${BY_SYSTEMD}"
  fi
}

case ${1:-up} in
  up) up ;;
  down) down ;;
  *) die "engine.sh knows the verbs up and down, not '$1'." ;;
esac
