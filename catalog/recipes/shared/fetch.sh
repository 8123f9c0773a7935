#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fetch.sh SOURCES CACHE OUT: brings each git source of the file SOURCES, at its commit and nothing else, to OUT/<name>.
#
# A line of SOURCES is: name, address, commit in full, and the submodules that are wanted: paths with commas between them,
# `all` with theirs in turn, or `-`. A commit names its files and its submodules' commits by their checksums, so that nothing
# else can come in their place. CACHE holds repositories from earlier builds; what it lacks is fetched.
set -eu

sources=$1 cache=$2 out=$3

fail() {
  echo "fetch: $*" >&2
  exit 1
}

bring() { # name address commit submodules
  store=${cache}/$1.git
  [ "${#3}" -eq 40 ] || fail "$1: a commit is written in full, with 40 digits, not as $3"
  # A store that a killed build left half made is no repository: it is made anew.
  git -C "${store}" rev-parse --git-dir >/dev/null 2>&1 || { rm -rf "${store}" && git init --quiet --bare "${store}"; }
  if ! git -C "${store}" cat-file -e "$3^{commit}" 2>/dev/null; then
    echo "fetch: $1 $3 from $2"
    git -C "${store}" fetch --quiet --depth 1 "$2" "$3" || fail "$1: $2 does not give commit $3"
  fi
  git init --quiet "${out}/$1"
  git -C "${out}/$1" fetch --quiet --depth 1 "${store}" "$3"
  git -C "${out}/$1" checkout --quiet --detach FETCH_HEAD
  head=$(git -C "${out}/$1" rev-parse HEAD)
  [ "${head}" = "$3" ] || fail "$1: HEAD is ${head} and not $3"
  # Addresses of submodules may be relative to this one.
  git -C "${out}/$1" remote add origin "$2"
  case $4 in
    -) ;;
    all) git -C "${out}/$1" submodule --quiet update --init --recursive --depth 1 || fail "$1: its submodules cannot be had" ;;
    *)
      echo "$4" | tr ',' '\n' | while read -r path; do
        git -C "${out}/$1" submodule --quiet update --init --depth 1 -- "${path}" ||
          fail "$1: its submodule ${path} cannot be had"
      done
      ;;
  esac
  echo "fetch: $1 is at ${head}"
}

mkdir -p "${cache}" "${out}"
git config --global --add safe.directory '*'
git config --global advice.detachedHead false
# The stores are asked for single commits.
git config --global uploadpack.allowAnySHA1InWant true
while read -r name address commit submodules; do
  case ${name} in '' | '#'*) continue ;; esac
  [ -n "${submodules}" ] || fail "${sources}: the line of ${name} wants a name, an address, a commit and submodules or -"
  bring "${name}" "${address}" "${commit}" "${submodules}"
done <"${sources}"
