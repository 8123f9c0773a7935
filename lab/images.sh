#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# images.sh [vllm]: the lab's images, hearth-lab/box, llama, ollama and registry. With the word vllm also hearth-lab/vllm,
# which is large and which only the scenario of that name needs.
#
# Their Debian bases are pulled where a registry answers, and made with debootstrap where none does. What comes
# on top is the same Dockerfile for both. An image carries a hash of its recipe and is built again when that changes.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# image = its context folder below lab/, and the Debian suite below it
IMAGES=(box:trixie registry:trixie llama:forky ollama:trixie)
VLLM_NEEDED_GB=8
case ${1:-} in
  '') ;;
  vllm) IMAGES+=(vllm:trixie) ;;
  *) die "images.sh knows the word vllm, not '$1'." ;;
esac
PULL_ANSWER_SECONDS=${LAB_PULL_ANSWER_SECONDS:-20}

# What an image is built from beside its folder: for the Ollama that is played the program that plays it; for vLLM the
# locks, and the certificate authorities of this machine, without which PyPI cannot be reached where a proxy has its own.
more_of() { # folder
  local file
  if [ "$1" = ollama ]; then printf '%s\n' "${HEARTH_ROOT}"/tests/unit/ollama_{server,on_disk}.py; fi
  if [ "$1" != vllm ]; then return 0; fi
  for file in "${HEARTH_ROOT}"/requirements/{engines,uv}.txt /usr/local/share/ca-certificates/*.crt; do
    if [ -e "${file}" ]; then echo "${file}"; fi
  done
}

recipe_of() { # folder suite
  local more
  mapfile -t more < <(more_of "$1")
  {
    cd "${LAB_DIR}/$1"
    echo "suite $2"
    find . -type f -not -path '*/__pycache__/*' | LC_ALL=C sort | xargs sha256sum
    if [ "${#more[@]}" -gt 0 ]; then cat "${more[@]}"; fi
  } | sha256sum | cut -c1-16
}

recipe_in() { docker image inspect --format '{{index .Config.Labels "hearth.lab.recipe"}}' "$1" 2>/dev/null || true; }

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# The registry must begin to answer soon; a pull that has begun may take its time.
pull_base() { # suite
  local log=${LAB_CACHE}/pull-$1.log pid waited=0
  docker pull "debian:$1" >"${log}" 2>&1 </dev/null &
  pid=$!
  while kill -0 "${pid}" 2>/dev/null; do
    if [ "${waited}" -ge $((PULL_ANSWER_SECONDS * 5)) ] && ! grep -q 'Pulling from' "${log}"; then
      kill "${pid}" 2>/dev/null || true
      break
    fi
    if [ "${waited}" -ge 3000 ]; then
      kill "${pid}" 2>/dev/null || true
      break
    fi
    sleep 0.2
    waited=$((waited + 1))
  done
  wait "${pid}" 2>/dev/null
}

# The mirror that this machine's own apt uses, where it is a Debian; else Debian's own.
debian_mirror() {
  local found=
  if [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ]); then
    # shellcheck disable=SC2016  # apt fills these in, not the shell
    found=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(CODENAME) $(ORIGIN)' 2>/dev/null |
      awk '$2 == "main" && $4 == "Debian" && $1 !~ /security|snapshot/ { sub(/\/$/, "", $1); print $1; exit }')
    if [ -z "${found}" ]; then
      found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed 's/#.*//' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | sed 's|/\{0,1\} *$||' || true)
    fi
  fi
  echo "${found:-http://deb.debian.org/debian}"
}

