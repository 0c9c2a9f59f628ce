"""Libraries that tell their makers how they are used, switched off before they start.

A hospital's machine should ask nobody but the Hub, and that only where it is told to. What a user has set in the
environment is kept.
"""

import os
from importlib import import_module
from types import ModuleType

_OFF = {
    "onnxruntime": ("ORT_DISABLE_TELEMETRY", "1"),  # from 1.29: names and hashes of models, to Microsoft
    "ray": ("RAY_USAGE_STATS_ENABLED", "0"),  # size and versions of the cluster, to Anyscale
}


def import_silently(name: str) -> ModuleType:
    """Imports one of these libraries, which then reports nothing; raises ImportError if it is not installed."""
    os.environ.setdefault(*_OFF[name])
    return import_module(name)
