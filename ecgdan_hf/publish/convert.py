"""Converts the authors' ECG-DAN checkpoints into our weights.

A released checkpoint is either a pretraining one (a Lightning file: names under `network.`, an `argparse.Namespace`
beside them) or a fine-tuned one (no prefix, risk head under `downsteam_net.`, their spelling). Both describe the
network of `lead_layout="reference"`. Only tensors are read: `weights_only=True` with that one class allowed.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgdan_hf.files import whole_folder
from ecgdan_hf.model.configuration_ecgdan import EcgDanConfig, EcgDanSurvivalConfig
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanForPreTraining, EcgDanForSurvival

_State = dict[str, Tensor]

_LEADS = 12
_PREFIX = re.compile(r"^(model\.network|network|downsteam_net)\.")
_RENAMES = (
    (r"^encoder\.input_conv\.0\.", "ecgdan.stem.conv1."),
    (r"^encoder\.input_conv\.1\.", "ecgdan.stem.norm1."),
    (r"^encoder\.input_conv\.3\.", "ecgdan.stem.conv2."),
    (r"^encoder\.input_conv\.4\.", "ecgdan.stem.norm2."),
    (r"^encoder\.encoder\.", "ecgdan.trunk."),
    (r"^encoder\.attention\.lead_mha\.in_proj_", "ecgdan.lead_attention.qkv."),
    (r"^encoder\.attention\.lead_mha\.out_proj\.", "ecgdan.lead_attention.out."),
    (r"^encoder\.attention\.lead_mlp\.", "ecgdan.lead_attention."),
    (r"^encoder\.attention\.lead_norm_1\.", "ecgdan.lead_attention.norm2."),
    (r"^encoder\.attention\.norm2\.", "ecgdan.lead_attention.norm1."),
    (r"^encoder\.attention\.attention_pool_1\.1\.", "ecgdan.average_projection."),
    (r"^encoder\.attention\.attention_pool_2\.1\.", "ecgdan.max_projection."),
    (r"^decoder\.linear\.0\.", "decoder.reduce."),
    (r"^decoder\.linear\.1\.", "decoder.expand."),
    (r"^decoder\.decoder\.", "decoder.blocks."),
    (r"^decoder\.final_conv\.0\.", "decoder.output."),
    (r"\.bn([12])\.", r".norm\1."),
    (r"\.idfunc_0\.", ".upsample."),
    (r"\.idfunc_1\.", ".shortcut."),
    (r"^model\.0\.", "risk_head.norm."),
    (r"^model\.2\.", "risk_head.hidden."),
    (r"^model\.4\.", "risk_head.hidden_norm."),
    (r"^model\.6\.", "risk_head.output."),
)
_STACKED = {
    "time_norm_1.{}.": "norm1_",
    "mlp_norm_1.{}.": "norm2_",
    "time_mha.{}.in_proj_": "qkv_",
    "time_mha.{}.out_proj.": "out_",
    "time_mlp.{}.fc1.": "fc1_",
    "time_mlp.{}.fc2.": "fc2_",
}


def _read_checkpoint(path: str | Path) -> _State:
    """Reads the tensors `encoder.…`, `decoder.…`, and `model.…` for a risk head, without running any code."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: expected a PyTorch checkpoint holding tensors only, found: {reason}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {_PREFIX.sub("", name): value for name, value in state.items() if isinstance(value, Tensor)}
    if "encoder.input_conv.0.weight" not in tensors:
        raise ValueError(
            f"{path}: expected an ECG-DAN checkpoint with encoder.input_conv.0.weight, found "
            f"{', '.join(sorted(tensors)[:3]) or 'no tensors'}"
        )
    return tensors


def _convert_state(state: _State) -> _State:
    """Renames the authors' tensors, given without prefixes, and stacks the twelve lead-specific temporal blocks."""
    converted = _stack_time_blocks(state)
    for name, value in state.items():
        if re.match(r"encoder\.attention\.(time_|mlp_norm)", name):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        converted[name] = value
    if "ecgdan.lead_attention.qkv.weight" not in converted:
        for kind in ("weight", "bias"):  # the ablation without lead attention still carries one of its norms
            converted[f"ecgdan.unused_norm.{kind}"] = converted.pop(f"ecgdan.lead_attention.norm1.{kind}")
    return converted


def _stack_time_blocks(state: _State) -> _State:
    stacked = {}
    for theirs, ours in _STACKED.items():
        for kind in ("weight", "bias"):
            names = ["encoder.attention." + theirs.format(lead) + kind for lead in range(_LEADS)]
            if names[0] in state:
                stack = torch.stack([state[name] for name in names])
                stacked["ecgdan.time_attention." + ours + kind] = stack if stack.ndim == 3 else stack[:, None]
    return stacked


def _infer_options(state: _State, sequential: bool = False) -> dict[str, Any]:
    """Returns the configuration that the tensors' names and shapes imply; both orders have the same tensors."""
    tokens = state["decoder.linear.0.bias"].numel() // 4
    return {
        "lead_layout": "reference",
        "input_kind": "median_beat" if tokens == 19 else "rhythm",
        "num_samples": 32 * tokens,
        "use_lead_attention": "encoder.attention.lead_mha.in_proj_weight" in state,
        "use_time_attention": "encoder.attention.time_mha.0.in_proj_weight" in state,
        "attention_order": "sequential" if sequential else "parallel",
    }


def convert_checkpoint(path: str | Path, out_dir: str | Path, sequential: bool = False) -> Path:
    """Writes a folder that `from_pretrained` loads, feature extractor included.

    Args:
        path: the authors' checkpoint.
        out_dir: new or empty folder.
        sequential: the checkpoint was trained with time attention feeding lead attention.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ECG-DAN checkpoint, tensors missing, or `out_dir` in use.
    """
    out_dir = Path(out_dir)
    if out_dir.exists() and any(out_dir.iterdir()):
        raise ValueError(f"{out_dir}: expected an empty or new folder, found files; choose another")
    state = _read_checkpoint(path)
    options = _infer_options(state, sequential)
    model: EcgDanForSurvival | EcgDanForPreTraining
    if "model.0.weight" in state:
        model = EcgDanForSurvival(EcgDanSurvivalConfig(**options))
    else:
        model = EcgDanForPreTraining(EcgDanConfig(**options))
    state, expected = _convert_state(state), model.state_dict()
    missing = [name for name in expected if name not in state and not name.startswith("baseline.")]
    if missing:
        raise ValueError(f"{path}: expected {len(expected)} tensors, {len(missing)} are missing: {missing[0]} …")
    model.load_state_dict({name: state[name] for name in expected if name in state}, strict=False)
    with whole_folder(out_dir) as folder:
        model.save_pretrained(folder)
        EcgDanFeatureExtractor(**model.config.signal_contract).save_pretrained(folder)
    return out_dir
