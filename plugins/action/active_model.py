# SPDX-License-Identifier: Apache-2.0
"""Shows how a change of engines goes on: the module waits for it in turns, and between two turns a line is shown."""

from __future__ import annotations

from ansible_collections.hearth.spark.plugins.plugin_utils._turns import Turns


class ActionModule(Turns):
    """See the module's documentation."""

    MODULE = "hearth.spark.active_model"
    WORK = "change"
    LOOK = "hearth status"
    TURN_S = 5.0
