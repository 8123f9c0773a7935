# SPDX-License-Identifier: Apache-2.0
"""HTTP to what this box runs itself."""

from __future__ import annotations

import requests


def session() -> requests.Session:
    """A session for the box's own engines: a proxy or a .netrc of the environment has no part in it."""
    made = requests.Session()
    made.trust_env = False
    return made
