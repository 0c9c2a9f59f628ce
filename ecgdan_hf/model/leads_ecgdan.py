"""Lead names, and the limb leads that follow exactly from two others.

The six limb leads see the frontal plane, which has two dimensions, so any two of them give the other four: Einthoven's
law (II = I + III) and Goldberger's augmented leads (Kligfield et al., Circulation 115:1306, 2007, "Derivation of limb
leads"). Travels with the weights: numpy only.
"""

import re
from functools import cache

import numpy as np

from .contract_ecgdan import STANDARD_LEADS

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

MAX_CONTRADICTION = 0.2  # of the size of the limb leads; 0.015 at most in PTB-XL
MAX_ROUNDING = 0.03  # of the size of a lead that is another one, in coarse counts
ONE_AXIS = 0.95  # squared correlation of two leads of which any third is a multiple
SLOPE_SECONDS = 0.02  # over which leads are compared

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


def known_lead(name: str) -> str | None:
    """Standard spelling of a lead name; None for a name that is no lead known here."""
    try:
        return _canonical_lead(name)
    except ValueError:
        return None


def derive_limb_lead(lead: str, recorded: dict[str, np.ndarray]) -> np.ndarray | None:
    """A limb lead from two of the `recorded`, (samples,) mV by name; None where it does not follow from them."""
    sources = [name for name in LIMB_LEADS if name in recorded and name != lead][:2]
    if lead not in LIMB_LEADS or len(sources) < 2:
        return None
    first, second = _coefficients(lead, *sources)
    return np.asarray(first * recorded[sources[0]] + second * recorded[sources[1]])


@cache
def _coefficients(lead: str, first: str, second: str) -> np.ndarray:
    """A limb lead as a combination of two others, (2,)."""
    basis = np.array([LIMB_LEADS[first], LIMB_LEADS[second]]).T  # columns: the two in terms of (I, II)
    coefficients: np.ndarray = np.linalg.solve(basis, np.array(LIMB_LEADS[lead]))
    return coefficients


def einthoven_residual(recorded: dict[str, np.ndarray]) -> float:
    """Root mean square of II - I - III over that of the three leads: 0 if consistent, nan without all three.

    `recorded`: (samples,) mV by lead name, baseline removed.
    """
    if any(lead not in recorded for lead in ("I", "II", "III")):
        return float("nan")
    limb = [recorded[lead] for lead in ("I", "II", "III")]
    residual = limb[1] - limb[0] - limb[2]
    size = sum(lead @ lead for lead in limb) / 3
    return float(np.sqrt((residual @ residual) / max(size, 1e-12 * len(residual))))


def contradicting_leads(recorded: dict[str, np.ndarray], sampling_rate: float) -> list[str]:
    """Limb leads that contradict the first two of those recorded by Einthoven's and Goldberger's laws.

    Leads that are exchanged, mislabelled or inverted do. Leads of unequal gains do not: some recorders scale each lead
    to its own range, as all of LUDB. The first two leads themselves are named if most others contradict them.
    `recorded`: (samples,) mV by lead name. Differences over 20 ms are compared, so that baseline wander does not
    matter; missing samples are left out.
    """
    names = [lead for lead in LIMB_LEADS if lead in recorded]
    if len(names) < 3:
        return []
    step = max(1, round(SLOPE_SECONDS * sampling_rate))
    signal = np.stack([recorded[lead] for lead in names])
    slopes = signal[:, step:] - signal[:, :-step]
    together = slopes @ slopes.T  # a missing sample shows in it
    finite = bool(np.isfinite(together).all())
    together = together.astype(np.float64) / max(slopes.shape[1], 1) if finite else _products(slopes)
    if finite and _agree(together, tuple(names)):
        return []
    power = together.diagonal() if finite else np.array([_products(slope[None])[0, 0] for slope in slopes])
    with_signal = np.flatnonzero(power > 0)
    pair, others = with_signal[:2], with_signal[2:]
    size = np.sqrt(power[with_signal].mean()) if len(others) else 0.0
    sources, wrong = [names[row] for row in pair], list[str]()
    for row in others:
        three = [*pair, row]
        products = together[np.ix_(three, three)] if finite else _products(slopes[three])
        stated = np.append(_coefficients(names[row], *sources), -1.0)
        if stated @ products @ stated <= (MAX_CONTRADICTION * size) ** 2:
            continue
        if not _fits_at_a_gain(products, stated) or _is_another(products, sources):
            wrong.append(names[row])
    return sources if 2 * len(wrong) > len(others) > 1 else wrong


def _agree(products: np.ndarray, names: tuple[str, ...]) -> bool:
    """Whether the leads have a signal, and all follow from the first two."""
    power = products.diagonal()
    stated = _laws(names)
    left = ((stated @ products) * stated).sum(axis=1)
    return bool((power > 0).all() and (left <= MAX_CONTRADICTION**2 * power.mean()).all())


@cache
def _laws(names: tuple[str, ...]) -> np.ndarray:
    """(leads - 2, leads): each lead but the first two as a combination of these, minus itself."""
    laws = -np.eye(len(names))[2:]
    laws[:, :2] = [_coefficients(name, *names[:2]) for name in names[2:]]
    return laws


def _products(slopes: np.ndarray) -> np.ndarray:
    """Mean products of rows (rows, samples), (rows, rows), over the samples that all of them have; 0 without any."""
    known = np.isfinite(slopes).all(axis=0)
    slopes = slopes if known.all() else slopes[:, known]
    products: np.ndarray = (slopes @ slopes.T).astype(np.float64) / max(slopes.shape[1], 1)
    return products


def _fits_at_a_gain(products: np.ndarray, stated: np.ndarray) -> bool:
    """Whether the last of three leads is a sum of the first two at any gains >= 0 with the signs of `stated`."""
    signs = np.sign(stated)
    products = products * np.outer(signs, signs)
    pair, overlap, total = products[:2, :2], -products[:2, 2], products[2, 2]
    determinant = pair[0, 0] * pair[1, 1] - pair[0, 1] ** 2
    gains = np.array([[pair[1, 1], -pair[0, 1]], [-pair[0, 1], pair[0, 0]]]) @ overlap
    explained = (np.maximum(overlap, 0) ** 2 / np.maximum(np.diag(pair), 1e-12)).max()
    if determinant > 1e-6 * pair[0, 0] * pair[1, 1] and gains.min() >= 0:
        explained = gains @ overlap / determinant
    return bool(total - explained <= MAX_CONTRADICTION**2 * total)


def _is_another(products: np.ndarray, sources: list[str]) -> bool:
    """Whether all leads have one axis, where any fits at a gain, and the last of three is another one exactly."""
    if products[0, 1] ** 2 < ONE_AXIS * products[0, 0] * products[1, 1]:
        return False
    names = np.array([_coefficients(lead, *sources) for lead in LIMB_LEADS])
    others = np.column_stack([np.concatenate([names, -names]), np.full(2 * len(names), -1.0)])
    left = ((others @ products) * others).sum(axis=1)
    return bool(left.min() <= MAX_ROUNDING**2 * products[2, 2])
