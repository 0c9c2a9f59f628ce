from ecgdan_hf.data.check.problems import PROBLEMS
from ecgdan_hf.data.flag_words import DOUBTS, HARMLESS, MATTERS, by_importance, flag_words, notable
from ecgdan_hf.model import doubts_ecgdan
from ecgdan_hf.model.preparation_ecgdan import FLAGS

OF_FOLDERS = ("unreadable", "no_usable_lead", "duplicate", "patient", "outcome", "time_", "left_out", "record_without")


def test_every_flag_of_the_preparation_and_every_problem_of_a_signal_has_words():
    problems = {name for name in PROBLEMS if not name.startswith(OF_FOLDERS)} - {"amplitude_differs"}
    unknown = (set(FLAGS) | problems) - {*MATTERS, *HARMLESS}
    assert unknown <= {"amplitudes_unusual", "lead_missing", "lead_of_other_rate", "channel_skew"}
    assert set(DOUBTS) == set(doubts_ecgdan._WEIGHTS)


def test_what_matters_stands_before_what_is_unknown_and_what_is_harmless():
    flags = ["resampled:500Hz", "something_new:V1", "lead_flat:V3", "padded", "doubtful:inverted", "lead_flat:V3"]
    ordered = by_importance(flags)
    assert ordered == ["doubtful:inverted", "lead_flat:V3", "something_new:V1", "padded", "resampled:500Hz"]
    assert notable(flags) == ["looks upside down", "V3: flat line; not used", "V1: something new"]


def test_details_are_told_in_words():
    assert flag_words("doubtful:empty_0.34") == "no lead changes for 34% of the recording"
    assert flag_words("doubtful:inverted+new_doubt") == "looks upside down; new doubt"
    assert flag_words("only_middle_judged:10s_of_1806s") == "10s of 1806s: only the middle was judged"
