"""Explanations of predictions: attribution maps as pure functions, sanity checks of them, and pages that show them.

Attribution: `gradient_times_input`, `integrated_gradients`, `occlude_leads`, `occlude_waves`, `attention_rollup`, of
the number that `score_of` picks from any head. Tests: `checks.sanity`. Page: `figures.explain_page`.
"""

from ecgdan_hf.explain.checks.randomisation import randomised, rank_correlation
from ecgdan_hf.explain.maps.attention import attention_rollup
from ecgdan_hf.explain.maps.gradients import gradient_times_input, integrated_gradients
from ecgdan_hf.explain.maps.methods import METHODS, maps_of, methods_of
from ecgdan_hf.explain.maps.occlusion import occlude_leads, occlude_time, occlude_waves, wave_stretches
from ecgdan_hf.explain.maps.scores import score_of

__all__ = [
    "METHODS",
    "attention_rollup",
    "gradient_times_input",
    "integrated_gradients",
    "maps_of",
    "methods_of",
    "occlude_leads",
    "occlude_time",
    "occlude_waves",
    "randomised",
    "rank_correlation",
    "score_of",
    "wave_stretches",
]
