# SPDX-License-Identifier: Apache-2.0
"""The box half of Hearth: reads /etc/hearth/engines.json and asks systemd to start and stop engines."""

__version__ = "0.1.0"
