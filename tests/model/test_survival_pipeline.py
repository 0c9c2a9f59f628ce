"""The pipeline `ecg-survival`: the risks of `ecgdan predict`, what they rest on, and nothing beyond the follow-up."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import TINY
from transformers import pipeline

from ecgdan_hf import EcgDanFeatureExtractor, EcgDanForSurvival, EcgDanSurvivalConfig
from ecgdan_hf.data.formats import read
from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.inference.covariates import Covariates
from ecgdan_hf.inference.predict import predict
from ecgdan_hf.model.covariates_ecgdan import Covariate
from ecgdan_hf.model.survival_ecgdan import survival_curve

TASK = "ecg-survival"
COVARIATES = {
    "covariate_names": ["age", "sex"],
    "covariate_means": [60.0, 0.5],
    "covariate_stds": [12.0, 0.5],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("survival") / "cohort"
    write_cohort(folder, n=20, seed=0)
    return sorted(folder.rglob("*.hea"))[:3]


def save(folder: Path, follow_up_years: float = 8.0, fit: bool = True, **config: Any) -> Path:
    torch.manual_seed(0)
    model = EcgDanForSurvival(EcgDanSurvivalConfig(**{**TINY, "sampling_rate": 50, **config})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    if fit:
        times = follow_up_years * (0.05 + 0.95 * torch.rand(60))
        times[0] = follow_up_years
        model.fit_baseline(0.3 * torch.randn(60), (torch.rand(60) < 0.4).float(), times)
    model.save_pretrained(folder)
    EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("checkpoint"), **COVARIATES, simulated_outcome=True, endpoint="stroke")


@pytest.fixture(scope="module")
def risk_of(checkpoint: Path) -> Any:
    return pipeline(TASK, model=str(checkpoint))


def test_risks_are_those_of_ecgdan_predict(risk_of: Any, files: list[Path]):
    table = predict(files, risk_of.model, risk_of.feature_extractor)
    found = risk_of([str(file) for file in files], horizon_years=[1, 5, 10], batch_size=3)  # that of `predict`
    assert len({answer["log_hazard"] for answer in found}) == 3
    for answer, (_, row) in zip(found, table.iterrows(), strict=True):
        assert answer["log_hazard"] == pytest.approx(row["log_hazard"], abs=1e-9)
        assert risk_of(row["file"])["log_hazard"] == pytest.approx(row["log_hazard"], abs=1e-4)
        risks = {each["years"]: each["risk"] for each in answer["risk"]}
        assert risks == {
            1.0: pytest.approx(row["risk_1y"], 1e-9),
            5.0: pytest.approx(row["risk_5y"], 1e-9),
            10.0: None,
        }
        assert math.isnan(row["risk_10y"])  # neither says anything beyond the follow-up
        assert answer["endpoint"] == row["endpoint"] == "simulated stroke"
        assert answer["simulated"] is True
        assert sorted(answer["flags"]) == sorted(row["flags"].split(";"))  # in the table, those that matter first


def test_limits_are_those_of_the_model_and_widen_with_the_level(risk_of: Any, files: list[Path]):
    inputs = risk_of.feature_extractor(**read(files[0]).as_inputs(), return_tensors="pt")
    record = read(files[0])
    known = torch.tensor([[record.age, float(record.sex == "male")]])
    expected = risk_of.model.predict_risk_interval(**inputs, covariates=known, horizon_years=5.0)
    found = risk_of(files[0], horizon_years=5)["risk"]
    values = [float(value[0]) for value in expected]
    assert [found[0][name] for name in ("risk", "low", "high")] == pytest.approx(values, abs=1e-6)
    assert 0 < found[0]["low"] < found[0]["risk"] < found[0]["high"] < 1
    narrow = risk_of(files[0], horizon_years=5, level=0.5)["risk"][0]
    assert found[0]["low"] < narrow["low"] < narrow["risk"] < narrow["high"] < found[0]["high"]


def test_default_horizons_end_with_the_follow_up(risk_of: Any, files: list[Path], tmp_path: Path):
    answer = risk_of(files[0])
    assert [each["years"] for each in answer["risk"]] == [1.0, 5.0]
    assert answer["follow_up_years"] == pytest.approx(8.0)
    assert all(each["risk"] is not None for each in answer["risk"])
    short = pipeline(TASK, model=str(save(tmp_path, follow_up_years=0.5)))(files[0])
    assert [each["years"] for each in short["risk"]] == [pytest.approx(0.5)]
    assert short["risk"][0]["risk"] is not None
    assert (short["simulated"], short["endpoint"]) == (False, "event")


def test_the_curve_is_the_model_s_survival_at_every_knot(risk_of: Any, files: list[Path]):
    answer = risk_of(files[0], return_curve=True)
    curve, baseline = answer["curve"], risk_of.model.baseline
    log_hazard = torch.tensor([answer["log_hazard"]], dtype=torch.float64)
    expected = survival_curve(log_hazard, baseline.times, baseline.log_cumulative_hazard, baseline.times)
    assert (curve["years"][0], curve["survival"][0]) == (0.0, 1.0)
    assert curve["years"][1:] == baseline.times.tolist()
    assert curve["survival"][1:] == pytest.approx(expected[0].tolist(), abs=1e-6)
    assert all(low <= at <= high for low, at, high in zip(curve["low"], curve["survival"], curve["high"], strict=True))
    assert "curve" not in risk_of(files[0])


def test_covariates_come_from_the_recording_before_the_argument_before_the_file(risk_of: Any, files: list[Path]):
    record = read(files[0])
    file = str(files[0])
    said = {"age": pytest.approx(record.age), "sex": float(record.sex == "male")}
    assert risk_of(file)["covariates"] == said
    assert risk_of(file, covariates={"age": 70})["covariates"] == said | {"age": 70.0}
    own = {"path": file, "age": np.float32(81), "sex": "female"}
    assert risk_of(own, covariates={"age": 70, "sex": "male"})["covariates"] == {"age": 81.0, "sex": 0.0}
    nested = {"path": file, "age": 81, "covariates": {"age": 82, "sex": None}}
    assert risk_of(nested)["covariates"] == said | {"age": 82.0}
    older, younger = (risk_of(file, covariates={"age": age})["log_hazard"] for age in (90, 30))
    assert older != pytest.approx(younger, abs=1e-2)


def test_unknown_covariates_count_as_the_training_mean_and_are_said_to_be_unknown(risk_of: Any, files: list[Path]):
    recording = read(files[0]).as_inputs()
    unknown = risk_of({**recording, "age": float("nan")})
    assert unknown["covariates"] == {"age": None, "sex": None}
    mean = risk_of(recording, covariates={"age": 60.0, "sex": 0.5})
    assert unknown["log_hazard"] == pytest.approx(mean["log_hazard"], abs=1e-6)


@pytest.mark.parametrize("value", [None, 61, 61.5, "62", "male", True, np.nan])
@pytest.mark.parametrize("name", ["x", "x?"])
def test_a_covariate_is_made_as_the_training_table_made_it(name: str, value: Any):
    missing = value is None or value is np.nan
    expected = Covariates([name]).matrix(pd.DataFrame({"x": [value]}, dtype=object))[0, 0]
    assert Covariate(name).value({} if missing else {"x": value}) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("value", [None, "never", "current"])
def test_a_level_of_a_covariate_is_made_as_the_training_table_made_it(value: Any):
    table = pd.DataFrame({"smoking": [value, "other"]})
    expected = Covariates(["smoking=never"]).matrix(table)[0, 0]
    found = Covariate("smoking=never").value({} if value is None else {"smoking": value})
    assert found == pytest.approx(expected, nan_ok=True)


def test_without_covariates_none_are_read(tmp_path: Path, files: list[Path]):
    risk_of = pipeline(TASK, model=str(save(tmp_path)))
    alone = risk_of(str(files[0]))
    assert alone["covariates"] == {} and risk_of({"path": str(files[0]), "age": 99}) == alone


def test_without_a_baseline_there_is_a_log_hazard_and_absolute_risks_are_refused(tmp_path: Path, files: list[Path]):
    risk_of = pipeline(TASK, model=str(save(tmp_path, fit=False)))
    answer = risk_of(str(files[0]))
    assert math.isfinite(answer["log_hazard"]) and answer["risk"] == [] and answer["follow_up_years"] is None
    for arguments in ({"horizon_years": 5}, {"return_curve": True}):
        with pytest.raises(ValueError, match=r"^model: expected one with a fitted baseline hazard for absolute risks"):
            risk_of(str(files[0]), **arguments)


def test_without_standard_errors_the_limits_are_none(checkpoint: Path, risk_of: Any, files: list[Path]):
    model = EcgDanForSurvival.from_pretrained(checkpoint).eval()
    model.baseline.standard_error.fill_(-1.0)  # of checkpoints fitted before risks had limits
    (found,) = pipeline(TASK, model=model, feature_extractor=risk_of.feature_extractor)(files[0], horizon_years=5)[
        "risk"
    ]
    assert (found["low"], found["high"]) == (None, None)
    assert found["risk"] == pytest.approx(risk_of(files[0], horizon_years=5)["risk"][0]["risk"])


def test_in_half_precision_risks_stay_risks(checkpoint: Path, risk_of: Any, files: list[Path]):
    halved = pipeline(TASK, model=str(checkpoint), dtype=torch.bfloat16)
    assert halved.model.dtype == torch.bfloat16
    (found,), (expected,) = (each(files[0], horizon_years=5)["risk"] for each in (halved, risk_of))
    assert found["risk"] == pytest.approx(expected["risk"], rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon_years": 0}, "^horizon_years: expected years above zero, one number or several, got 0$"),
        ({"horizon_years": []}, r"^horizon_years: expected years above zero, one number or several, got \[\]$"),
        ({"horizon_years": "soon"}, "^horizon_years: expected years above zero, one number or several, got 'soon'$"),
        ({"level": 95}, "^level: expected a coverage between 0 and 1, got 95$"),
        ({"covariates": {"bmi": 25}}, "^covariates: expected age, sex, got bmi$"),
        ({"covariates": [61, 1]}, "^covariates: expected a mapping of age, sex, got list$"),
        ({"covariates": {"age": "old"}}, "^covariates: age: expected a finite number, got 'old'$"),
        ({"covariates": {"age": math.inf}}, "^covariates: age: expected a finite number, got inf$"),
        ({"top_k": 1}, "^top_k: unknown argument; expected .*, horizon_years, covariates, level, return_curve$"),
    ],
)
def test_arguments_that_cannot_be_served_are_refused(risk_of: Any, files: list[Path], arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        risk_of(files[0], **arguments)
