"""Predictions for files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wfdb

from ecgdan_hf.cli.predict import VERBS
from ecgdan_hf.data.formats import read
from ecgdan_hf.data.sources.ecg_folder import expand_files
from ecgdan_hf.explain.page.figures import Explanation
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.predict import predict
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining, EcgDanForSequenceClassification, EcgDanForSurvival

TINY = {"trunk_channels": [2, 2, 4, 4, 4], "num_attention_heads": 2, "hidden_size": 16, "stem_features": 2}


def ecg(seed: int) -> np.ndarray:
    """(12, 1000) millivolt at 100 Hz: narrow beats whose size and rate depend on the seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(1000) / 100
    beats = sum(np.exp(-0.5 * ((time - start) / 0.02) ** 2) for start in np.arange(0.4, 10, rng.uniform(0.6, 1.0)))
    return rng.uniform(0.4, 1.5, (12, 1)) * beats + 0.02 * rng.normal(size=(12, 1000))


def write_npz(path: Path, seed: int = 0, leads: int = 12, **change: object) -> Path:
    content = {"signal": ecg(seed)[:leads], "sampling_rate": 100, "unit": "mV", "lead_names": STANDARD_LEADS[:leads]}
    np.savez(path, **{**content, **change})
    return path


def write_wfdb(folder: Path, name: str, seed: int = 0, comments: list[str] | None = None) -> Path:
    signal, names = ecg(seed).T, list(STANDARD_LEADS)
    gains = {"fmt": ["16"] * 12, "adc_gain": [1000.0] * 12, "baseline": [0] * 12}
    wfdb.wrsamp(
        name,
        fs=100,
        units=["mV"] * 12,
        sig_name=names,
        p_signal=signal,
        write_dir=str(folder),
        comments=comments,
        **gains,
    )
    return folder / f"{name}.hea"


def survival_model(**fields: object) -> tuple[EcgDanForSurvival, EcgDanFeatureExtractor]:
    torch.manual_seed(0)
    config = EcgDanSurvivalConfig(**TINY, input_kind="rhythm", normalization="global", **fields)
    model = EcgDanForSurvival(config).eval()
    with torch.no_grad():  # random weights on a random scale: keep the risks away from 0 and 1
        model.risk_head.output.weight.mul_(0.01)
    model.fit_baseline(torch.zeros(80), (torch.arange(80) % 3 == 0).float(), torch.linspace(0.1, 6.0, 80))
    return model, EcgDanFeatureExtractor(**config.signal_contract)


def test_a_row_holds_what_the_model_says_of_that_file_alone(tmp_path: Path) -> None:
    model, extractor = survival_model()
    files = [write_npz(tmp_path / f"{seed}.npz", seed) for seed in range(5)]
    table = predict(files, model, extractor, batch_size=2)
    assert list(table.columns) == [
        *("file", "log_hazard", "risk_1y", "risk_5y", "risk_10y"),
        *("endpoint", "num_leads", "flags", "error"),
    ]
    assert list(table["file"]) == [str(file) for file in files]
    assert table["log_hazard"].nunique() == 5
    for file, row in zip(files, table.itertuples(), strict=True):
        inputs = extractor(**read(file).as_inputs(), return_tensors="pt")
        with torch.no_grad():
            assert row.log_hazard == pytest.approx(model(**inputs).log_hazard.item(), abs=1e-5)
        assert row.risk_5y == pytest.approx(model.predict_risk(**inputs, horizon_years=5).item(), abs=1e-5)
    assert table["risk_10y"].isna().all()  # follow-up ends after six years
    assert (table["risk_1y"] < table["risk_5y"]).all()
    assert set(table["endpoint"]) == {"event"}
    assert list(table["num_leads"]) == [12] * 5
    assert (table["error"] == "").all()


def test_a_bad_file_gets_a_row_with_the_reason_and_the_others_go_on(tmp_path: Path) -> None:
    model, extractor = survival_model()
    good = [write_npz(tmp_path / "a.npz", 1), write_npz(tmp_path / "z.npz", 2)]
    counts = write_npz(tmp_path / "counts.npz", signal=np.round(ecg(0) * 1000))
    truncated = write_wfdb(tmp_path, "truncated")
    data = tmp_path / "truncated.dat"
    data.write_bytes(data.read_bytes()[:1000])
    (tmp_path / "notes.txt").write_text("no ECG", encoding="utf-8")
    bad = [counts, truncated, tmp_path / "notes.txt", tmp_path / "absent.npz"]
    table = predict([good[0], *bad, good[1]], model, extractor).set_index("file")
    for file in bad:
        row = table.loc[str(file)]
        assert file.stem in row["error"]
        assert "\n" not in row["error"]
        assert np.isnan(row["log_hazard"])
        assert pd.isna(row["num_leads"])
    alone = predict(good, model, extractor).set_index("file")
    assert table.loc[[str(file) for file in good], "log_hazard"].to_numpy() == pytest.approx(
        alone["log_hazard"].to_numpy(), abs=1e-5
    )
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: no such file"):
        predict(bad[3], model, extractor, on_error="raise")
    with pytest.raises(ValueError, match="counts"):
        predict(counts, model, extractor, on_error="raise")


