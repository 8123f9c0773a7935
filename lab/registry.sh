#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The lab's network and its registry: TLS by a CA of our own, reachable in boxes as registry.hearth.test:5000.
#
#   registry.sh up [vllm]   start it, push the engines' images, write down their digests in .cache/lab/facts.json
#   registry.sh down        remove both, unless a box still uses them
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

NAME=hearth-lab-registry
HOST=registry.hearth.test
CA=${LAB_CACHE}/ca
FACTS=${LAB_CACHE}/facts.json
IMAGE=hearth-lab/registry:latest
# What was pushed: a file a repository, with the ids of image and registry and the reference that boxes use.
PUSHED=${LAB_CACHE}/pushed

make_ca() {
  if [ -s "${CA}/registry.crt" ]; then
    # The files appear together (below); a pair that ends within a month is replaced by a new one.
    if openssl x509 -checkend 2592000 -noout -in "${CA}/registry.crt" >/dev/null 2>&1; then return 0; fi
  fi
  have openssl || apt_install openssl
  say "  making the lab's certificate authority"
  local new=${CA}.new
  rm -rf "${new}"
  mkdir -p "${new}"
  chmod 0700 "${new}"
  {
    openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 1825 -subj '/CN=Hearth lab CA' \
      -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
      -keyout "${new}/ca.key" -out "${new}/ca.crt"
    openssl req -newkey rsa:2048 -nodes -sha256 -subj "/CN=${HOST}" \
      -keyout "${new}/registry.key" -out "${new}/registry.csr"
    printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' "${HOST}" >"${new}/san"
    openssl x509 -req -sha256 -days 1825 -in "${new}/registry.csr" -extfile "${new}/san" \
      -CA "${new}/ca.crt" -CAkey "${new}/ca.key" -CAcreateserial -out "${new}/registry.crt"
  } >"${LAB_CACHE}/openssl.log" 2>&1 || die "openssl could not make the lab's certificates: see ${LAB_CACHE}/openssl.log."
  rm -rf "${CA}"
  mv "${new}" "${CA}"
}

network() {
  docker network inspect "${LAB_NETWORK}" >/dev/null 2>&1 ||
    docker network create --label "${LAB_LABEL}" "${LAB_NETWORK}" >/dev/null
}

# What the running container must have been made from; another answer means that it is made anew.
wanted() { echo "$(docker image inspect --format '{{.Id}}' "${IMAGE}") $(sha256sum <"${CA}/registry.crt" | cut -c1-16)"; }

container() {
  local want state
  want=$(wanted)
  state=$(docker container inspect --format '{{.State.Running}} {{index .Config.Labels "hearth.lab.made-from"}}' "${NAME}" 2>/dev/null || true)
  case ${state} in
    "true ${want}") return 0 ;;
    "false ${want}")
      say "  starting the registry again"
      docker start "${NAME}" >/dev/null
      return 0
      ;;
    ?*) docker rm --force --volumes "${NAME}" >/dev/null ;;
  esac
  say "  starting the registry"
  # Certificates are copied, not mounted: the engine may be on another machine than this folder.
  docker create --name "${NAME}" --label "${LAB_LABEL}" --label "hearth.lab.made-from=${want}" \
    --network "${LAB_NETWORK}" --network-alias "${HOST}" --publish 127.0.0.1::5000 \
    --volume /var/lib/docker-registry "${IMAGE}" >/dev/null
  mkdir -p "${CA}/hearth-lab"
  cp "${CA}/registry.crt" "${CA}/registry.key" "${CA}/hearth-lab/"
  docker cp "${CA}/hearth-lab" "${NAME}:/etc/" >/dev/null
  docker start "${NAME}" >/dev/null
}

push_now() { # image reference
  local attempt
  docker tag "$1" "$2"
  for attempt in 1 2 3 4 5; do
    if docker push "$2"; then return 0; fi
    sleep "${attempt}"
  done
  return 1
}

push() { # image repository registry-id about
  local image=$1 repository=$2 registry=$3 id seen=() port reference digest
  id=$(docker image inspect --format '{{.Id}}' "${image}")
  read -ra seen 2>/dev/null <"${PUSHED}/${repository}" || true
  # Both ids decide: another image, or a new and therefore empty registry.
  if [ "${seen[*]:0:2}" = "${id} ${registry}" ]; then return 0; fi
  port=$(docker port "${NAME}" 5000/tcp | head -n 1 | sed 's/.*://')
  # Docker takes a registry on the loopback without asking for its CA, so that this engine needs no setup.
  reference=127.0.0.1:${port}/${repository}
  logged "pushing the image ${image%:*} to the registry, $4" "${LAB_CACHE}/push-${repository}.log" \
    push_now "${image}" "${reference}:lab"
  digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "${image}" |
    sed -n "s|^${reference}@||p" | head -n 1)
  docker rmi "${reference}:lab" >/dev/null
  case ${digest} in
    sha256:*) ;;
    *) die "${image} was pushed but has no digest: see ${LAB_CACHE}/push-${repository}.log." ;;
  esac
  mkdir -p "${PUSHED}"
  echo "${id} ${registry} ${HOST}:5000/${repository}@${digest}" >"${PUSHED}/${repository}.new"
  mv "${PUSHED}/${repository}.new" "${PUSHED}/${repository}"
}

# What this registry really has: an image that was pushed to an earlier one is not told of.
write_facts() { # registry-id
  local pair file seen lines=()
  for pair in llama_image=llama.cpp ollama_image=ollama vllm_image=vllm-cpu; do
    file=${PUSHED}/${pair#*=}
    if [ ! -e "${file}" ]; then continue; fi
    read -ra seen <"${file}"
    if [ "${seen[1]}" = "$1" ]; then lines+=("$(printf '  "%s": "%s"' "${pair%%=*}" "${seen[2]}")"); fi
  done
  {
    echo "{"
    (IFS=$'\n' && echo "${lines[*]}") | sed '$!s/$/,/'
    echo "}"
  } >"${FACTS}.new"
  if cmp -s "${FACTS}.new" "${FACTS}"; then rm "${FACTS}.new"; else mv "${FACTS}.new" "${FACTS}"; fi
}

up() { # [vllm]
  local id
  lab_lock
  make_ca
  network
  container
  id=$(docker container inspect --format '{{.Id}}' "${NAME}")
  push hearth-lab/llama:latest llama.cpp "${id}" "a few seconds"
  push hearth-lab/ollama:latest ollama "${id}" "a few seconds"
  case ${1:-} in
    '') ;;
    vllm) push hearth-lab/vllm:latest vllm-cpu "${id}" "about a minute" ;;
    *) die "registry.sh up knows the word vllm, not '$1'." ;;
  esac
  write_facts "${id}"
}

down() {
  local others
  others=$(docker ps -a --filter "network=${LAB_NETWORK}" --format '{{.Names}}' | grep -vx "${NAME}" || true)
  if [ -n "${others}" ]; then
    say "  the registry stays up: $(tr '\n' ' ' <<<"${others}")still use it"
    return 0
  fi
  if docker container inspect "${NAME}" >/dev/null 2>&1; then
    say "  removing the registry"
    docker rm --force --volumes "${NAME}" >/dev/null
  fi
  if docker network inspect "${LAB_NETWORK}" >/dev/null 2>&1; then docker network rm "${LAB_NETWORK}" >/dev/null; fi
}

case ${1:-up} in
  up) up "${2:-}" ;;
  down) down ;;
  *) die "registry.sh knows the verbs up and down, not '$1'." ;;
esac
