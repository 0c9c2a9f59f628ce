"""Which records meet, which leads are hidden, and that every draw can be repeated."""

import numpy as np
import pytest
import torch
from datasets import Array2D, Dataset, Features, List, Value

from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig
from ecgdan_hf.training.arguments.fields import TrainingArguments
from ecgdan_hf.training.core.batching import (
    LEAD_SUBSETS,
    EcgCollator,
    EpochBatchSampler,
    NumberedRows,
    _draw_lead_mask,
    _draw_span_mask,
    multi_hot,
)
from ecgdan_hf.training.core.learned_rows import _balanced_shares, _DrawnBatchSampler

RNG = np.random.default_rng(0)
LIMB = STANDARD_LEADS[:6]


@pytest.fixture
def rows() -> NumberedRows:
    columns = {
        "input_values": RNG.standard_normal((7, 12, 20), dtype=np.float32),
        "lead_mask": [[True] * 12] * 6 + [[True, True] + [False] * 10],
        "event": [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        "labels": [[0, 2], [], [1], [0], [2], [1], [0, 1, 2]],
    }
    features = Features(
        input_values=Array2D((12, 20), "float32"), lead_mask=List(Value("bool")), event=Value("float32"),
        labels=List(Value("int64")),
    )  # fmt: skip
    return NumberedRows(Dataset.from_dict(columns, features=features), list(columns))


@pytest.mark.parametrize(("records", "size"), [(1, 4), (5, 2), (10, 3), (129, 128), (2331, 128)])
def test_every_record_occurs_once_an_epoch_in_batches_of_nearly_one_size(records: int, size: int):
    batches = list(EpochBatchSampler(records, size))
    assert sorted(row for batch in batches for row in batch) == list(range(records))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= size + 1
    assert records == 1 or min(sizes) >= 2  # batch normalisation cannot train on one record


@pytest.mark.parametrize(
    ("records", "size", "processes"), [(26, 8, 2), (10, 3, 4), (8, 16, 4), (129, 128, 2), (7, 2, 3)]
)
def test_processes_share_an_epoch_in_as_many_batches_each(records: int, size: int, processes: int):
    shares = []
    for process in range(processes):
        sampler = EpochBatchSampler(records, size)
        sampler.share_among(processes, process)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1])
    assert len({len(share) for share in shares}) == 1
    assert sorted(row for share in shares for batch in share for row in batch) == list(range(records))
    assert min(len(batch) for share in shares for batch in share) >= 2


def test_a_process_that_resumes_sees_the_rest_of_its_own_batches():
    sampler = EpochBatchSampler(50, 8, seed=3)
    sampler.share_among(2, 1)
    whole = list(sampler)
    sampler.start_batch = 2
    assert list(sampler) == whole[2:]


def test_too_few_records_for_the_processes_are_refused():
    with pytest.raises(ValueError, match="two records for each of 4 processes, got 7; start fewer processes"):
        EpochBatchSampler(7, 2).share_among(4, 0)


def test_every_batch_has_the_event_fraction_of_the_set():
    event = RNG.random(1000) < 0.13
    for batch in EpochBatchSampler(1000, 64, event):
        assert abs(event[batch].mean() * len(batch) - event.mean() * len(batch)) < 1
        assert event[batch].any()


def test_batches_grow_until_each_has_an_event_and_say_so(caplog):
    event = np.zeros(100)
    event[[3, 50, 99]] = 1
    batches = list(EpochBatchSampler(100, 10, event))
    assert [int(event[batch].sum()) for batch in batches] == [1, 1, 1]
    assert sorted(row for batch in batches for row in batch) == list(range(100))
    assert "batch_size: 10 records a batch would leave some without any of the 3 events; using 34" in caplog.text