def test_a_prediction_that_is_not_finite_is_an_error_and_no_missing_risk(tmp_path: Path) -> None:
    model, extractor = survival_model()
    files = [write_npz(tmp_path / f"{seed}.npz", seed) for seed in range(2)]
    hazards = iter([torch.tensor([[0.3], [float("nan")]])])
    model.risk_head.forward = lambda *args, **kwargs: next(hazards)
    table = predict(files, model, extractor)
    assert list(table["error"]) == ["", "expected finite predictions, the model gave NaN or infinity for this signal"]
    assert table.loc[0, "log_hazard"] == pytest.approx(0.3) and pd.isna(table.loc[1, "log_hazard"])
    assert pd.isna(table.loc[1, "endpoint"])


def test_files_that_are_all_bad_still_make_a_table(tmp_path: Path) -> None:
    model, extractor = survival_model()
    table = predict([tmp_path / "a.npz", tmp_path / "b.npz"], model, extractor)
    assert len(table) == 2
    assert table["log_hazard"].isna().all()


def test_few_leads_are_counted_with_the_derived_ones_and_flagged(tmp_path: Path) -> None:
    model, extractor = survival_model()
    row = predict(write_npz(tmp_path / "two.npz", leads=2), model, extractor).iloc[0]
    assert row["num_leads"] == 6
    assert "lead_derived:" in row["flags"]
    assert "lead_absent:" in row["flags"]
    assert ";" in row["flags"]


def test_what_a_file_does_not_say_must_be_given(tmp_path: Path) -> None:
    model, extractor = survival_model()
    np.save(tmp_path / "bare.npy", ecg(0))
    file = tmp_path / "bare.npy"
    assert "sampling_rate" in predict(file, model, extractor)["error"].iloc[0]
    options = {"sampling_rate": 100, "unit": "mV", "lead_names": STANDARD_LEADS}
    told = predict(file, model, extractor, read_options=options)
    complete = predict(write_npz(tmp_path / "full.npz"), model, extractor)
    assert told["log_hazard"].iloc[0] == pytest.approx(complete["log_hazard"].iloc[0], abs=1e-5)


def test_simulated_outcomes_are_called_simulated_and_an_unfitted_baseline_gives_no_risk(tmp_path: Path) -> None:
    config = EcgDanSurvivalConfig(**TINY, input_kind="rhythm", simulated_outcome=True)
    extractor = EcgDanFeatureExtractor(**config.signal_contract)
    row = predict(write_npz(tmp_path / "a.npz"), EcgDanForSurvival(config).eval(), extractor).iloc[0]
    assert row["endpoint"] == "simulated event"
    assert np.isfinite(row["log_hazard"])
    assert np.isnan(row["risk_1y"])


def test_a_classifier_gives_probabilities_and_decides_by_its_thresholds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = EcgDanConfig(**TINY, input_kind="rhythm", id2label={0: "NORM", 1: "MI", 2: "HYP"})
    model, extractor = (
        EcgDanForSequenceClassification(config).eval(),
        EcgDanFeatureExtractor(**config.signal_contract),
    )
    file = write_npz(tmp_path / "a.npz")
    probabilities = predict(file, model, extractor)[["NORM", "MI", "HYP"]].iloc[0]
    with torch.no_grad():
        expected = model(**extractor(**read(file).as_inputs(), return_tensors="pt")).logits.sigmoid()[0]
    assert probabilities.to_numpy(dtype=float) == pytest.approx(expected.numpy(), abs=1e-5)
    model.config.thresholds = {
        "NORM": float(probabilities["NORM"]) + 0.01,
        "MI": 0.0,
        "HYP": float(probabilities["HYP"]),
    }
    assert predict(file, model, extractor)["positive"].iloc[0] == "MI;HYP"
    model.config.thresholds = {"NORM": 2.0, "MI": 2.0, "HYP": 2.0}
    assert predict(file, model, extractor)["positive"].iloc[0] == ""


