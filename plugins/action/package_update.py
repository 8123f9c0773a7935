# SPDX-License-Identifier: Apache-2.0
"""Shows how an update goes on: the module waits for it in turns, and between two turns it is shown how far it is."""

from __future__ import annotations

from ansible_collections.hearth.spark.plugins.plugin_utils._turns import Turns


class ActionModule(Turns):
    """See the module's documentation."""

    MODULE = "hearth.spark.package_update"
    WORK = "update"
    LOOK = "journalctl -u 'hearth-update-*'"
    TURN_S = 10.0
    REWRITE_S = 2.0
