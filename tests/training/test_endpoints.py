"""Several endpoints in one network, from the table of outcomes to training, files, pipeline and evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ecgdan_hf  # noqa: F401  # registers the pipelines
from ecgdan_hf.data.sources.csv_table import read_outcomes
from ecgdan_hf.evaluation.comparators.evidence_cox import Components
from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.evaluation.protocols.held_out import held_out
from ecgdan_hf.evaluation.report.comparison_text import held_out_text
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.predict import predict
from ecgdan_hf.inference.rows import embed, endpoint_rows, predict_rows
from ecgdan_hf.model.survival_ecgdan import cox_loss, endpoint_loss
from ecgdan_hf.training import finetune, recalibration
from ecgdan_hf.training.arguments.fields import EvaluateArguments, FinetuneArguments, RecalibrateArguments
from ecgdan_hf.training.core import rows
from ecgdan_hf.training.core.few_events import FewEventsHead
from ecgdan_hf.training.studies.cross_validation import cross_validate

Build = Callable[..., FinetuneArguments]
NAMES = ["hf", "af"]


@pytest.fixture(scope="module")
def outcomes(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two endpoints of the cohort: its own, and another one that a third of the records do not know."""
    table = pd.read_csv(cohort / "table.csv", dtype={"record_id": str})[["record_id", "event", "time"]]
    rng, n = np.random.default_rng(0), len(table)
    other = pd.DataFrame({"event_af": (rng.random(n) < 0.5) * 1.0, "time_af": rng.exponential(4, n).round(3) + 0.01})
    other[np.arange(n) % 3 == 0] = np.nan
    path = tmp_path_factory.mktemp("outcomes") / "outcomes.csv"
    named = table.rename(columns={"event": "event_hf", "time": "time_hf"})
    pd.concat([named, other], axis=1).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def build(module_finetune_args: Build, outcomes: Path) -> Build:
    common = {"labels": str(outcomes), "endpoints": "hf,af", "covariates": "age,sex", "epochs": 1, "bootstrap": 3}
    folds = {"train_folds": "1-6", "test_folds": "7-10"}
    return lambda name, **flags: module_finetune_args(name, **{**common, **folds, **flags})


@pytest.fixture(scope="module", params=["network", "few-events"])
def run(request: Any, build: Build, encoder: Path) -> tuple[FinetuneArguments, dict[str, Any]]:
    few = {"method": "few-events", "checkpoint": str(encoder), "epochs": 60}
    args = build(request.param, **(few if request.param == "few-events" else {}))
    return args, finetune.finetune(args)


def loaded(args: FinetuneArguments) -> tuple[Any, Any, Any]:
    model, extractor = load_checkpoint(str(args.output_dir))
    return model, extractor, rows.load_dataset(args, extractor, outcomes=args.labels)


def test_each_endpoint_is_judged_on_the_records_that_know_it(run) -> None:
    args, metrics = run
    model, _, dataset = loaded(args)
    assert model.config.risk_names == NAMES and model.config.endpoint_text == "simulated hf"
    found = pd.read_csv(Path(str(args.output_dir)) / "predictions.csv", dtype={"record_id": str})
    found = found[found["part"] == "test"]
    position = {record: row for row, record in enumerate(dataset["record_id"])}
    test = dataset.select([position[record] for record in found["record_id"]])
    scores, risks = predict_rows(model, test, [1.0, 5.0])
    assert found[["log_hazard", "log_hazard_af"]].to_numpy() == pytest.approx(scores, abs=1e-4)
    assert found[["risk_1y", "risk_5y", "risk_1y_af", "risk_5y_af"]].to_numpy() == pytest.approx(
        risks.reshape(len(found), 4), abs=1e-4, nan_ok=True
    )
    known = found[found["event_af"].notna()]
    assert 0 < len(known) < len(found)
    expected = concordance_index(known["event_af"], known["time_af"], known["log_hazard_af"])
    assert metrics["test"]["endpoints"]["af"]["concordance_index"]["estimate"] == pytest.approx(expected, abs=1e-6)
    assert metrics["test"]["num_records"] == len(found)
    assert metrics["test"]["endpoints"]["af"]["num_records"] == len(known)


def test_an_endpoint_of_several_is_fitted_as_if_it_were_alone(run) -> None:
    """That of few events: head and baseline of each are those of a fit to its own records."""
    args, metrics = run
    if args.method != "few-events":
        pytest.skip("the encoder is trained by all endpoints together")
    model, _, dataset = loaded(args)
    train = dataset.filter(lambda fold: fold <= 6, input_columns="fold")
    for column, name in enumerate(NAMES):
        known = endpoint_rows(train, name)
        covariates = finetune.SurvivalFinetuning.covariates_of(known, model.config).astype(float)
        standardised = np.nan_to_num((covariates - model.config.covariate_means) / model.config.covariate_stds)
        outcome = np.asarray(known["event"]), np.asarray(known["time"])
        head = FewEventsHead.fit(embed(model, known), standardised, *outcome, Components.of(embed(model, train)))
        expected = head.log_hazard(embed(model, known), standardised)
        assert predict_rows(model, known, [1.0])[0][:, column] == pytest.approx(expected, abs=1e-3)
        risk = predict_rows(model, known, [2.0])[1][:, column, 0]
        assert 0 < risk.min() < risk.max() < 1
    assert metrics["further_endpoints"]["af"]["num_components"] == metrics["num_components"]


