"""Devices: machines that models are run on, chosen by a short text (SPEC).

    local                                this machine, in a process of its own
    ssh://[user@]host[:port]             by the system's ssh and scp
    adb://[serial]                       Android, by the system's adb
    emulated://cortex-a53|a55|a72|a76    qemu-user; counts instructions, takes no times

Settings follow as a query, ``ssh://pi@kitchen?python=/opt/venv/bin/python``. Other packages add kinds by the entry
point ``edgepress.devices``: its name is the scheme, its value a function from :class:`Spec` to a :class:`Device`.
"""

from __future__ import annotations

from edgepress.devices.base import Device, Done, Level, Native, check_name
from edgepress.devices.remote import Agent, Answer
from edgepress.devices.spec import Spec, open_device, parse

__all__ = ["Agent", "Answer", "Device", "Done", "Level", "Native", "Spec", "check_name", "open_device", "parse"]
