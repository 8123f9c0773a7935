#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An apt repository in the cache with stand-ins for the four packages of the NVIDIA container toolkit, in the shape of
# NVIDIA's: one flat folder an architecture, signed by a key of its own. Two versions, so that a pin has something to do.
#
#   .cache/lab/toolkit/repo/{gpgkey,stable/deb/<architecture>/}   what is served
#   .cache/lab/toolkit/{fingerprint,other.asc}                    the key's, and somebody else's key
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

SOURCE=${LAB_DIR}/toolkit
TARGET=${LAB_CACHE}/toolkit
VERSIONS=(1.20.1-1 1.21.0-1)
ARCHITECTURES=(amd64 arm64)

depends() { # package version
  case $1 in
    nvidia-container-toolkit) echo "nvidia-container-toolkit-base (= $2), libnvidia-container-tools (= $2)" ;;
    libnvidia-container-tools) echo "libnvidia-container1 (= $2)" ;;
    *) echo "libc6" ;;
  esac
}

package() { # name version architecture folder
  local tree=$4/tree
  rm -rf "${tree}"
  mkdir -p "${tree}/DEBIAN"
  cp -R "${SOURCE}/$1/." "${tree}/"
  if [ -e "${tree}/postinst" ]; then mv "${tree}/postinst" "${tree}/DEBIAN/postinst"; fi
  chmod -R u=rwX,go=rX "${tree}"
  find "${tree}" \( -path '*/bin/*' -o -name postinst \) -exec chmod 0755 {} +
  cat >"${tree}/DEBIAN/control" <<CONTROL
Package: $1
Version: $2
Architecture: $3
Maintainer: Hearth contributors
Depends: $(depends "$1" "$2")
Section: utils
Priority: optional
Description: the lab's stand-in for $1
CONTROL
  dpkg-deb --root-owner-group --build "${tree}" "$4/$1_$2_$3.deb"
  {
    cat "${tree}/DEBIAN/control"
    echo "Filename: ./$1_$2_$3.deb"
    echo "Size: $(stat -c %s "$4/$1_$2_$3.deb")"
    echo "SHA256: $(sha256sum "$4/$1_$2_$3.deb" | cut -d' ' -f1)"
    echo
  } >>"$4/Packages"
  rm -rf "${tree}"
}

new_key() { # home name
  mkdir -m 0700 "$1"
  gpg --homedir "$1" --batch --passphrase '' --quick-generate-key "$2" rsa3072 sign never
}

sign() { # home folder
  {
    echo "Origin: Hearth lab"
    echo "Date: $(LC_ALL=C date --utc '+%a, %d %b %Y %H:%M:%S +0000')"
    echo "SHA256:"
    echo " $(sha256sum "$2/Packages" | cut -d' ' -f1) $(stat -c %s "$2/Packages") Packages"
  } >"$2/Release"
  gpg --homedir "$1" --batch --yes --digest-algo SHA256 --clearsign --output "$2/InRelease" "$2/Release"
}

make() { # new
  local name version architecture folder
  mkdir -p "$1/repo"
  new_key "${HOMES}/ours" "Hearth lab packages"
  new_key "${HOMES}/other" "Somebody else"
  for architecture in "${ARCHITECTURES[@]}"; do
    folder=$1/repo/stable/deb/${architecture}
    mkdir -p "${folder}"
    for version in "${VERSIONS[@]}"; do
      for name in "${SOURCE}"/*/; do package "$(basename "${name}")" "${version}" "${architecture}" "${folder}"; done
    done
    sign "${HOMES}/ours" "${folder}"
  done
  gpg --homedir "${HOMES}/ours" --armor --export >"$1/repo/gpgkey"
  gpg --homedir "${HOMES}/other" --armor --export >"$1/other.asc"
  gpg --homedir "${HOMES}/ours" --with-colons --fingerprint | awk -F: '$1 == "fpr" { print $10; exit }' >"$1/fingerprint"
}

recipe() { (cd "${SOURCE}" && find . -type f | LC_ALL=C sort | xargs sha256sum) | sha256sum | cut -c1-16; }

lab_lock
want=$(recipe)
if [ "$(cat "${TARGET}/recipe" 2>/dev/null)" = "${want}" ]; then exit 0; fi
"${LAB_DIR}/tools.sh" gpg=gnupg dpkg-deb=dpkg
# Short, since gpg's agent listens on a socket in it, and gone in the end, with both secret keys.
HOMES=$(mktemp -d /tmp/hearth-gpg.XXXXXX)
cleanup() {
  local home
  for home in "${HOMES}"/*; do gpgconf --homedir "${home}" --kill all 2>/dev/null || true; done
  rm -rf "${HOMES}"
}
trap cleanup EXIT
rm -rf "${TARGET}.new"
logged "building the lab's container toolkit and its repository" "${LAB_CACHE}/toolkit.log" make "${TARGET}.new"
echo "${want}" >"${TARGET}.new/recipe"
rm -rf "${TARGET}"
mv "${TARGET}.new" "${TARGET}"
