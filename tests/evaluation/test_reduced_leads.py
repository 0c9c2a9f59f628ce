"""Fewer leads: what is hidden from the network is really hidden."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import TINY, signals

from ecgdan_hf.evaluation.baselines import embed
from ecgdan_hf.evaluation.reduced_leads import kept_leads, mask_leads, row_batches
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS, EcgDanConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanModel


def test_masked_leads_carry_no_sample_and_no_flag():
    batch = {"input_values": signals(3).numpy(), "lead_mask": np.ones((3, 12), bool)}
    batch["lead_mask"][0, 0] = False
    masked = mask_leads(batch, kept_leads("II, v2,I", STANDARD_LEADS))
    assert masked["lead_mask"].sum(1).tolist() == [2, 3, 3]
    assert (masked["input_values"][~masked["lead_mask"]] == 0).all()
    assert masked["input_values"].dtype == np.float32
    np.testing.assert_array_equal(masked["input_values"][1, 1], batch["input_values"][1, 1])


def test_an_embedding_does_not_depend_on_masked_leads():
    torch.manual_seed(0)
    model = EcgDanModel(EcgDanConfig(**TINY)).eval()
    kept = kept_leads(["I", "II"], STANDARD_LEADS)

    def embedded(values: np.ndarray) -> np.ndarray:
        rows = Dataset.from_dict({"input_values": values.tolist(), "lead_mask": [[True] * 12] * len(values)})
        return embed(model, row_batches(rows, 2, kept))

    values = signals(3).numpy()
    other = np.where(kept[:, None], values, 1 - values)
    np.testing.assert_array_equal(embedded(values), embedded(other))
    assert not np.allclose(embedded(values), embedded(values[::-1]))


def test_no_choice_keeps_every_lead():
    assert kept_leads(None, STANDARD_LEADS).all()


@pytest.mark.parametrize(
    ("leads", "message"), [("", "got none"), ("I,V7", "got V7"), ("I,nonsense", "is no lead known here")]
)
def test_leads_the_model_does_not_have_are_refused(leads: str, message: str):
    with pytest.raises(ValueError, match=message):
        kept_leads(leads, STANDARD_LEADS)
