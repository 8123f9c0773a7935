# SPDX-License-Identifier: Apache-2.0
"""Shows how a download goes on: the module waits for it in turns, and between two turns it is shown how far it is."""

from __future__ import annotations

from ansible_collections.hearth.spark.plugins.plugin_utils._turns import Turns


class ActionModule(Turns):
    """See the module's documentation."""

    MODULE = "hearth.spark.model"
    WORK = "download"
    LOOK = "journalctl -u 'hearth-download-*'"
    TURN_S = 30.0
    REWRITE_S = 2.0
