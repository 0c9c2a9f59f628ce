"""Bundled code that computes something else than the package, whatever the text of the package is."""

CHANGE = """

_forward = EcgDanRiskHead.forward


def _changed(self, pooled):
    return _forward(self, pooled) + {by}


EcgDanRiskHead.forward = _changed
"""


def with_higher_log_hazard(heads: str, by: float) -> str:
    """Returns the text of `heads_ecgdan.py` with code that adds `by` to each log hazard of a survival model."""
    return heads + CHANGE.format(by=by)
