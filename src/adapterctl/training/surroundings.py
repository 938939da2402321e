"""What training changes in the process it runs in, and puts back."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_LIBRARIES = r"(peft|transformers|accelerate|bitsandbytes|torch)(\.|$)"
_LOGGERS = ("peft", "accelerate", "bitsandbytes")
_EXPECTED_WARNINGS = (
    # bitsandbytes, int8: the matrix product is made in half precision; said on every call.
    r"MatMul8bitLt: inputs will be cast from",
    # bitsandbytes, paged optimizers: without a GPU there is nothing to page.
    r"Paged optimizers are not supported on CPU",
)


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Put the state of the global random number generators back: the libraries used here seed them."""
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Use ``count`` CPU threads inside; None leaves the number as it is."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers, PEFT and bitsandbytes from talking about what is meant to be so.

    Errors are still logged. Whoever sets the logger ``adapterctl`` to DEBUG hears everything.
    """
    from transformers.utils import logging as library

    if logging.getLogger("adapterctl").isEnabledFor(logging.DEBUG):
        yield
        return
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        library.set_verbosity_error()
        library.disable_progress_bar()
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning):
                # What one library calls in another and should call by a newer name is nothing a user can mend.
                warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)
            for message in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()
