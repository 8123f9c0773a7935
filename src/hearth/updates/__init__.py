# SPDX-License-Identifier: Apache-2.0
"""Packages of the box taken forward in steps that can be taken back.

``changes`` is pure: what apt says, what is held, what is written down. ``packages`` asks apt, dpkg and systemd,
``step`` changes the box, and ``job`` is the unit in which it does, so that a lost connection ends nothing.
"""
