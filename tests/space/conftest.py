"""The networks of the page: the released checkpoints for labels and statements, and a risk that means nothing."""

import sys
from pathlib import Path

import pytest
import torch

from ecgdan_hf.data.simulate.synthetic import write_cohort
from ecgdan_hf.explain.page.ecg_report import Networks
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival

ROOT = Path(__file__).parents[2]
LABELS, STATEMENTS = (ROOT / "model_cards" / name for name in ("ecg-dan-rhythm-superclasses", "ecg-dan-rhythm"))
sys.path += [str(ROOT / "hub_scripts" / "space"), str(ROOT / "hub_scripts")]


@pytest.fixture(scope="session")
def risk_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survival network of the released shape, untrained, with a baseline fitted to invented follow-up."""
    torch.manual_seed(0)
    contract = EcgDanConfig.from_pretrained(LABELS)
    shape = {
        name: getattr(contract, name)
        for name in (
            "trunk",
            "trunk_channels",
            "hidden_size",
            "stem_features",
            "attention_order",
            *contract.signal_contract,
        )
    }
    config = EcgDanSurvivalConfig(**shape, endpoint="invented event", simulated_outcome=True)
    model = EcgDanForSurvival(config).eval()
    model.fit_baseline(torch.zeros(200), (torch.arange(200) % 4 == 0).float(), torch.linspace(0.1, 12.0, 200))
    folder = tmp_path_factory.mktemp("risk")
    model.save_pretrained(folder)
    EcgDanFeatureExtractor(**config.signal_contract).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def networks(risk_checkpoint: Path) -> Networks:
    return Networks.load(LABELS, STATEMENTS, risk_checkpoint)


@pytest.fixture(scope="session")
def wfdb_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Header of a synthetic record; its data lie beside it."""
    folder = tmp_path_factory.mktemp("cohort") / "ecgs"
    table = write_cohort(folder, n=20, seed=3)
    return (folder / table["file"].iloc[6]).with_suffix(".hea")