def test_epochs_differ_seeds_differ_and_the_same_seed_repeats():
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = EpochBatchSampler(50, 8, RNG_EVENT, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    RNG_EVENT = np.arange(50) % 5 == 0
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_a_resumed_epoch_gives_the_rest_of_the_same_batches():
    sampler = EpochBatchSampler(50, 8, np.arange(50) % 5 == 0, seed=3)
    sampler.set_epoch(4)
    whole = list(sampler)
    sampler.start_batch = 3
    assert list(sampler) == whole[3:]
    assert len(sampler) == len(whole) - 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 4), "at least one record"), ((5, 0), "batch_size: expected one"), ((5, 2, [1]), "event: expected 5 values")],
)
def test_a_sampler_refuses_what_it_cannot_batch(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        EpochBatchSampler(*arguments)


def test_lead_masks_are_drawn_as_often_as_the_reference_says():
    drawn = _draw_lead_mask(np.ones((20_000, 12), bool), STANDARD_LEADS, np.random.default_rng(0), False, 1.0)
    kept = [frozenset(np.array(STANDARD_LEADS)[row]) for row in drawn]
    for share, subset in LEAD_SUBSETS:
        assert kept.count(frozenset(subset or STANDARD_LEADS)) / len(kept) == pytest.approx(share, abs=0.012)


def test_half_the_records_are_left_alone_with_probability_one_half():
    drawn = _draw_lead_mask(np.ones((20_000, 12), bool), STANDARD_LEADS, np.random.default_rng(0), False, 0.5)
    assert drawn.all(axis=1).mean() == pytest.approx(0.75, abs=0.012)


def test_a_shared_draw_hides_the_same_leads_of_every_record():
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = _draw_lead_mask(np.ones((8, 12), bool), STANDARD_LEADS, rng, True, 1.0)
        assert (drawn == drawn[0]).all()


def test_a_record_never_loses_all_its_leads_nor_gains_one():
    only_v4 = np.zeros((500, 12), bool)
    only_v4[:, STANDARD_LEADS.index("V4")] = True
    drawn = _draw_lead_mask(only_v4, STANDARD_LEADS, np.random.default_rng(0), False, 1.0)
    assert (drawn == only_v4).all()


def test_the_target_is_unmasked_and_the_input_is_zero_where_leads_are_hidden(rows: NumberedRows):
    collate = EcgCollator(STANDARD_LEADS, lead_masking="batch", lead_masking_probability=1.0, with_target=True)
    for epoch in range(20):
        collate.epoch = epoch
        batch = collate(rows.__getitems__(list(range(7))))
        hidden = ~batch["lead_mask"]
        assert (batch["input_values"][hidden] == 0).all()
        shown = batch["lead_mask"]
        assert torch.equal(batch["input_values"][shown], batch["target_values"][shown])
        assert batch["target_mask"].sum() == 6 * 12 + 2
    assert batch["target_values"].dtype == batch["input_values"].dtype == torch.float32


def test_draws_depend_on_seed_epoch_and_records_alone(rows: NumberedRows):
    def batch(seed: int, epoch: int, numbers: list[int]) -> torch.Tensor:
        collate = EcgCollator(STANDARD_LEADS, augment_noise=0.1, seed=seed, epoch=epoch)
        np.random.default_rng().random(3)
        torch.rand(3)
        return collate(rows.__getitems__(numbers))["input_values"]

    assert torch.equal(batch(0, 1, [3, 4]), batch(0, 1, [3, 4]))
    assert not torch.equal(batch(0, 1, [3, 4]), batch(0, 2, [3, 4]))
    assert not torch.equal(batch(0, 1, [3, 4]), batch(1, 1, [3, 4]))


def test_augmentation_scales_input_and_target_alike_and_leaves_padding_zero(rows: NumberedRows):
    collate = EcgCollator(STANDARD_LEADS, num_pad=2, augment_scale=0.5, with_target=True)
    given = rows.__getitems__([0, 1])
    batch = collate(given)
    factor = batch["target_values"] / torch.from_numpy(np.stack([row["input_values"] for row in given]))
    assert torch.allclose(factor, factor[:, :1, :1].expand_as(factor), atol=1e-4)
    assert factor[0, 0, 0] != factor[1, 0, 0]
    noisy = EcgCollator(STANDARD_LEADS, num_pad=2, augment_noise=1.0, with_target=True)(given)
    difference = noisy["input_values"] - noisy["target_values"]
    assert (difference[..., :2] == 0).all()
    assert (difference[..., -2:] == 0).all()
    assert difference[..., 2:-2].std() == pytest.approx(1.0, abs=0.2)


def test_evaluation_sees_signals_as_they_are(rows: NumberedRows):
    collate = EcgCollator(STANDARD_LEADS, lead_masking="record", augment_scale=0.3, augment_noise=0.3)._still()
    batch = collate(rows.__getitems__([6, 0]))
    assert torch.equal(batch["lead_mask"].sum(1), torch.tensor([2, 12]))
    assert torch.equal(batch["input_values"][1], torch.tensor(rows[0]["input_values"]))


def test_lookups_labels_and_columns_follow_their_records(rows: NumberedRows):
    text = RNG.standard_normal((7, 3)).astype(np.float32)
    collate = EcgCollator(
        STANDARD_LEADS,
        lookups={"text_embeds": text},
        columns=["event"],
        num_labels=3,
        labels_name="superclass_targets",
    )
    batch = collate(rows.__getitems__([6, 3]))
    assert torch.equal(batch["text_embeds"], torch.from_numpy(text[[6, 3]]))
    assert batch["event"].tolist() == [0.0, 1.0]
    assert batch["superclass_targets"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_multi_hot_of_no_labels_is_zero():
    assert multi_hot([[], [1]], 2).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("given", "model", "message"),
    [
        ({"augment_scale": 1.0}, {}, "0 <= scale < 1"),
        ({"augment_scale": 0.1}, {"normalization": "per_lead_zscore"}, "need normalization: global"),
        ({"span_masking_probability": 1.5}, {}, "span_masking_probability: expected a probability, got 1.5"),
        ({"crop_samples": 512}, {}, "crop_samples: only trunk light takes pieces of a record, got trunk paper"),
        ({"crop_samples": 500}, {"trunk": "light"}, "expected a multiple of 16 up to 1008, got 500"),
        ({"crop_samples": 1024}, {"trunk": "light"}, "expected a multiple of 16 up to 1008, got 1024"),
    ],
)
def test_augmentation_that_would_have_no_or_the_wrong_effect_is_refused(given: dict, model: dict, message: str):
    config = EcgDanConfig(**{"input_kind": "rhythm", "normalization": "global", **model})
    with pytest.raises(ValueError, match=message):
        EcgCollator.check(TrainingArguments(**{"lead_masking": "none", **given}), config)


def test_crops_are_pieces_of_the_record_drawn_anew_each_epoch():
    rows = [{"row": row, "input_values": np.arange(40.0)[None], "lead_mask": [True]} for row in range(64)]
    collate = EcgCollator(["I"], crop_samples=16, with_target=True)
    first = collate(rows)
    values = first["input_values"]
    assert values.shape == (64, 1, 16)
    assert torch.equal(values, values[:, :, :1] + torch.arange(16.0))
    assert torch.equal(values, first["target_values"])
    starts = values[:, 0, 0]
    assert starts.min() == 0 and starts.max() == 24
    collate.epoch = 1
    assert not torch.equal(collate(rows)["input_values"], values)
    assert collate._still()(rows)["input_values"].shape == (64, 1, 40)


def test_hidden_spans_are_the_same_in_every_lead_and_stay_in_the_target():
    rows = [{"row": row, "input_values": np.ones((3, 100)), "lead_mask": [True] * 3} for row in range(200)]
    batch = EcgCollator(["I", "II", "V1"], span_masking_probability=0.5, with_target=True)(rows)
    hidden = batch["input_values"] == 0
    assert torch.equal(hidden, hidden[:, :1].expand(-1, 3, -1))
    assert bool((batch["target_values"] == 1).all())
    share = hidden[:, 0].float().mean(1)
    assert 0.4 < float((share > 0).float().mean()) < 0.6
    assert float(share.max()) <= 0.301 and float(share[share > 0].min()) >= 0.1


def test_probability_zero_hides_nothing():
    assert not _draw_span_mask(50, 100, np.random.default_rng(0), 0.0).any()


def test_balanced_shares_give_each_kind_its_half_and_patients_the_root_of_their_positives():
    patients = np.array(["a"] * 16 + ["b"] * 4 + ["c"] * 30 + ["s"] * 10)
    positive = np.r_[np.ones(20, bool), np.zeros(30, bool), np.arange(10) % 2 == 0]
    simulated = patients == "s"
    shares = _balanced_shares(positive, patients, simulated)
    assert shares.sum() == pytest.approx(1) and shares[simulated] == pytest.approx(0.05)
    assert shares[patients == "c"].sum() == pytest.approx(0.25)
    assert shares[patients == "a"].sum() / shares[patients == "b"].sum() == pytest.approx(2)  # roots of 16 and 4
    without = _balanced_shares(positive[:50], patients[:50], simulated[:50])
    assert without[:20].sum() == pytest.approx(0.5) and without[20:].sum() == pytest.approx(0.5)


def test_rows_are_drawn_by_their_shares_and_go_on_where_an_epoch_was_left():
    shares = np.r_[np.zeros(50), np.full(25, 1.0), np.full(25, 3.0)]
    sampler = _DrawnBatchSampler(shares, 20, seed=3)
    drawn = np.array(list(sampler))
    assert drawn.shape == (5, 20) and len(sampler) == 5
    many = np.concatenate([drawn_in(sampler, epoch) for epoch in range(200)])
    assert many.min() >= 50 and np.mean(many >= 75) == pytest.approx(0.75, abs=0.01)
    assert not np.array_equal(drawn_in(sampler, 0), drawn_in(sampler, 1))
    whole = drawn_in(sampler, 7).reshape(5, 20)
    sampler.start_batch = 2
    assert np.array_equal(drawn_in(sampler, 7).reshape(3, 20), whole[2:])
    with pytest.raises(ValueError, match="shares: expected positive numbers"):
        _DrawnBatchSampler(np.zeros(10), 2)


def drawn_in(sampler: _DrawnBatchSampler, epoch: int) -> np.ndarray:
    sampler.set_epoch(epoch)
    return np.array(list(sampler)).ravel()
