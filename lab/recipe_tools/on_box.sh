#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a box, beside the Dockerfile of what stands in for CUDA's images:
#   on_box.sh tools <base> <name>   builds it, pushes it to the lab's registry, and prints its digest, and the box's address for containers
#   on_box.sh serve                 serves what lies in /srv/served: git://…:9418 and http://…:8123
set -euo pipefail

tools() {
  local here
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  rm -rf "$here/ca"
  cp -r /usr/local/share/ca-certificates "$here/ca"
  docker build --quiet --build-arg "BASE=$1" --tag "$2" "$here" >/dev/null
  docker push --quiet "$2" >/dev/null
  docker image inspect --format '{{index .RepoDigests 0}}' "$2"
  docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' bridge
}

unit() { # name, command
  systemctl stop "$1" 2>/dev/null || true
  systemd-run --quiet --collect --unit="$1" "${@:2}"
}

serve() {
  local port
  unit lab-git git daemon --export-all --reuseaddr --base-path=/srv/served/git
  unit lab-files python3 -m http.server 8123 --directory /srv/served/files
  for port in 9418 8123; do
    timeout 60 bash -c "until : 2>/dev/null <>/dev/tcp/127.0.0.1/$port; do sleep 0.3; done"
  done
}

"$@"
