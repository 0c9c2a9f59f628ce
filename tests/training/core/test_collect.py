"""Tensors of several processes put together, with the gradient of one loss over all of them."""

import os
from pathlib import Path

import torch
import torch.multiprocessing as multiprocessing
from accelerate import Accelerator

from ecgdan_hf.model.survival_ecgdan import cox_loss
from ecgdan_hf.training.core.tasks import gather_with_grad

HAZARD = torch.tensor([0.3, -0.2, 0.8, 0.1, -0.5, 0.4])
EVENT = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
TIME = torch.tensor([1.0, 2.0, 3.0, 0.5, 4.0, 2.5])


def one_of_two(rank: int, folder: str) -> None:
    """A process with its share of the subjects; writes its loss and the gradient of one shared weight."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": os.environ["ECGDAN_TEST_PORT"], "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    accelerator = Accelerator(cpu=True)
    part = (slice(0, 4), slice(4, 6))[rank]  # batches need not be of one size
    weight = torch.ones((), requires_grad=True)
    hazard = gather_with_grad(weight * HAZARD[part], accelerator)
    loss = cox_loss(hazard, *(gather_with_grad(values[part], accelerator) for values in (EVENT, TIME)))
    loss.backward()
    mean = accelerator.reduce(weight.grad, "mean")  # what DDP does with gradients
    torch.save((loss.detach(), mean), Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_loss_and_gradient_of_one_risk_set(tmp_path: Path, unused_port: int):
    os.environ["ECGDAN_TEST_PORT"] = str(unused_port)
    multiprocessing.spawn(one_of_two, args=(str(tmp_path),), nprocs=2)
    weight = torch.ones((), requires_grad=True)
    expected = cox_loss(weight * HAZARD, EVENT, TIME)
    expected.backward()
    for rank in range(2):
        loss, gradient = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(gradient, weight.grad)


def test_one_process_is_left_alone():
    value = torch.ones(3)
    assert gather_with_grad(value, Accelerator(cpu=True)) is value
