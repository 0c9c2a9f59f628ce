"""Comments in README's blocks say what the blocks print."""

from pathlib import Path

from fixtures.write_clone import REPOSITORY
from transformers import pipeline

import ecgdan_hf  # noqa: F401  registers the pipelines
from ecgdan_hf.data.simulate import synthetic
from ecgdan_hf.inference.checkpoints import load_checkpoint
from ecgdan_hf.inference.zero_shot import zero_shot

CARDS = REPOSITORY / "model_cards"


def test_zero_shot_answers_normal_and_abnormal_t_as_readme_says_of_two_ecgs_of_the_demo(tmp_path: Path) -> None:
    subjects = synthetic._make_subjects(600, seed=1)[:3]
    files = [str(tmp_path / synthetic._write_record(tmp_path, row, seed=1)) for row in subjects.itertuples()]
    compare = pipeline("zero-shot-ecg-classification", model=str(CARDS / "ecg-dan-rhythm"))
    answers = compare([files[0], files[2]], candidate_labels=["NORM", "NDT"])
    assert [answer[0]["label"] for answer in answers] == ["NORM", "NDT"]
    first = compare(files[0], multi_label=True, top_k=2)
    assert [answer["label"] for answer in first] == ["SR", "NORM"]
    classify = pipeline("ecg-classification", model=str(CARDS / "ecg-dan-rhythm-superclasses"))
    assert [answer[0]["label"] for answer in classify([files[0], files[2]])] == ["NORM", "STTC"]


def test_the_verb_answers_the_first_ecg_of_the_demo_as_readme_says(tmp_path: Path) -> None:
    subject = next(synthetic._make_subjects(600, seed=1).itertuples())
    file = tmp_path / synthetic._write_record(tmp_path, subject, seed=1)
    asked = zero_shot(file, ["SBRAD"], *load_checkpoint(CARDS / "ecg-dan-rhythm")).iloc[0]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"# SBRAD: {asked['probability']:.0%}; {asked['rests_on']}\n" in readme