def test_files_and_the_pipeline_name_every_endpoint(run, cohort: Path) -> None:
    from transformers import pipeline

    folder, file = str(run[0].output_dir), sorted((cohort / "records").rglob("*.hea"))[0]
    model, extractor = load_checkpoint(folder)
    row = predict(file, model, extractor, missing_covariates="mean").iloc[0]
    answer = pipeline("ecg-survival", model=folder)({"path": str(file)}, horizon_years=[1, 2])
    for name, suffix in (("hf", ""), ("af", "_af")):
        one = answer["endpoints"][name]
        assert one["log_hazard"] == pytest.approx(row[f"log_hazard{suffix}"], abs=1e-5)
        assert one["risk"][0]["risk"] == pytest.approx(row[f"risk_1y{suffix}"], abs=1e-5)
        assert one["risk"][0]["low"] < one["risk"][0]["risk"] < one["risk"][0]["high"]
    assert "causes" not in answer
    with pytest.raises(ValueError, match="how several endpoints come together is not known"):
        model.predict_survival(torch.zeros(1, 12, 64))


def test_evaluation_tells_every_endpoint_and_other_verbs_refuse(run, cohort, cache, tmp_path) -> None:
    args, _ = run
    if args.method != "few-events":
        pytest.skip("one run is enough")
    result = held_out(
        {"ours": str(args.output_dir)},
        lambda extractor: rows.load_dataset(args, extractor, outcomes=args.labels),
        [7, 8, 9, 10],
        [1, 2, 3, 4, 5, 6],
        with_random_encoder=False,
        n=3,
    )
    found = result.metrics["endpoints"]["af"]
    text = held_out_text(result.metrics)
    assert result.metrics["endpoint"] == "hf" and set(result.metrics["models"]) == {"ours", "age and sex"}
    assert f"| af | {found['num_records']} | {found['num_events']} |" in text
    common = {"data": "csv", "data_dir": str(cohort), "cache_dir": str(cache), "num_proc": 1, "labels": args.labels}
    given = RecalibrateArguments(checkpoint=str(args.output_dir), output_dir=str(tmp_path / "there"), **common)
    with pytest.raises(ValueError, match="checkpoint: recalibrate fits one endpoint, got hf, af"):
        recalibration.recalibrate_checkpoint(given)
    several = EvaluateArguments(protocol="repeated-cv", recipe="demo", output_dir=str(tmp_path / "cv"), **common)
    with pytest.raises(ValueError, match="endpoints: cross-validation judges one endpoint, got several"):
        cross_validate(several)


REFUSED = [
    ({"endpoints": None}, "event: expected one outcome, the data have several; name them with --endpoints"),
    ({"endpoints": "hf,stroke"}, "endpoints: expected columns event_stroke and time_stroke, the data have no event_"),
    ({"endpoints": "hf"}, "endpoint_names: expected two or more different names, or none"),
    ({"causes": "hf,death"}, "endpoint_names: several endpoints need hazard 'cox' and no competing causes"),
    ({"hazard": "discrete"}, "endpoints: several endpoints need hazard cox, got discrete"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSED)
def test_what_cannot_carry_several_endpoints_says_so_in_one_line(build, flags, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        finetune.finetune(build("refused", **flags))
    assert "\n" not in str(caught.value)


TABLES = [
    ("a,1,2,,\nb,0,,1,3\n", "event_hf of record b: expected a value where time_hf has one"),
    ("a,2,2,,\nb,1,1,1,3\n", "event of record a: expected 0 or 1 of endpoint hf"),
    ("a,1,-2,,\nb,0,1,1,3\n", r"time of record a: .*\(endpoint hf\)"),
    ("a,0,2,,\nb,0,1,1,3\n", r"expected at least one event, got none in 2 rows \(endpoint hf\)"),
]


@pytest.mark.parametrize(("lines", "message"), TABLES)
def test_a_pair_that_cannot_be_used_is_refused_with_its_endpoint(tmp_path: Path, lines, message) -> None:
    (tmp_path / "outcomes.csv").write_text("record_id,event_hf,time_hf,event_af,time_af\n" + lines)
    with pytest.raises(ValueError, match=message):
        read_outcomes(tmp_path / "outcomes.csv")


def test_rows_without_any_endpoint_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "outcomes.csv").write_text(
        "record_id;event_hf;time_hf;event_af;time_af\na;ja;2,5;;\nb;nein;1,5;1;3\nc;;;;\n"
    )
    found = read_outcomes(tmp_path / "outcomes.csv")
    assert found["record_id"].tolist() == ["a", "b"] and found["event_hf"].tolist() == [1.0, 0.0]


def test_the_loss_is_that_of_each_endpoint_over_those_who_know_it_weighted_by_events() -> None:
    torch.manual_seed(0)
    scores, event = torch.randn(40, 2, requires_grad=True), (torch.rand(40, 2) < 0.5).float()
    time, weights, entry = torch.rand(40, 2) + 0.5, torch.rand(40), torch.rand(40) * 0.4
    event[::3, 1] = torch.nan
    keep = ~event[:, 1].isnan()
    parts = [
        (cox_loss(scores[at, c], event[at, c], time[at, c], weights=weights[at], entry=entry[at]), at, c)
        for c, at in ((0, torch.ones(40, dtype=torch.bool)), (1, keep))
    ]
    shares = torch.stack([(weights[at] * event[at, c]).sum() for _, at, c in parts])
    expected = (torch.stack([loss for loss, _, _ in parts]) * shares).sum() / shares.sum()
    found = endpoint_loss(scores, event, time, weights=weights, entry=entry)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    found.backward()
    assert (scores.grad[~keep, 1] == 0).all() and (scores.grad[:, 0] != 0).any()
    nothing = endpoint_loss(scores, torch.full_like(event, torch.nan), time)
    assert nothing.item() == 0 and nothing.requires_grad
