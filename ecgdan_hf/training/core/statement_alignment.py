"""The texts of the objective `statements`: a list of texts, and which of them are true of each record.

SCP statements are true where a reader made them; a text is what defines the statement, or its name. Measured sentences
(`data.text.measured`) are true or false by the signal alone, and unknown where it could not be delineated: any ECG has
them, without a report or a label. The same measurements are targets of the measurement head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ecgdan_hf.data.measure.table import measure_table
from ecgdan_hf.data.sources.registry import read_source
from ecgdan_hf.data.text import statements as reports
from ecgdan_hf.data.text.definitions import definitions
from ecgdan_hf.data.text.measured import measured_sentences, measured_truth
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.training.arguments.fields import PretrainArguments

TARGETS, MEASUREMENTS = "text_targets", "measurement_targets"
_MAX_WEIGHT = 10.0
_WORDINGS = 4
"""Wordings of a definition that training draws from: the definition and its first paraphrases."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TextList:
    """Texts that all records are compared with.

    Attributes:
        names: of the texts, SCP codes or names of measured sentences.
        wordings: for each, its embeddings (wordings, width).
        weights: (texts,), the weight of a true pair, so that rare texts count.
    """

    names: list[str]
    wordings: list[np.ndarray] = field(repr=False)
    weights: np.ndarray = field(repr=False)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(texts, width), each text in one of its wordings."""
        return np.stack([wording[rng.integers(len(wording))] for wording in self.wordings])


def _rare_text_weights(targets: np.ndarray) -> np.ndarray:
    """(texts,) from (records, texts): sqrt((1 - p) / p) of the share p that is true, at most 10; 1 where none is."""
    known = np.maximum((~np.isnan(targets)).sum(axis=0), 1)
    share = np.nansum(targets, axis=0) / known
    with np.errstate(divide="ignore"):
        weights = np.sqrt((1 - share) / share)
    return np.where(share > 0, np.minimum(weights, _MAX_WEIGHT), 1.0).astype(np.float32)


class StatementTargets:
    """Which texts are true of which record, and the texts' embeddings by the run's language model."""

    def __init__(self, args: PretrainArguments, held_out: Sequence[str], statements: pd.DataFrame | None):
        self.args, self.held_out, self.statements = args, held_out, statements
        self.sources = args.text_source.split(",")

    def lookups(self, dataset: Any, config: EcgDanConfig) -> Arrays:
        """The targets of each record: (records, texts), and (records, measurements) if the network has any."""
        parts = [self._statement_targets(dataset)] if "statements" in self.sources else []
        if "measured" in self.sources:
            parts.append(measured_truth(self._measured_rows(dataset)).to_numpy(np.float32))
        values = {TARGETS: np.concatenate(parts, axis=1).astype(np.float32)}
        if config.measurement_names:
            rows = self._measured_rows(dataset)
            absent = [name for name in config.measurement_names if name not in rows]
            if absent:
                raise ValueError(f"model: measurement_names: expected columns of `measure_table`, got {absent[0]!r}")
            values[MEASUREMENTS] = rows[config.measurement_names].to_numpy(np.float32)
        return values

    @cached_property
    def codes(self) -> list[str]:
        """The SCP codes that texts are about, without those held out."""
        if "statements" not in self.sources or self.statements is None:
            return []
        return [str(code) for code in self.statements.index if code not in self.held_out]

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        """Name -> wordings, in the order of the targets."""
        prompts = self.prompts()
        texts = {code: prompts[code] for code in self.codes}
        if "measured" in self.sources:
            texts |= {name: list(sentence.wordings) for name, sentence in measured_sentences().items()}
        return texts

    def prompts(self) -> dict[str, list[str]]:
        """Every SCP code -> its wordings: its definition's, or the templates around its name."""
        if self.args.text_prompts == "names":
            table = self.statements
            return {} if table is None else dict(zip(*reports.StatementTexts(table).prompts(), strict=True))
        return {code: list(known.texts[:_WORDINGS]) for code, known in definitions("statement").items()}

    def embeddings(self, texts: Mapping[str, Sequence[str]]) -> list[np.ndarray]:
        """For each text (wordings, width), by the language model or what the control puts in its place."""
        if self.args.text_control == "one_hot":
            names = [*self.prompts(), *measured_sentences()]
            return [np.eye(len(names), dtype=np.float32)[[names.index(name)]] for name in texts]
        flat = [text for several in texts.values() for text in several]
        if self.args.text_control == "random_model":
            vectors = _embed_by_random_model(flat, self.args)
        else:
            options: dict[str, Any] = {"revision": self.args.text_model_revision}
            vectors = reports.embed_texts(flat, self.args.text_model, self.args.cache_dir, **options)
        return np.split(vectors, np.cumsum([len(several) for several in texts.values()])[:-1])

    def text_list(self, targets: np.ndarray) -> TextList:
        """The texts of the training targets; with the control `permuted` each statement has another's definition."""
        names = list(self._texts)
        vectors = self.embeddings(self._texts)
        if self.args.text_control == "permuted":
            order = np.random.default_rng(self.args.seed).permutation(len(self.codes))
            vectors = [vectors[i] for i in order] + vectors[len(self.codes) :]
        return TextList(names, vectors, _rare_text_weights(targets))

    def standardise(self, config: EcgDanConfig, lookups: Arrays) -> None:
        """Stores mean and SD of the training records' measurements in the configuration."""
        if not config.measurement_names:
            return
        values = lookups[MEASUREMENTS].astype(np.float64)
        config.measurement_means = np.nanmean(values, axis=0).tolist()
        config.measurement_stds = np.maximum(np.nanstd(values, axis=0), 1e-6).tolist()

    def _statement_targets(self, dataset: Any) -> np.ndarray:
        if self.statements is None:
            raise FileNotFoundError(
                f"{self.args.data_dir}/scp_statements.csv: no such file; text_source statements needs it"
            )
        names, weights = reports.StatementTexts(self.statements).record_weights(list(dataset["scp_codes"]))
        columns = [names.index(code) for code in self.codes]
        return (weights[:, columns] > 0).astype(np.float32)

    @cached_property
    def _measured(self) -> pd.DataFrame:
        args = self.args
        table = read_source(args.data, str(args.data_dir)).iloc[: args.limit]
        return measure_table(table, num_proc=args.num_proc, cache_dir=args.cache_dir).set_index("record_id")

    def _measured_rows(self, dataset: Any) -> pd.DataFrame:
        return self._measured.loc[[str(record_id) for record_id in dataset["record_id"]]]


def _embed_by_random_model(texts: Sequence[str], args: PretrainArguments) -> np.ndarray:
    """(texts, width) by the language model with randomly initialised weights: mean over tokens."""
    path = reports.resolve_text_model(args.text_model)
    with reports.loading_text_model(path), torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(args.seed)
        model = AutoModel.from_config(AutoConfig.from_pretrained(path)).eval()
        tokens = AutoTokenizer.from_pretrained(path)(list(texts), padding=True, truncation=True, return_tensors="pt")
        hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return np.asarray(((hidden * mask).sum(1) / mask.sum(1)).numpy(), dtype=np.float32)
