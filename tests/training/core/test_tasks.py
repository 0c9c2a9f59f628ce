"""What tasks do across processes and after training: one loss of all risk sets, and log hazards shrunk in order."""

import multiprocessing as forkserver
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from ecgdan_hf.evaluation.measures.survival import concordance_index
from ecgdan_hf.model.configuration_ecgdan import EcgDanSurvivalConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForSurvival
from ecgdan_hf.model.survival_ecgdan import cox_loss
from ecgdan_hf.training.core.tasks import _SLOPE_LIMITS, _log_hazard_slope, _scale_log_hazard, gather_with_grad

RNG = np.random.default_rng(0)
HAZARD = RNG.standard_normal(4000)
TIME = RNG.exponential(np.exp(-HAZARD)) + 1e-4
EVENT = np.ones(4000)


@pytest.mark.parametrize("spread", [1.0, 2.0, 5.0])
def test_the_slope_undoes_a_log_hazard_that_is_spread_too_wide(spread: float):
    assert _log_hazard_slope(EVENT, TIME, spread * HAZARD) == pytest.approx(1 / spread, rel=0.06)


def test_the_slope_never_turns_the_order_of_risks_round():
    assert _log_hazard_slope(EVENT, TIME, -HAZARD) == _SLOPE_LIMITS[0]
    assert _log_hazard_slope(EVENT, TIME, 0.01 * HAZARD) == _SLOPE_LIMITS[1]


def test_shrinking_scales_every_log_hazard_and_keeps_their_order():
    torch.manual_seed(0)
    config = EcgDanSurvivalConfig(num_samples=64, pad_samples=2, trunk_channels=[8, 8], covariate_names=["age"])
    model = EcgDanForSurvival(config).eval()
    inputs = {"input_values": torch.randn(50, 12, 64), "covariates": torch.randn(50, 1), "return_loss": False}
    with torch.no_grad():
        before = model(**inputs).log_hazard
        _scale_log_hazard(model, [0.4])
        after = model(**inputs).log_hazard
    torch.testing.assert_close(after, 0.4 * before)
    assert concordance_index(EVENT[:50], TIME[:50], after) == concordance_index(EVENT[:50], TIME[:50], before)


SIX_HAZARDS = torch.tensor([0.3, -0.2, 0.8, 0.1, -0.5, 0.4])
SIX_EVENTS = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
SIX_TIMES = torch.tensor([1.0, 2.0, 3.0, 0.5, 4.0, 2.5])


def one_of_two(rank: int, folder: str, port: int) -> None:
    """A process with its share of the subjects; writes its loss and the gradient of one shared weight."""
    torch.set_num_threads(1)  # a forked process would wait for ever for OpenMP threads that only its parent has
    for state in (AcceleratorState, PartialState):
        state._reset_state()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    accelerator = Accelerator(cpu=True)
    part = (slice(0, 4), slice(4, 6))[rank]  # batches need not be of one size
    weight = torch.ones((), requires_grad=True)
    hazard = gather_with_grad(weight * SIX_HAZARDS[part], accelerator)
    loss = cox_loss(hazard, *(gather_with_grad(values[part], accelerator) for values in (SIX_EVENTS, SIX_TIMES)))
    loss.backward()
    mean = accelerator.reduce(weight.grad, "mean")  # what DDP does with gradients
    torch.save((loss.detach(), mean), Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_loss_and_gradient_of_one_risk_set(tmp_path: Path, unused_port: int):
    # forked from a server that has imported torch once, and in which no gradient was ever computed
    forkserver.set_forkserver_preload(["torch", "accelerate"])
    multiprocessing.start_processes(one_of_two, (str(tmp_path), unused_port), nprocs=2, start_method="forkserver")
    weight = torch.ones((), requires_grad=True)
    expected = cox_loss(weight * SIX_HAZARDS, SIX_EVENTS, SIX_TIMES)
    expected.backward()
    for rank in range(2):
        loss, gradient = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(gradient, weight.grad)


def test_one_process_is_left_alone():
    value = torch.ones(3)
    assert gather_with_grad(value, Accelerator(cpu=True)) is value