def test_thresholds_are_not_applied_to_a_few_leads(tmp_path: Path) -> None:
    torch.manual_seed(0)  # other weights make noise as certain as 1.0
    config = EcgDanConfig(**TINY, input_kind="rhythm", id2label={0: "NORM"}, thresholds={"NORM": 0.0})
    model, extractor = EcgDanForSequenceClassification(config).eval(), EcgDanFeatureExtractor(**config.signal_contract)
    signal = np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32)
    for count, positive in ((2, "NORM"), (1, None)):  # two limb leads give all six
        leads = np.array(["I", "II"][:count])
        file = tmp_path / f"{count}.npz"
        np.savez(file, signal=signal[:count], sampling_rate=500, unit="mV", lead_names=leads)
        row = predict(file, model, extractor).iloc[0]
        assert row["error"] == ""
        assert row["positive"] == positive
        assert ("thresholds_need_more_leads" in row["flags"]) == (positive is None)
        assert 0 < row["NORM"] < 1


def test_covariates_come_from_the_table_then_from_the_header_then_from_the_mean(tmp_path: Path) -> None:
    fields = {"covariate_names": ["age", "sex"], "covariate_means": [60.0, 0.5], "covariate_stds": [10.0, 0.5]}
    model, extractor = survival_model(**fields)
    with torch.no_grad():
        model.covariate_head.weight.copy_(torch.tensor([[1.0, 0.3]]))
    plain = write_wfdb(tmp_path, "plain", seed=1)
    header = write_wfdb(tmp_path, "header", seed=1, comments=["Age: 80", "Sex: M"])
    half = write_wfdb(tmp_path, "half", seed=1)
    table = pd.DataFrame({"file": [str(tmp_path / "half")], "age": [np.nan], "sex": ["female"]})
    options = {"covariates": table, "missing_covariates": "mean"}
    base, by_header, by_table = predict([plain, header, half], model, extractor, **options)["log_hazard"]
    assert by_header - base == pytest.approx((80 - 60) / 10 + 0.3 * (1 - 0.5) / 0.5, abs=1e-4)
    assert by_table - base == pytest.approx(0.3 * (0 - 0.5) / 0.5, abs=1e-4)


def survival_of_age_and_sex() -> tuple[EcgDanForSurvival, EcgDanFeatureExtractor]:
    fields = {"covariate_names": ["age", "sex"], "covariate_means": [60.0, 0.5], "covariate_stds": [10.0, 0.5]}
    model, extractor = survival_model(**fields)
    with torch.no_grad():
        model.covariate_head.weight.copy_(torch.tensor([[1.0, 0.3]]))
    return model, extractor


def test_an_unknown_covariate_is_the_error_of_its_row_or_flagged_where_the_mean_is_asked_for(tmp_path: Path) -> None:
    model, extractor = survival_of_age_and_sex()
    file = write_wfdb(tmp_path, "plain", comments=["Age: 61"])
    row = predict(file, model, extractor).iloc[0]
    assert "covariates: expected sex, which the model was trained with, found none" in row["error"]
    assert np.isnan(row["log_hazard"]) and np.isnan(row["risk_5y"])
    row = predict(file, model, extractor, missing_covariates="mean").iloc[0]
    assert row["error"] == "" and "covariate_sex_unknown" in row["flags"] and "covariate_age" not in row["flags"]
    with pytest.raises(ValueError, match="covariates: expected sex"):
        predict(file, model, extractor, on_error="raise")
    with pytest.raises(ValueError, match="missing_covariates: expected refuse or mean, got 'zero'"):
        predict(file, model, extractor, missing_covariates="zero")


def test_explain_takes_covariates_as_predict_does_and_refuses_a_curve_without_them(tmp_path: Path) -> None:
    model, extractor = survival_of_age_and_sex()
    for saved in (model, extractor):
        saved.save_pretrained(tmp_path / "model")
    file = write_wfdb(tmp_path, "plain")
    options = {"checkpoint": str(tmp_path / "model"), "out": tmp_path / "page.png"}
    (tmp_path / "table.csv").write_text("record_id,age,sex\nplain,70,w\n", encoding="utf-8")
    with pytest.raises(ValueError, match="covariates: expected age, sex, which the model was trained with"):
        VERBS["explain"](file, **options)
    assert not (tmp_path / "page.png").exists()
    VERBS["explain"](file, **options, covariates=tmp_path / "table.csv")
    assert (tmp_path / "page.png").is_file()
    found = Explanation.of(read(file), model, extractor)
    assert {"covariate_age_unknown", "covariate_sex_unknown"} <= set(found.flags)
    known = Explanation.of(read(file), model, extractor, [70.0, 0.0])
    assert float(known.output.log_hazard - found.output.log_hazard) == pytest.approx(1.0 - 0.3, abs=1e-4)


def test_an_absence_that_the_model_has_learned_is_no_error(tmp_path: Path) -> None:
    fields = {"covariate_names": ["bmi", "bmi?"], "covariate_means": [25.0, 0.5], "covariate_stds": [5.0, 0.5]}
    model, extractor = survival_model(**fields)
    file = write_npz(tmp_path / "a.npz")
    row = predict(file, model, extractor, covariates=pd.DataFrame({"file": ["a"], "bmi": [np.nan]})).iloc[0]
    assert (row["error"], "bmi" in row["flags"]) == ("", False)


