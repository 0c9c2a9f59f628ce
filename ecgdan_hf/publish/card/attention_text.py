"""Text of a card about attention maps: only what `ecgdan sanity` measured."""

from collections.abc import Mapping
from typing import Any

NEARLY_EVEN = 0.95
"""Share of the largest possible entropy above which a map hardly tells one key from another."""


def attention_sentences(metrics: Mapping[str, Any]) -> str:
    """A paragraph on the maps.

    Args:
        metrics: content of the `metrics.json` of `ecgdan sanity`.
    """
    said = [
        f"On {metrics['num_records']:,} records, parts of the ECG were deleted in the order of the attention they "
        f"receive, and the {metrics['change']} was compared with that under other orders."
    ]
    said += [_unit(unit, metrics[unit]) for unit in ("leads", "time") if unit in metrics]
    said.append("Attention is one step of the network: neither result makes a map an explanation of a cause.")
    return " ".join(said)


def _unit(unit: str, found: Mapping[str, Any]) -> str:
    name = {"leads": "**Lead map**", "time": "**Temporal map**"}[unit]
    entropy, even = found["entropy"]["estimate"], found["even_entropy"]
    shape = "nearly even: it hardly singles anything out" if entropy > NEARLY_EVEN * even else "not even"
    parts = [f"{name}: entropy {entropy:.2f} of {even:.2f} nats ({shape})."]
    parts.append(f"Deleting what is attended to most {_against(found, 'random')}.")
    shifted = found.get("area_over_shifted")
    if shifted:
        parts.append(f"Compared with the same pattern moved elsewhere in the record, it {_against(found, 'shifted')}.")
    return " ".join(parts) + f" {_conclusion(unit, found)}"


def _against(found: Mapping[str, Any], order: str) -> str:
    area = found[f"area_over_{order}"]
    span = f"mean gap {area['estimate']:+.4f}, 95 % interval {area['low']:+.4f} to {area['high']:+.4f}"
    than = "a random order" if order == "random" else "there"
    if area["low"] > 0:
        return f"changes the output sooner than {than} ({span})"
    if area["high"] < 0:
        return f"changes the output later than {than} ({span})"
    return f"cannot be told from {'a random order' if order == 'random' else 'deleting there'} ({span})"


def _conclusion(unit: str, found: Mapping[str, Any]) -> str:
    what = {"leads": "leads", "time": "moments"}[unit]
    areas = [found[key] for key in ("area_over_random", "area_over_shifted") if key in found]
    if all(area["low"] > 0 for area in areas):
        return f"So the map does point at {what} the output depends on."
    return f"So the map must not be read as showing the {what} the output depends on."
