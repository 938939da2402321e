"""Who works here, for notes about who did what."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from getpass import getuser


def this_user() -> str:
    """Return the name of the user; a container may run under a number that has none."""
    with suppress(OSError, KeyError):
        return getuser()
    return str(os.getuid())


def this_person() -> str:
    """Return the user and the machine, as ``name@machine``."""
    return f"{this_user()}@{platform.node()}"
