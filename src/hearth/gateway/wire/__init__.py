# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1: the listener and its exchanges, and connections to engines. Only this folder knows httptools."""

from hearth.gateway.wire.answer import EngineGoneError
from hearth.gateway.wire.exchange import Exchange, Handler
from hearth.gateway.wire.head import Headers
from hearth.gateway.wire.limits import Limits
from hearth.gateway.wire.pool import Pool
from hearth.gateway.wire.server import Listener, serve

__all__ = ["EngineGoneError", "Exchange", "Handler", "Headers", "Limits", "Listener", "Pool", "serve"]