bootstrap_tools() {
  local missing=()
  have debootstrap || missing+=(debootstrap)
  [ -r /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
  if [ "${#missing[@]}" -gt 0 ]; then apt_install "${missing[@]}"; fi
  may_be_root || die "no registry answers and debootstrap needs root: run this as root, or make 'docker pull debian:trixie' work."
}

bootstrap_into_docker() { # suite mirror image
  local suite=$1 mirror=$2 image=$3 script=() dir status=0
  # An older debootstrap does not know the newest suites; they are made like sid.
  [ -e "/usr/share/debootstrap/scripts/${suite}" ] || script=(sid)
  dir=$(mktemp -d "${TMPDIR:-/var/tmp}/hearth-lab.XXXXXX")
  {
    as_root debootstrap --variant=minbase --include=ca-certificates \
      --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "${suite}" "${dir}" "${mirror}" "${script[@]}" &&
      as_root rm -rf "${dir}/var/cache/apt/archives" "${dir}/var/lib/apt/lists" &&
      as_root mkdir -p "${dir}/var/cache/apt/archives/partial" "${dir}/var/lib/apt/lists/partial" &&
      as_root tar -C "${dir}" -c . | docker import - "${image}"
  } || status=$?
  as_root rm -rf --one-file-system "${dir}"
  return "${status}"
}

base() { # suite: leaves the image hearth-lab/debian:<suite>
  local suite=$1 image=hearth-lab/debian:$1 mirror
  if have_image "${image}"; then return 0; fi
  if have_image "debian:${suite}"; then
    say "  debian:${suite} is here already"
    docker tag "debian:${suite}" "${image}"
    return 0
  fi
  say "  asking the registry for debian:${suite}"
  if pull_base "${suite}"; then
    docker tag "debian:${suite}" "${image}"
    return 0
  fi
  say "  none answers (.cache/lab/pull-${suite}.log has its words): the image is made here instead"
  bootstrap_tools
  mirror=$(debian_mirror)
  logged "making Debian ${suite} with debootstrap from ${mirror}, about half a minute" \
    "${LAB_CACHE}/debootstrap-${suite}.log" bootstrap_into_docker "${suite}" "${mirror}" "${image}"
}

build() { # folder suite recipe
  local context more status=0
  mapfile -t more < <(more_of "$1")
  context=$(mktemp -d "${LAB_CACHE}/context.XXXXXX")
  cp -R "${LAB_DIR}/$1/." "${more[@]}" "${context}/"
  # BUILDX_BUILDER: a builder in a container would not see the base image of this engine.
  env -u DOCKER_BUILDKIT BUILDX_BUILDER=default docker build --force-rm \
    --build-arg "BASE=hearth-lab/debian:$2" --label "${LAB_LABEL}" --label "hearth.lab.recipe=$3" \
    --tag "hearth-lab/$1:latest" "${context}" || status=$?
  rm -rf "${context}"
  return "${status}"
}

# The image, its copy in the registry and the one in the box. Where the engine is on another machine, it has to say so itself.
refuse_vllm_without_room() {
  local root free
  root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null || true)
  free=$(df --output=avail -B 1000000000 "${root:-/}" 2>/dev/null | tail -n 1 | tr -d ' ' || true)
  [ "${free:-${VLLM_NEEDED_GB}}" -ge "${VLLM_NEEDED_GB}" ] ||
    die "vLLM's image and its copies take ${VLLM_NEEDED_GB} GB below ${root} and ${free} GB are free: make room and retry."
}

for entry in "${IMAGES[@]}"; do
  folder=${entry%%:*}
  suite=${entry##*:}
  recipe=$(recipe_of "${folder}" "${suite}")
  if [ "$(recipe_in "hearth-lab/${folder}:latest")" = "${recipe}" ]; then continue; fi
  lab_lock
  about="under a minute"
  if [ "${folder}" = vllm ]; then
    refuse_vllm_without_room
    about="a download of 0.8 GB, one or two minutes"
  fi
  base "${suite}"
  logged "building the image hearth-lab/${folder}, ${about}" "${LAB_CACHE}/build-${folder}.log" \
    build "${folder}" "${suite}" "${recipe}"
  # What the new one replaced; an image in use stays until a later turn.
  docker image prune --force --filter "label=${LAB_LABEL}" >/dev/null
done
