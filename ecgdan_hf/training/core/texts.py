"""The text side of pretraining: the text of each record, as an embedding computed once or as tokens.

With a frozen language model a record is the vector that `data.text.statements` gives it. Where the language model
learns too (`--text-tower lora` or `full`) a record is one text, its statements one after the other; the network reads
tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ecgdan_hf.data.text import statements as reports
from ecgdan_hf.data.text.reports import clean_report
from ecgdan_hf.evaluation.measures.classification import auroc_per_label
from ecgdan_hf.evaluation.protocols.zero_shot import Level, group_scores
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig
from ecgdan_hf.model.heads_ecgdan import EcgDanAlignmentHead
from ecgdan_hf.model.modeling_ecg_text import EcgTextModel
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining, EcgDanPreTrainingOutput
from ecgdan_hf.training.arguments.fields import PretrainArguments
from ecgdan_hf.training.core.batching import STATEMENT_WEIGHTS, multi_hot
from ecgdan_hf.training.core.starting_weights import build_model
from ecgdan_hf.training.core.statement_alignment import TARGETS, StatementTargets

_TEXT_COLUMNS = {"statements": "scp_codes", "report": "report", "report_english": "report"}
_TEXT_COLUMNS |= {"statements,measured": "scp_codes", "measured": "record_id"}
_MAX_TOKENS = 128
_TEXTS_PER_PASS = 64

Arrays = dict[str, np.ndarray]
ZeroShot = Callable[[Any, str, np.ndarray], float]
"""(model, part, ECG embeddings (records, width)) -> macro AUROC."""


class _EcgDanWithTextTower(EcgDanForPreTraining):
    """The pretraining network with a language model that learns; it takes `input_ids` instead of `text_embeds`."""

    text_model: nn.Module

    def forward(
        self, *args: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> EcgDanPreTrainingOutput:
        """As [`EcgDanForPreTraining`], with the language model's mean over each text's tokens as `text_embeds`."""
        if input_ids is not None and attention_mask is not None:
            kwargs["text_embeds"] = self.embed(input_ids, attention_mask)
        output: EcgDanPreTrainingOutput = super().forward(*args, **kwargs)
        return output

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(N, tokens) -> (N, text_embed_dim)."""
        used = attention_mask.any(0)  # texts are padded to the longest of all, which is rarely in the batch
        input_ids, attention_mask = input_ids[:, used], attention_mask[:, used]
        hidden = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return EcgTextModel.mean_over_tokens(hidden, attention_mask)


