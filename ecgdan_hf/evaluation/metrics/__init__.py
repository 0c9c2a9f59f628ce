"""Local modules of the `evaluate` library that call the functions of `measures`.

They need no network: `evaluate.load(metric_path("concordance_index"))`.
"""

from pathlib import Path


def metric_path(name: str) -> str:
    """Returns the path of a metric of this folder for `evaluate.load`.

    Args:
        name: `"brier_score"`, `"concordance_index"`, `"dynamic_auc"`, `"macro_auprc"` or `"macro_auroc"`.

    Raises:
        ValueError: no such metric.
    """
    path = Path(__file__).with_name(f"{name}.py")
    if not path.is_file() or name.startswith("_"):
        known = sorted(file.stem for file in path.parent.glob("*.py") if not file.stem.startswith("_"))
        raise ValueError(f"metric: expected one of {', '.join(known)}, got {name!r}")
    return str(path)
