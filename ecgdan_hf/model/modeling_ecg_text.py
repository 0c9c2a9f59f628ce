"""ECG-text dual encoder: an ECG network and a language model that meet in one space, after CLIP (Radford et al. 2021).

The ECG side is [`EcgDanForPreTraining`]'s encoder and alignment head under the same names, so its checkpoints become
this model without training (`EcgTextModel.from_ecgdan`). The text side is any encoder of transformers, pooled by the
mean over a text's own tokens; frozen, adapted by LoRA, or trained.

Travels with the weights: imports only torch, transformers and its neighbours, and peft for LoRA.
"""

import os
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_ecg_text import EcgTextConfig
from .configuration_ecgdan import EcgDanConfig
from .contract_ecgdan import STANDARD_LEADS as STANDARD_LEADS  # names every file that travels
from .discrete_time_ecgdan import discrete_time_loss
from .heads_ecgdan import EcgDanAlignmentHead
from .layers_ecgdan import EcgDanDropout
from .light_ecgdan import LIGHT_TRUNK
from .modeling_ecgdan import EcgDanForPreTraining, EcgDanModel, EcgDanModelOutput, EcgDanPreTrainedModel
from .paper_ecgdan import PAPER_TRUNK
from .risk_ecgdan import Baseline
from .risk_prediction_ecgdan import RiskPredictionMixin
from .survival_ecgdan import cox_loss

TRAVELS: tuple[object, ...] = (EcgDanConfig, EcgDanDropout, LIGHT_TRUNK, PAPER_TRUNK)
TRAVELS += (Baseline, RiskPredictionMixin, cox_loss, discrete_time_loss)
"""Not used here: a file that `auto_map` names has to import every file it needs directly."""

TEXT_TOWERS = ("frozen", "lora", "full")