class TextSide:
    """Texts of the records and of the prompts, by the language model that the run's `text_model` names."""

    def __init__(self, args: PretrainArguments, config: EcgDanConfig):
        self.args, self.config = args, config
        self.trained = args.text_tower != "frozen"
        self.path = reports.resolve_text_model(args.text_model)
        self.held_out = [code.strip() for code in (args.hold_out_statements or "").split(",") if code.strip()]
        has_statements = (Path(str(args.data_dir)) / "scp_statements.csv").is_file()
        self.statements: Any = reports.read_statements(str(args.data_dir)) if has_statements else None
        self.targets = StatementTargets(args, self.held_out, self.statements)
        if self.trained:
            with reports.loading_text_model(self.path):
                self.tokenizer = AutoTokenizer.from_pretrained(self.path, revision=args.text_model_revision)

    @property
    def is_list(self) -> bool:
        """Whether every record is compared with a list of texts."""
        return self.config.alignment_objective == "statements"

    @staticmethod
    def check(args: PretrainArguments, config: EcgDanConfig, column_names: Sequence[str]) -> None:
        """Rejects choices that contradict each other or the data."""
        _check_objective(args, config.alignment_objective)
        if not 0 <= args.statement_dropout < 1:
            raise ValueError(f"statement_dropout: expected a share below 1, got {args.statement_dropout}")
        if args.statement_dropout and (args.text_source != "statements" or args.text_tower != "frozen"):
            raise ValueError("statement_dropout: needs text_source statements and a frozen text_tower; leave it out")
        if args.text_model == "none":
            for name in ("shuffle_text", "text_control", "hold_out_statements", "statement_dropout"):
                if getattr(args, name) not in (None, False, 0, "none"):
                    raise ValueError(f"{name}: needs a text_model, got none")
            return
        column = _TEXT_COLUMNS[args.text_source]
        if column not in column_names:
            raise ValueError(
                f"text_source: {args.text_source} needs a column {column!r} in the data; or --text-model none"
            )
        if args.hold_out_statements and "statements" not in args.text_source:
            raise ValueError(
                "hold_out_statements: needs text_source statements; statements cannot be removed from a report"
            )
        if args.text_tower != "frozen" and args.text_style != "default":
            raise ValueError(f"text_style: {args.text_style} is for a frozen text_tower, got {args.text_tower}")

    def lookups(self, dataset: Any) -> tuple[Arrays, np.ndarray]:
        """The network's input from each record's text, and (records,) whether it has any."""
        if self.is_list:
            values = self.targets.lookups(dataset, self.config)
            return values, np.asarray(~np.isnan(values[TARGETS]).all(axis=1))
        column = list(dataset[_TEXT_COLUMNS[self.args.text_source]])
        if self.trained:
            texts = self._texts(column)
            return _tokenize(texts, self.tokenizer), np.array([bool(text) for text in texts])
        vectors = self._vectors(column)
        return {"text_embeds": vectors}, np.abs(vectors).sum(axis=1) > 0

    def varied(self, dataset: Any, lookups: Arrays) -> Arrays:
        """The lookups with each record's weight of every statement, from which the collator draws texts."""
        _, weights = self._statement_texts().record_weights(list(dataset["scp_codes"]))
        return {**lookups, STATEMENT_WEIGHTS: weights}

    @staticmethod
    def shuffled(lookups: Arrays, seed: int) -> Arrays:
        """The texts permuted among the records: a control without any relation of ECG and text."""
        order = np.random.default_rng(seed).permutation(len(next(iter(lookups.values()))))
        return {name: values[order] for name, values in lookups.items()}

    @property
    def statement_embeds(self) -> np.ndarray:
        """(codes, templates, width): every statement in every wording."""
        return self._frozen_prompts[1].numpy()

    def _texts(self, column: list[Any]) -> list[str]:
        if self.args.text_source == "statements":
            return self._statement_texts(text_style="default").record_texts(column)
        return [clean_report(report, to_english=self.args.text_source == "report_english") for report in column]

    def _vectors(self, column: list[Any]) -> np.ndarray:
        args = self.args
        if args.text_source == "statements":
            texts = self._statement_texts()
            return texts.record_embeddings(column, args.text_model, args.cache_dir, args.text_model_revision)
        options: dict[str, Any] = {"text_style": args.text_style, "revision": args.text_model_revision}
        return reports.embed_texts(self._texts(column), args.text_model, args.cache_dir, **options)

    def _statement_texts(self, text_style: str | None = None) -> reports.StatementTexts:
        """Raises FileNotFoundError where the data have no `scp_statements.csv`."""
        args = self.args
        table = reports.read_statements(str(args.data_dir)) if self.statements is None else self.statements
        return reports.StatementTexts(table, text_style or args.text_style, self.held_out)

    def network(self, config: EcgDanConfig) -> nn.Module:
        """The network to train, with the language model in it that learns too; "lora" needs peft."""
        config.text_embed_dim = AutoConfig.from_pretrained(self.path).hidden_size
        model: Any = build_model(_EcgDanWithTextTower, config, self.args.checkpoint)[0]
        with reports.loading_text_model(self.path):
            tower = AutoModel.from_pretrained(self.path, revision=self.args.text_model_revision, dtype=torch.float32)
        tower = EcgTextModel.with_lora(tower, self.args.lora_rank) if self.args.text_tower == "lora" else tower
        for name, parameter in tower.named_parameters():
            if "pooler" in name:  # its output is not used: a gradient never comes
                parameter.requires_grad_(False)
        model.text_model = tower
        return model  # type: ignore[no-any-return]

    def prompts(self, model: Any) -> tuple[list[str], Tensor]:
        """All SCP codes and (codes, templates, width): what zero-shot classification compares an ECG with."""
        if not self.trained:
            return self._frozen_prompts
        codes, prompts = reports.StatementTexts(self.statements).prompts()
        vectors = self.embed([text for wordings in prompts for text in wordings], model)
        return codes, vectors.reshape(len(codes), -1, vectors.shape[-1])

    @cached_property
    def _frozen_prompts(self) -> tuple[list[str], Tensor]:
        args = self.args
        if self.is_list:
            prompts = self.targets.prompts()
            return list(prompts), torch.from_numpy(np.stack(self.targets.embeddings(prompts)))
        texts = reports.StatementTexts(self.statements, args.text_style)
        codes, vectors = texts.prompt_embeddings(args.text_model, args.cache_dir, revision=args.text_model_revision)
        return codes, torch.from_numpy(vectors)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], model: _EcgDanWithTextTower) -> Tensor:
        """(texts, width), by the language model as it is now; the model must be in evaluation mode."""
        device, parts = next(model.parameters()).device, []
        for start in range(0, len(texts), _TEXTS_PER_PASS):
            tokens = _tokenize(texts[start : start + _TEXTS_PER_PASS], self.tokenizer)
            parts.append(model.embed(*(torch.from_numpy(value).to(device) for value in tokens.values())).float())
        return torch.cat(parts)

    def finished(self, model: Any) -> Any:
        """The network to save, with its prompts; the dual encoder if the language model was trained."""
        config = model.config
        config.text_model_name = reports.text_model_hub_name(self.args.text_model)
        config.text_model_revision = self.args.text_model_revision
        if self.statements is not None or (self.is_list and self.targets.prompts()):
            codes, vectors = self.prompts(model)
            model.set_prompts(codes, vectors.to(model.device))
        if not self.trained:
            return model
        dual: Any = EcgTextModel.from_ecgdan(model)
        dual.text_model = model.text_model
        dual.merge_text_lora()
        dual.set_text_tower("full")
        return dual.eval()

    def zero_shot(self, parts: Mapping[str, Any]) -> ZeroShot | None:
        """Evaluates the superclasses by the prompts as they are, without a label having been learned from.

        The result is the mean over the classes that have positives and negatives, NaN where none has; None where the
        data have no superclasses.
        """
        valid = parts["valid"]
        if self.statements is None or "labels" not in valid.column_names:
            return None
        names = valid.features["labels"].feature.names
        if not set(names) <= set(self.statements.get("diagnostic_class", [])):
            return None
        members = Level.groups_of(self.statements, "superclass")
        groups = {name: members[name] for name in names}
        truth = {name: multi_hot(part["labels"], len(names)).numpy() for name, part in parts.items()}

        def macro_auroc(model: Any, part: str, ecg_embeds: np.ndarray) -> float:
            codes, vectors = self.prompts(model)
            logits = _prompt_logits(model.alignment_head, vectors, torch.from_numpy(ecg_embeds))
            values = auroc_per_label(truth[part], group_scores(logits.numpy(), codes, groups))
            return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

        return macro_auroc

    def described(self) -> dict[str, Any]:
        """The choices a reader of the metrics has to know."""
        args = self.args
        return {
            "model": reports.text_model_hub_name(args.text_model) or Path(args.text_model).name,
            "source": args.text_source,
            "prompts": args.text_prompts,
            "control": args.text_control,
            "tower": args.text_tower,
            "shuffled": args.shuffle_text,
            "held_out_statements": self.held_out,
        }


