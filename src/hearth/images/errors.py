# SPDX-License-Identifier: Apache-2.0
"""What a registry's refusals mean, each in one sentence. Pure."""

from __future__ import annotations

from http import HTTPStatus

from hearth.download.errors import DownloadError, TransientError
from hearth.errors import HearthError
from hearth.images.reference import HUB, Reference

# Asked again: what a busy or restarting server answers.
_TRANSIENT = frozenset((408, 425, 500, 502, 503, 504))
_LOGIN = "images_registries"


class ImageError(HearthError):
    """An image could not be had, or may not serve."""


def wrong_login(reference: Reference, user: str) -> DownloadError:
    """The registry knows no such user with that password."""
    ngc = ""
    if reference.registry == "nvcr.io" and user != "$oauthtoken":
        ngc = " (of nvcr.io the user is $oauthtoken, and the password a key of ngc.nvidia.com)"
    return DownloadError(
        f"{reference.registry} does not take the user {user} with the password given: correct them in {_LOGIN}{ngc}"
    )


def refused(
    reference: Reference, status: int, code: str, words: str, *, user: str, wait_s: float
) -> DownloadError | TransientError:
    """HTTP status, and code and words of the first error of an answer (OCI Distribution 1.1, "Error Codes")."""
    name, registry = reference.name, reference.registry
    said = f" ({words})" if words else ""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        more = "" if user else f", or log in, which allows more ({_LOGIN})"
        again = f"in {wait_s:.0f} s" if wait_s else "later; docker.io counts over hours" if registry == HUB else "later"
        return DownloadError(f"{registry} takes no more requests from here for now{said}: ask again {again}{more}")
    if status in _TRANSIENT:
        return TransientError(f"{name}: {registry} answered HTTP {status}{said}", wait_s)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if not user:
            return DownloadError(
                f"{registry} gives {name} to nobody who has not logged in, or has no such image{said}: give user and "
                f"password for {registry} in {_LOGIN}, or correct the image's name"
            )
        return DownloadError(
            f"{registry} knows {user}, but does not give {name} to that user, or has no such image{said}: accept its "
            "terms or ask for access there, or correct the image's name"
        )
    if status == HTTPStatus.NOT_FOUND:
        if code == "NAME_UNKNOWN":
            return DownloadError(f"{registry} has no image {name} (any more): correct its name")
        what = f"digest {reference.digest}" if reference.digest else f"tag {reference.tag}"
        return DownloadError(f"{registry} has {name}, but not with the {what} (any more): take another one")
    return DownloadError(f"{registry} answered HTTP {status} for {reference.words}{said}: is it a registry?")


def wrong_architecture(reference: Reference, have: list[str], wanted: str) -> DownloadError:
    there = " and ".join(dict.fromkeys(have)) or "nothing that runs on Linux"
    return DownloadError(
        f"{reference.words} exists for {there}, and this box is {wanted}: nothing was fetched; take another image"
    )


def wrong_digest(reference: Reference, found: str) -> DownloadError:
    return DownloadError(
        f"{reference.registry} answered for {reference.words} with something else ({found}): nothing was fetched; the "
        "registry, or a proxy on the way to it, is broken or not to be trusted"
    )


def no_manifest(reference: Reference, kind: str) -> DownloadError:
    return DownloadError(
        f"{reference.words} is of a kind that is no image of today ({kind or 'no media type'}): take another image"
    )