@dataclass
class EcgTextOutput(ModelOutput):
    """Output of [`EcgTextModel`].

    Args:
        loss: alignment of the pairs, where texts were given.
        logits_per_ecg, logits_per_text: (N, M), scaled similarity of each ECG (row) to each text; its transpose.
        prompt_logits: (N, len(prompt_labels)), the same to each cached prompt.
        ecg_embeds, text_embeds: (N, projection_size), (M, projection_size), of unit length.
    """

    loss: Tensor | None = None
    logits_per_ecg: Tensor | None = None
    logits_per_text: Tensor | None = None
    prompt_logits: Tensor | None = None
    ecg_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    pooler_output: Tensor | None = None
    lead_attention: Tensor | None = None
    time_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class EcgTextModel(EcgDanPreTrainedModel):
    """ECG encoder and language model with a projection each.

    `text_model` is None until a text is asked for, unless the checkpoint stores it (`config.store_text_model`).
    """

    config: EcgTextConfig  # type: ignore[assignment]  # the base serves two configurations
    config_class = EcgTextConfig  # type: ignore[assignment]
    text_model: PreTrainedModel | None

    def __init__(self, config: EcgTextConfig):
        super().__init__(config)
        if not config.ecg_config.text_embed_dim:
            raise ValueError("ecg_config: text_embed_dim: expected the language model's width, got None")
        self.ecgdan = EcgDanModel(config.ecg_config)
        self.alignment_head = EcgDanAlignmentHead(config.ecg_config)
        self.text_model = AutoModel.from_config(config.text_config) if config.store_text_model else None
        self.post_init()

    @classmethod
    def from_ecgdan(
        cls,
        checkpoint_or_model: str | os.PathLike[str] | EcgDanForPreTraining,
        text_model: str | PreTrainedModel | None = None,
    ) -> "EcgTextModel":
        """The dual encoder of a pretraining checkpoint, in evaluation mode.

        Args:
            checkpoint_or_model: pretrained with text: a folder, a name on the Hub, or the model.
            text_model: the language model it was pretrained with, or its name or folder; default: the one the
                checkpoint names, once a text is asked for.

        Raises:
            ValueError: a checkpoint without alignment head.
        """
        source = checkpoint_or_model
        if not isinstance(source, PreTrainedModel):
            source = EcgDanForPreTraining.from_pretrained(source)
        if source.alignment_head is None:
            raise ValueError("checkpoint: expected one pretrained with a text_model, this one has no alignment head")
        model = cls(EcgTextConfig(ecg_config=EcgDanConfig(**source.config.to_dict() | {"architectures": None})))
        own = ("ecgdan.", "alignment_head.")
        weights = {name: value for name, value in source.state_dict().items() if name.startswith(own)}
        model.load_state_dict(weights)
        if text_model is not None:
            model.load_text_model(text_model)
        return model.train(False)

    def load_text_model(
        self, source: str | PreTrainedModel | None = None, revision: str | None = None
    ) -> PreTrainedModel:
        """Attaches the language model, frozen.

        Args:
            source: a model, a name on the Hub or a folder; default `config.text_model_name`.
            revision: its branch, tag or commit; default `config.text_model_revision` for the configured name.

        Raises:
            ValueError: no language model named, or one of another width than the alignment head's.
            OSError: it cannot be loaded.
        """
        text_model = self._fetched(source, revision) if source is None or isinstance(source, str) else source
        width, expected = text_model.config.hidden_size, self.config.ecg_config.text_embed_dim
        if width != expected:
            raise ValueError(f"text_model: expected the one of pretraining, {expected} wide, got one {width} wide")
        self.text_model = text_model.to(self.device).requires_grad_(False).eval()  # type: ignore[arg-type]
        return self.text_model

    def _fetched(self, source: str | None, revision: str | None) -> PreTrainedModel:
        name = source or self.config.text_model_name
        if not name:
            raise ValueError(
                "text_model: expected the name or folder of a language model, this checkpoint names none; give one to "
                "load_text_model"
            )
        revision = revision if source else revision or self.config.text_model_revision
        try:
            return cast(PreTrainedModel, AutoModel.from_pretrained(str(name), revision=revision, dtype=self.dtype))
        except OSError as error:
            raise OSError(
                f"text_model: {name} is neither a folder nor cached, and the Hub does not give it; give a folder to "
                "load_text_model, or use the prompts the checkpoint carries"
            ) from error

    def set_text_tower(self, text_tower: str, lora_rank: int = 8) -> None:
        """Chooses what is learned of the language model; anything learned is stored with the checkpoint.

        Args:
            text_tower: "frozen", "lora" (low-rank updates of every linear layer, Hu et al. 2021) or "full".
            lora_rank: rank of the updates.

        Raises:
            ValueError: an unknown choice, or "lora" without peft.
        """
        if text_tower not in TEXT_TOWERS:
            raise ValueError(f"text_tower: expected one of {', '.join(TEXT_TOWERS)}, got {text_tower!r}")
        text_model = self._text_tower()
        if text_tower != "frozen":
            self.config.text_config, self.config.store_text_model = text_model.config, True
        text_model.requires_grad_(text_tower == "full")
        if text_tower == "lora":
            text_model = self.text_model = self.with_lora(text_model, lora_rank)
        for name, parameter in text_model.named_parameters():
            if "pooler" in name:  # its output is not used: a gradient never comes
                parameter.requires_grad_(False)

    def merge_text_lora(self) -> None:
        """Adds the low-rank updates to the language model's weights, which are then an ordinary model's."""
        if _has_lora(self.text_model):
            self.text_model = cast(Any, self.text_model).merge_and_unload()

    def set_prompts(self, labels: list[str], text_embeds: Tensor) -> None:
        """Caches the prompts of `labels`, with arguments and errors of `EcgDanForPreTraining.set_prompts`."""
        self.alignment_head.set_prompts(labels, text_embeds)

    def train(self, mode: bool = True) -> "EcgTextModel":
        """A frozen language model stays in evaluation mode: its dropout would only blur its embeddings."""
        super().train(mode)
        if self.text_model is not None and not _is_trained(self.text_model):
            self.text_model.train(False)
        return self

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Saves; without the language model's weights unless `config.store_text_model`."""
        if _has_lora(self.text_model):
            raise ValueError("text_model: expected merged LoRA weights, got separate ones; call merge_text_lora first")
        text_model = self.text_model
        if self.config.store_text_model:
            self._text_tower()  # a checkpoint that says it stores it must
        else:
            self.text_model = None
            if kwargs.get("state_dict"):
                weights = kwargs["state_dict"].items()
                kwargs["state_dict"] = {name: value for name, value in weights if not name.startswith("text_model.")}
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.text_model = text_model if text_model is not None else self.text_model

    def get_ecg_features(
        self, input_values: Tensor, lead_mask: Tensor | None = None, **kwargs: Any
    ) -> EcgDanModelOutput:
        """The encoder's output, with the projected ECG of unit length, (N, projection_size), as `pooler_output`."""
        encoded = cast(EcgDanModelOutput, self.ecgdan(input_values, lead_mask, **kwargs))
        encoded.pooler_output = self.alignment_head.project_ecg(cast(Tensor, encoded.pooler_output))
        return encoded

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """The projected texts of unit length, (M, projection_size), as `pooler_output`.

        `input_ids` and `attention_mask` are (M, tokens), from the language model's tokenizer; `kwargs` is what else
        the language model takes, such as `token_type_ids`.
        """
        hidden = self._hidden(input_ids, attention_mask, **kwargs)
        pooled = self.mean_over_tokens(hidden, attention_mask)
        projected = self.alignment_head.project_text(pooled.to(self.dtype))
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=projected)

    @can_return_tuple  # type: ignore[untyped-decorator, unused-ignore]
    def forward(
        self,
        input_values: Tensor,
        lead_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        text_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_loss: bool = True,
        **kwargs: object,
    ) -> EcgTextOutput:
        """Compares ECGs with texts.

        Args:
            input_values, lead_mask, output_attentions, output_hidden_states: as in [`EcgDanModel`].
            input_ids, attention_mask, token_type_ids: (M, tokens), from the language model's tokenizer.
            text_embeds: (M, text_embed_dim) instead, embeddings of the same language model computed before.
            return_loss: compute the loss, if there are as many texts as ECGs: text i is ECG i's.
        """
        encoded = self.ecgdan(input_values, lead_mask, output_attentions, output_hidden_states)
        ecg = self.alignment_head.project_ecg(encoded.pooler_output)
        output = EcgTextOutput(ecg_embeds=ecg, **encoded.for_head())
        if self.config.ecg_config.prompt_labels:
            output.prompt_logits = self.alignment_head.prompt_logits(ecg)
        if input_ids is not None:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            text = cast(Tensor, self.get_text_features(input_ids, attention_mask, **types).pooler_output)
            given = self.own_tokens(input_ids, attention_mask)
        elif text_embeds is not None:
            given, text = text_embeds, self.alignment_head.project_text(text_embeds.to(self.dtype))
        else:
            return output
        scale, bias = self.alignment_head()
        output.text_embeds = text
        output.logits_per_ecg = scale * ecg @ text.T + bias
        output.logits_per_text = output.logits_per_ecg.T
        if return_loss and text.shape[0] == ecg.shape[0]:
            output.loss = self.alignment_head.loss(ecg, text, given)
        return output

    def _hidden(self, input_ids: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Tensor:
        text_model = self._text_tower()
        with torch.set_grad_enabled(torch.is_grad_enabled() and _is_trained(text_model)):
            output = text_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        return cast(Tensor, output.last_hidden_state)

    def _text_tower(self) -> PreTrainedModel:
        return self.load_text_model() if self.text_model is None else self.text_model

    @staticmethod
    def mean_over_tokens(hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(M, tokens, width) -> (M, width), the mean over each text's own tokens."""
        if attention_mask is None:
            return hidden.mean(1)
        mask = attention_mask[..., None].to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)

    @staticmethod
    def own_tokens(input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(M, tokens) with -1 for padding: rows are equal where texts are."""
        return input_ids if attention_mask is None else input_ids.masked_fill(attention_mask == 0, -1)

    @staticmethod
    def with_lora(text_model: PreTrainedModel, rank: int = 8) -> PreTrainedModel:
        """The language model with low-rank updates of its linear layers, everything else frozen."""
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ValueError("text_tower: lora needs peft; pip install peft, or use frozen or full") from error
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
        return cast(PreTrainedModel, get_peft_model(text_model, config))


def _has_lora(text_model: PreTrainedModel | None) -> bool:
    return hasattr(text_model, "merge_and_unload")


def _is_trained(text_model: PreTrainedModel) -> bool:
    return any(parameter.requires_grad for parameter in text_model.parameters())
