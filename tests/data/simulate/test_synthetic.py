import hashlib
import json
import resource

import numpy as np
import pytest
import wfdb
from lifelines.utils import concordance_index
from scipy.stats import spearmanr

from ecgdan_hf.data import formats
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.data.sources import csv_table as csv_files
from ecgdan_hf.model.r_peaks_ecgdan import find_r_peaks, heart_rate


def test_limb_leads_obey_einthoven_and_goldberger(ecg):
    one, two, three, avr, avl, avf = ecg[:6]
    np.testing.assert_allclose(three, two - one, atol=1e-6)
    np.testing.assert_allclose(avr + avl + avf, 0, atol=1e-6)
    np.testing.assert_allclose(avr, -(one + two) / 2, atol=1e-6)


def test_amplitudes_and_rate_are_those_of_an_ecg():
    for rate in (50.0, 100.0):
        signal = synthetic.make_signal(0.0, 98.0, rate, seed=5)
        assert signal.shape == (12, 5000)
        assert 0.3 < np.median(np.ptp(signal, axis=1)) < 4
        assert heart_rate(find_r_peaks(signal, 500), 5000, 500) == pytest.approx(rate, abs=4)


def test_the_same_seed_gives_the_same_ecg_and_another_gives_another():
    first, again, other = (synthetic.make_signal(0.5, 100.0, 70.0, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_a_quarter_has_the_event_and_the_true_hazard_ranks_far_better_than_age_and_sex():
    table = synthetic._make_subjects(600, seed=0)
    attainable = concordance_index(table["time"], -table["log_hazard"], table["event"])
    age_sex = 0.03 * table["age"] + 0.3 * (table["sex"] == "male")
    alone = concordance_index(table["time"], -age_sex, table["event"])
    assert table["event"].mean() == pytest.approx(0.28, abs=0.002)
    assert 0.75 < attainable < 0.85
    assert 0.5 < alone < 0.65
    assert (table["time"] > 0).all()
    assert table["fold"].value_counts().tolist() == [60] * 10
    np.testing.assert_allclose(table["log_hazard"], synthetic._true_log_hazard(table))


def aligned_beat(signal):
    """(12, 500) of one second around the steepest beat in the middle of the record, each lead z-scored."""
    slope = np.abs(np.diff(signal, axis=1)).sum(axis=0)
    peak = 2000 + int(np.argmax(slope[2000:3000]))
    beat = signal[:, peak - 200 : peak + 300]
    return (beat - beat.mean(axis=1, keepdims=True)) / beat.std(axis=1, keepdims=True)


def test_what_drives_the_hazard_is_visible_after_the_z_score_of_each_lead():
    strains, widths = np.linspace(-2, 2, 25), np.geomspace(70, 160, 25)
    by_strain = [aligned_beat(synthetic.make_signal(s, 98.0, 65.0, seed=i)) for i, s in enumerate(strains)]
    by_width = [aligned_beat(synthetic.make_signal(0.0, w, 65.0, seed=i)) for i, w in enumerate(widths)]
    v5 = 10
    t_wave = [beat[v5, 310:350].mean() - np.median(beat[v5, :100]) for beat in by_strain]
    steepness = [np.abs(np.diff(beat[v5, 150:250])).max() for beat in by_width]
    assert spearmanr(strains, t_wave).statistic < -0.9
    assert spearmanr(widths, steepness).statistic < -0.6


def test_the_written_folder_is_one_of_real_files(cohort):
    subjects = synthetic._make_subjects(40, seed=3)
    signals = [synthetic._signal_of(row, 3) for row in subjects.itertuples()]
    table = csv_files.read_csv_table(cohort)
    assert table["record_id"].tolist() == subjects["record_id"].tolist()
    np.testing.assert_allclose(table["log_hazard"], subjects["log_hazard"])
    for i in (0, 39):
        record = formats.read(table["file"][i])
        np.testing.assert_allclose(record.signal_mv, signals[i], atol=6e-4)
        assert record.age == table["age"][i]
        assert record.sex == table["sex"][i]
    raw = wfdb.rdrecord(table["file"][7], physical=False)
    assert raw.calc_checksum() == raw.checksum
    facts = json.loads((cohort / "cohort.json").read_text(encoding="utf-8"))
    assert facts == {"simulated": True, "n": 40, "seed": 3}


def test_the_same_seed_writes_the_same_bytes(cohort, tmp_path):
    synthetic.write_cohort(tmp_path / "again", n=40, seed=3)
    for path in sorted(cohort.rglob("*.*")):
        again = tmp_path / "again" / path.relative_to(cohort)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest(), path


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="expected no folder or an empty one"):
        synthetic.write_cohort(tmp_path, n=20)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine.txt"]


def test_a_cohort_that_cannot_be_written_whole_leaves_nothing(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))  # as a full disk would stop it
    try:
        with pytest.raises(OSError):
            synthetic.write_cohort(tmp_path / "cohort", n=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


def test_too_few_subjects_are_refused():
    with pytest.raises(ValueError, match="n: expected at least 20 subjects, got 5"):
        synthetic._make_subjects(5, seed=0)