@pytest.mark.parametrize("column", ["record_id", "file"])
def test_covariates_are_matched_by_the_path_below_the_folder_as_in_fine_tuning(tmp_path: Path, column: str) -> None:
    model, extractor = survival_of_age_and_sex()
    for name in ("00/00001", "01/00001"):
        (tmp_path / name).parent.mkdir()
        write_wfdb((tmp_path / name).parent, "00001", seed=1)
    suffix = ".hea" if column == "file" else ""
    ids = [f"00/00001{suffix}", f"01/00001{suffix}"]
    table = pd.DataFrame({column: ids, "age": [50.0, 70.0], "sex": ["w", "m"]})
    young, old = predict(tmp_path, model, extractor, covariates=table)["log_hazard"]
    assert old - young == pytest.approx(2.0 + 0.3 * 2, abs=1e-4)
    ids = pd.DataFrame({"record_id": ["00001"], "age": [70.0], "sex": ["male"]})  # digits alone are text too
    assert predict(tmp_path / "01", model, extractor, covariates=ids)["log_hazard"].iloc[0] == pytest.approx(
        old, abs=1e-5
    )


def test_a_table_of_covariates_without_a_row_for_any_file_is_refused(tmp_path: Path) -> None:
    model, extractor = survival_of_age_and_sex()
    file = write_wfdb(tmp_path, "plain", comments=["Age: 61", "Sex: F"])
    table = pd.DataFrame({"record_id": ["another"], "age": [50.0], "sex": ["male"]})
    with pytest.raises(ValueError, match=r"covariates: expected rows for .*plain\.hea .*; the first row is another"):
        predict(file, model, extractor, covariates=table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"age": [1.0]}, "covariates: expected a column file or record_id, got age"),
        ({"file": ["a"], "sex": ["male"]}, "covariates: expected a column age, got file, sex"),
        ({"file": ["a", "a"], "age": [1, 2]}, "expected one row per file, found .*a more than once"),
        ({"file": ["a"], "age": ["old"]}, "covariates: age: expected numbers, got 'old'"),
    ],
)
def test_a_covariate_table_that_does_not_fit_is_refused(table: dict, message: str, tmp_path: Path) -> None:
    model, extractor = survival_model(covariate_names=["age"])
    with pytest.raises(ValueError, match=message):
        predict(tmp_path / "a.npz", model, extractor, covariates=pd.DataFrame(table))


def test_covariates_become_numbers_in_the_order_asked_for() -> None:
    table = pd.DataFrame({"sex": ["male", "female", None], "age": [50, None, 70], "other": "x"})
    found = Covariates(["age", "sex"]).matrix(table)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array([[50, 1], [np.nan, 0], [70, np.nan]], dtype=np.float32), equal_nan=True)
    assert Covariates([]).matrix(table).shape == (3, 0)


def test_a_folder_stands_for_its_records_each_once(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    header = write_wfdb(tmp_path / "deep", "b")
    array = write_npz(tmp_path / "a.npz")
    pd.DataFrame(ecg(0).T, columns=list(STANDARD_LEADS)).to_csv(tmp_path / "c.csv", index=False)
    pd.DataFrame({"ecg_id": [1], "age": [50]}).to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "README.txt").write_text("no ECG", encoding="utf-8")
    (tmp_path / ".hidden.npz").write_text("no ECG", encoding="utf-8")
    (tmp_path / "deep" / "multi.hea").write_text("multi/1 12 100 1000\nb 1000\n", encoding="utf-8")
    found = expand_files(tmp_path)
    assert found == [array, tmp_path / "c.csv", tmp_path / "deep" / "multi.hea"]
    (tmp_path / "deep" / "multi.hea").unlink()
    assert expand_files(tmp_path) == [array, tmp_path / "c.csv", header]
    same = [header, header.with_suffix(".dat"), header.with_suffix(""), tmp_path / "deep"]
    assert expand_files(same) == [header]
    assert expand_files(tmp_path / "absent.xml") == [tmp_path / "absent.xml"]


def test_a_folder_without_ecgs_no_path_and_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no ECG file in this folder"):
        expand_files(tmp_path)
    with pytest.raises(ValueError, match="paths: expected at least one file or folder"):
        expand_files([])
    model, extractor = survival_model()
    with pytest.raises(ValueError, match="on_error: expected 'row' or 'raise', got 'ignore'"):
        predict("a", model, extractor, on_error="ignore")
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        predict("a", model, extractor, batch_size=0)
    with pytest.raises(ValueError, match="expected a survival or classification model, got EcgDanForPreTraining"):
        predict("a", EcgDanForPreTraining(EcgDanConfig(**TINY)), extractor)
