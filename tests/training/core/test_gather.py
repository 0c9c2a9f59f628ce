"""Two processes together learn from all their pairs what one process would, and from every row once."""

import multiprocessing
import os
import socket
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from tiny import TINY, signals
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel

from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining
from ecgdan_hf.training.core.batching import EpochBatchSampler, share_of_batches
from ecgdan_hf.training.core.texts import _EcgDanWithTextTower
from ecgdan_hf.training.pretrain import _PretrainingTask

BERT = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
RECORDS = 6


def language_network() -> EcgDanForPreTraining:
    """One text a record, by a language model that learns."""
    model = _EcgDanWithTextTower(EcgDanConfig(**TINY, text_embed_dim=16))
    model.text_model = BertModel(BertConfig(**BERT), add_pooling_layer=False)
    return model


def statement_network() -> EcgDanForPreTraining:
    """Each record with a list of texts."""
    return EcgDanForPreTraining(EcgDanConfig(**TINY, text_embed_dim=16, alignment_objective="statements"))


NETWORKS = {"one text": language_network, "statements": statement_network}


def batch(kind: str, rows: slice) -> dict[str, torch.Tensor]:
    signal = signals(RECORDS)
    if kind == "one text":
        ids = torch.tensor([[1, 2, 3], [4, 5, 0], [1, 2, 3], [6, 7, 8], [9, 0, 0], [4, 5, 0]])
        return {"input_values": signal[rows], "input_ids": ids[rows], "attention_mask": (ids > 0).long()[rows]}
    generator = torch.Generator().manual_seed(0)
    texts, targets = torch.randn(4, 16, generator=generator), torch.zeros(RECORDS, 4)
    targets[:2, 0] = targets[3:, 2] = 1.0
    targets[:3, 1:] = torch.nan  # unknown in the first process alone: a mean of means would weigh pairs unequally
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    targets = {"text_targets": targets[rows], "text_weights": weights}
    return {"input_values": signal[rows], "text_embeds": texts, **targets}


def learn(rank: int, processes: int, port: int, out: str) -> None:
    """One backward pass of each network on this process's share; the mean gradients of all processes into a file."""
    torch.set_num_threads(1)  # a forked process would wait for ever for OpenMP threads that only its parent has
    for state in (AcceleratorState, PartialState):
        state._reset_state()
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == processes
    found = {kind: learned_by(kind, rank, accelerator) for kind in NETWORKS}
    seen = accelerator.gather(torch.tensor([*rows_of_an_epoch(accelerator)]))
    if rank == 0:
        torch.save({**found, "rows": seen}, out)
    if processes > 1:
        torch.distributed.destroy_process_group()


def learned_by(kind: str, rank: int, accelerator: Accelerator) -> dict[str, Any]:
    torch.manual_seed(0)
    model, share = NETWORKS[kind]().eval(), RECORDS // accelerator.num_processes  # dropout differs between processes
    task = _PretrainingTask(model.config, "loss", {}, batch_size=share)
    losses = task.losses(model, batch(kind, slice(rank * share, (rank + 1) * share)), accelerator)
    losses["loss"].backward()
    learned = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    grads = {name: accelerator.reduce(value, "mean") for name, value in learned.items()}
    return {"loss": losses["alignment_loss"].detach(), "grads": grads}


def rows_of_an_epoch(accelerator: Accelerator) -> list[int]:
    """Those that this process trains on; of 26 rows in batches of at most 8, all batches are smaller."""
    sampler = EpochBatchSampler(26, 8)
    loader = share_of_batches(DataLoader(range(26), batch_sampler=sampler), accelerator)
    return [int(row) for batch in loader for row in batch]


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process and what two processes together learn."""
    # processes are forked from a server that has imported torch once, and in which no gradient was ever computed
    multiprocessing.set_forkserver_preload(["torch", "accelerate", "transformers"])
    folder = tmp_path_factory.mktemp("gather")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []
    for processes in (1, 2):
        arguments = (processes, port, str(folder / f"{processes}.pt"))
        torch.multiprocessing.start_processes(learn, arguments, nprocs=processes, start_method="forkserver")
        found.append(torch.load(arguments[2]))
    return found


@pytest.mark.parametrize("kind", NETWORKS)
def test_two_processes_agree_with_one_on_loss_and_gradient(kind: str, one_and_two: list[dict[str, Any]]):
    one, two = (found[kind] for found in one_and_two)
    torch.testing.assert_close(two["loss"], one["loss"])
    assert sorted(one["grads"]) == sorted(two["grads"])
    for name, value in one["grads"].items():
        torch.testing.assert_close(two["grads"][name], value, atol=1e-6, rtol=1e-4)
    learned = {"one text": "text_model.embeddings.word_embeddings", "statements": "alignment_head.text_projection.0"}
    assert one["grads"][f"{learned[kind]}.weight"].abs().sum() > 0


def test_two_processes_see_every_row_once(one_and_two: list[dict[str, Any]]):
    one, two = one_and_two
    assert sorted(two["rows"].tolist()) == sorted(one["rows"].tolist()) == list(range(26))
