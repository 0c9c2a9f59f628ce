"""Lead names, and the limb leads that follow exactly from two others.

The six limb leads see the frontal plane, which has two dimensions, so any two of them give the other four: Einthoven's
law (II = I + III) and Goldberger's augmented leads (Kligfield et al., Circulation 115:1306, 2007, "Derivation of limb
leads"). Travels with the weights: numpy only.
"""

import re

import numpy as np

from .configuration_ecgdan import STANDARD_LEADS

# Each limb lead as a combination (a, b) meaning a * I + b * II. The order is the order of trust for derivation.
LIMB_LEADS: dict[str, tuple[float, float]] = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}

# Recognised, because real files hold them too, but no substitute for any of the twelve leads.
EXTRA_LEADS = ("V7", "V8", "V9", "V3R", "V4R", "V5R", "V6R", "VX", "VY", "VZ")

_PREFIX = re.compile(r"^(?:(?:ECG|EKG|LEAD)[\s_:.\-]*)+")

_ALIASES = {
    **{name.upper(): name for name in (*STANDARD_LEADS, *EXTRA_LEADS)},
    **{f"{prefix}{roman}": roman for roman in ("I", "II", "III") for prefix in ("ML", "D")},
    **{f"{prefix}{number}": "I" * number for number in (1, 2, 3) for prefix in ("D", "L")},
    **{f"C{number}": f"V{number}" for number in range(1, 7)},
    **{f"MV{number}": f"V{number}" for number in range(1, 7)},
    **{axis: f"V{axis}" for axis in "XYZ"},
}


def _canonical_lead(name: str) -> str:
    """The standard spelling of a lead name in any case, with the common aliases.

    `AVR`, `avr` -> `aVR`; `MLII`, `Lead II`, `DII`, `D2` -> `II`; `C1` -> `V1` (IEC); `ECG V1` -> `V1`.

    Raises:
        ValueError: not a lead this package knows.
    """
    bare = _PREFIX.sub("", str(name).strip().upper()).replace(" ", "").replace("_", "")
    if bare not in _ALIASES:
        raise ValueError(
            f"lead_names: {name!r} is no lead known here; expected names such as {', '.join(STANDARD_LEADS)}"
        )
    return _ALIASES[bare]


def canonical_leads(names: list[str] | tuple[str, ...]) -> list[str]:
    """Standard spellings of all names; raises a ValueError for an unknown lead, or two names for one lead."""
    leads = [_canonical_lead(name) for name in names]
    for lead in leads:
        twice = [str(name) for name, other in zip(names, leads, strict=True) if other == lead]
        if len(twice) > 1:
            raise ValueError(f"lead_names: {' and '.join(twice)} are the same lead {lead}; expected each lead once")
    return leads


def derive_limb_lead(lead: str, recorded: dict[str, np.ndarray]) -> np.ndarray | None:
    """A limb lead from two of the `recorded`, (samples,) mV by name; None where it does not follow from them."""
    sources = [name for name in LIMB_LEADS if name in recorded and name != lead][:2]
    if lead not in LIMB_LEADS or len(sources) < 2:
        return None
    basis = np.array([LIMB_LEADS[name] for name in sources]).T  # columns: the sources in terms of (I, II)
    first, second = np.linalg.solve(basis, np.array(LIMB_LEADS[lead]))
    return np.asarray(first * recorded[sources[0]] + second * recorded[sources[1]])


def einthoven_residual(recorded: dict[str, np.ndarray]) -> float:
    """Root mean square of II - I - III over that of the three leads: 0 if consistent, nan without all three.

    `recorded`: (samples,) mV by lead name, baseline removed.
    """
    if any(lead not in recorded for lead in ("I", "II", "III")):
        return float("nan")
    limb = np.stack([recorded[lead] for lead in ("I", "II", "III")])
    residual = limb[1] - limb[0] - limb[2]
    return float(np.sqrt(np.mean(residual**2) / max(np.mean(limb**2), 1e-12)))
