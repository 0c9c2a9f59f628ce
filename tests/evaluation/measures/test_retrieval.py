"""Retrieval where texts repeat."""

import numpy as np
import pytest

from ecgdan_hf.evaluation.measures.retrieval import alignment_and_uniformity, retrieval_recall

RNG = np.random.default_rng(0)


def test_perfect_pairs_are_always_found_even_when_texts_repeat():
    ids = np.arange(40) % 7
    text = RNG.standard_normal((7, 5))[ids]
    found = retrieval_recall(text + 0.001 * RNG.standard_normal(text.shape), text, ids)
    assert found["ecg_to_text_recall_at_1"] == found["text_to_ecg_recall_at_1"] == found["recall"] == 1.0
    assert found["num_texts"] == 7


def test_unrelated_embeddings_are_found_as_often_as_by_chance():
    ids = np.repeat(np.arange(50), 40)
    found = retrieval_recall(RNG.standard_normal((2000, 16)), RNG.standard_normal((50, 16))[ids], ids, ks=[5])
    assert found["ecg_to_text_recall_at_5"] == pytest.approx(5 / 50, abs=0.04)


def test_counting_repeated_texts_as_rivals_would_give_another_number():
    ecg = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    text = np.array([[1.0, 0.05], [1.0, 0.05], [0.0, 1.0]])
    assert retrieval_recall(ecg, text, [0, 0, 1], ks=[1])["ecg_to_text_recall_at_1"] == 1.0


def test_one_text_alone_cannot_be_retrieved():
    with pytest.raises(ValueError, match="at least two distinct texts"):
        retrieval_recall(np.ones((3, 2)), np.ones((3, 2)), [0, 0, 0])
    with pytest.raises(ValueError, match="two arrays of one shape"):
        retrieval_recall(np.ones((3, 2)), np.ones((2, 2)), [0, 1, 1])


def test_uniformity_tells_a_collapse():
    spread = alignment_and_uniformity(RNG.standard_normal((200, 16)), RNG.standard_normal((200, 16)))
    collapsed = alignment_and_uniformity(np.ones((200, 16)), np.ones((200, 16)))
    assert collapsed == {"alignment": 0.0, "uniformity": 0.0}
    assert spread["uniformity"] < -3
    assert spread["alignment"] == pytest.approx(2, abs=0.1)
