"""Alignment losses: symmetry, equal texts, and the collapse the paper's own objective allows."""

import pytest
import torch
import torch.nn.functional as F

from ecgdan_hf.model.heads_ecgdan import OBJECTIVES, _equal_rows, alignment_loss


def embeddings(n: int = 6, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, width, generator=generator), torch.randn(n, width, generator=generator)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_exchanging_the_modalities_leaves_the_loss_unchanged(objective):
    ecg, text = embeddings()
    same = _equal_rows(torch.tensor([[0.0], [1], [1], [2], [3], [3]]))
    forward = alignment_loss(ecg, text, objective, 5.0, -1.0, same)
    assert torch.allclose(forward, alignment_loss(text, ecg, objective, 5.0, -1.0, same))


def test_clip_with_different_texts_is_the_symmetric_cross_entropy():
    ecg, text = embeddings()
    logits = 3.0 * F.normalize(ecg) @ F.normalize(text).T
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert torch.allclose(alignment_loss(ecg, text, "clip", 3.0), expected)


def test_records_with_equal_text_are_not_each_others_negatives():
    text = torch.eye(2)[[0, 0, 1]]
    same = _equal_rows(text)
    assert same.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    ecg = embeddings(3, 2)[0]
    logits = (4.0 * F.normalize(ecg) @ text.T).log_softmax(-1), (4.0 * text @ F.normalize(ecg).T).log_softmax(-1)
    target = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    expected = -sum((target * side).sum(-1).mean() for side in logits) / 2
    assert torch.allclose(alignment_loss(ecg, text, "clip", 4.0, same_text=same), expected)


@pytest.mark.parametrize("objective", ["clip", "siglip"])
def test_contrastive_objectives_punish_a_collapse_that_the_papers_cosine_rewards(objective):
    collapsed = torch.ones(8, 4)
    spread = torch.eye(8)
    assert alignment_loss(collapsed, collapsed, "cosine").item() == pytest.approx(0, abs=1e-6)
    bias = -5.0 if objective == "siglip" else 0.0
    assert (
        alignment_loss(collapsed, collapsed, objective, 10.0, bias)
        > alignment_loss(spread, spread, objective, 10.0, bias) + 1
    )


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="clip, siglip, cosine"):
        alignment_loss(*embeddings(), objective="mse")