def _check_objective(args: PretrainArguments, objective: str) -> None:
    """Rejects choices that only the objective `statements` has, or that it does not have."""
    if objective == "statements":
        if args.text_model == "none" or "report" in args.text_source:
            raise ValueError(
                "text_source: the objective statements needs a text_model, and statements, measured or both, got "
                f"{args.text_source} and text_model {args.text_model}"
            )
        for name in ("statement_dropout", "text_tower", "text_style"):
            if getattr(args, name) != getattr(PretrainArguments(), name):
                raise ValueError(f"{name}: the objective statements does not use it; leave it out")
        return
    for name in ("text_source", "text_prompts", "text_control"):
        given = getattr(args, name)
        if any(word in given for word in ("measured", "definitions", "permuted", "one_hot", "random_model")):
            raise ValueError(f"{name}: {given} needs the alignment_objective statements, got {objective}")


@torch.no_grad()
def _prompt_logits(head: EcgDanAlignmentHead, prompts: Tensor, ecg_embeds: Tensor) -> Tensor:
    """(N, prompts) on the CPU, from (prompts, templates, width) that is not cached in the head."""
    projected = nn.functional.normalize(head.project_text(prompts.to(next(head.parameters()))).mean(1), dim=-1)
    return head.logits(ecg_embeds.to(projected), projected).float().cpu()


def _tokenize(texts: Sequence[str], tokenizer: Any) -> Arrays:
    """`input_ids` and `attention_mask`, (texts, tokens), all of one length so that equal texts are equal rows."""
    longest = min(tokenizer.model_max_length, _MAX_TOKENS)
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="np")
    return {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
