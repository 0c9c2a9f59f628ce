"""Recordings reduced to the leads of a smaller device: the other leads are masked and zero.

Limb leads that follow from two kept ones are kept too, as the feature extractor derives them from a device's I and II.
For rhythm input the network then sees what it would see of the device's own files; a median beat was still found on
all leads. `tests/benchmarks/bench_reduced_leads.py` reduces the recordings themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdan_hf.model.leads_ecgdan import LIMB_LEADS, canonical_leads


def kept_leads(leads: Sequence[str] | str | None, lead_names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns which of `lead_names` stay or follow from those that stay: (leads,) boolean; all for None.

    >>> kept_leads("avf, V1", ["I", "II", "aVF", "V1"]).tolist()
    [False, False, True, True]
    >>> kept_leads("I, avf", ["I", "II", "aVF", "V1"]).tolist()
    [True, True, True, False]

    Args:
        leads: names in any spelling, as a sequence or separated by commas.
        lead_names: of the network's input, in order.

    Raises:
        ValueError: no lead, an unknown one, or one the network does not have.
    """
    if leads is None:
        return np.ones(len(lead_names), dtype=bool)
    given = leads.split(",") if isinstance(leads, str) else list(leads)
    names = canonical_leads([name for name in given if name.strip()])
    absent = [name for name in names if name not in lead_names]
    if absent or not names:
        found = ", ".join(absent) or "none"
        raise ValueError(f"leads: expected some of the model's {', '.join(lead_names)}, got {found}")
    derived = LIMB_LEADS if len(set(names) & set(LIMB_LEADS)) > 1 else ()
    return np.isin(list(lead_names), [*names, *derived])


def _mask_leads(batch: Mapping[str, Any], kept: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Returns a batch with `input_values` (n, leads, samples) and `lead_mask` (n, leads), reduced to these leads."""
    values, mask = np.asarray(batch["input_values"]), np.asarray(batch["lead_mask"], dtype=bool) & kept
    return {**batch, "input_values": np.where(mask[:, :, None], values, 0).astype(values.dtype), "lead_mask": mask}


def row_batches(
    dataset: Any, batch_size: int, kept: npt.NDArray[np.bool_] | None = None
) -> Iterator[Mapping[str, Any]]:
    """Yields batches of the network's inputs, reduced to the leads in `kept` (None: all).

    Args:
        dataset: a `datasets.Dataset` with `input_values` and `lead_mask`.
        batch_size: records each.
        kept: (leads,), from [`kept_leads`].
    """
    for batch in dataset.with_format("numpy", columns=["input_values", "lead_mask"]).iter(batch_size=batch_size):
        yield batch if kept is None or kept.all() else _mask_leads(batch, kept)
