"""Loads a checkpoint of the package, from a folder or the Hub, as the right model class with its feature extractor.

The model class comes from the checkpoint, so that the caller need not know the task. Raises errors for what the Auto
classes let pass: missing weights, or a feature extractor that does not fit the model.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from ecgdan_hf.inference.heads import HEADS, Config, head_of
from ecgdan_hf.model.feature_extraction_ecgdan import EcgDanFeatureExtractor
from ecgdan_hf.model.modeling_ecgdan import EcgDanPreTrainedModel

_REPOSITORY_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_BUNDLE_ONLY = ("auto_map", "ecgdan_code_revision")
_PREPROCESSOR = "preprocessor_config.json"
_LARGEST_NUMBER = 1_000_000
_LETTERS = 500  # of another library's message
"""Above any size in a configuration of this package, the vocabulary of its language model among them."""
_MAY_BE_ABSENT = ("baseline.standard_error",)
"""Weights that older survival checkpoints lack; their risks have no limits."""


def load_checkpoint(path_or_repo: str | Path) -> tuple[EcgDanPreTrainedModel, EcgDanFeatureExtractor]:
    """Loads a model in evaluation mode, and its feature extractor.

    Args:
        path_or_repo: checkpoint folder, or `USER/NAME` or `USER/NAME@REVISION` (commit, tag or branch) on the Hub.

    Returns:
        The model, of the class its configuration names, and its feature extractor, which is built from the
        configuration if none was saved.

    Raises:
        FileNotFoundError: no such folder, and no readable repository or revision of that name.
        ValueError: no configuration, a model of another package, missing, unexpected or non-finite weights, or a
            feature extractor that contradicts the configuration.
    """
    source = str(path_or_repo)
    name, revision = repository_and_revision(source)
    config = load_config(source)
    try:
        head = head_of(config)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    _refuse_pickle(Path(name), source)
    options: dict[str, Any] = {"config": config, "revision": revision, "use_safetensors": True}
    with quietly(), reading_weights(source):  # whose errors replace the table of transformers
        # the annotated return type ignores output_loading_info
        loaded: Any = head.model_class.from_pretrained(name, **options, output_loading_info=True)
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = sorted(str(key) for key in info.get(kind, ()) if str(key) not in _MAY_BE_ABSENT)
        if found:
            raise ValueError(
                f"{source}: {len(found)} weights are {kind.removesuffix('_keys')}, for example {found[0]}"
            )
    check_finite(model, source)
    model.train(False)
    return model, _load_feature_extractor(source, config)


def place(model: EcgDanPreTrainedModel, device: str = "auto") -> EcgDanPreTrainedModel:
    """Moves a model to a device, such as `cpu` or `cuda:1`; "auto" is the GPU, if there is one.

    Raises:
        ValueError: no such device here.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        model.to(torch.device(device if device != "auto" else found or "cpu"))  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:
        here = f"cpu or {found.type}" if found else "cpu"
        raise ValueError(f"device: expected auto, {here}, got {device!r}") from error
    return model


def check_finite(model: Any, source: str) -> None:
    """Rejects weights that are not finite: every prediction of such a model would be missing or wrong."""
    weights = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    odd = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if odd:
        raise ValueError(
            f"{source}: expected finite weights, found NaN or infinity in {len(odd)} of {len(weights)}, for example "
            f"{odd[0]}; the file is damaged, or training diverged"
        )


def load_config(path_or_repo: str | Path) -> Config:
    """Loads the configuration of a checkpoint of this package.

    Raises:
        FileNotFoundError: no such folder, and no readable repository or revision of that name.
        ValueError: no configuration there, or one of another package.
    """
    source = str(path_or_repo)
    name, revision = repository_and_revision(source)
    folder = Path(name)
    if folder.is_file():
        raise ValueError(f"{source}: expected a checkpoint folder, found a file")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"{source}: expected a checkpoint folder with config.json, found none")
    if not folder.is_dir():
        _check_repository(name, revision, source)
    try:
        check_sizes(PreTrainedConfig.get_config_dict(name, revision=revision)[0], "config.json")
        config = AutoConfig.from_pretrained(name, revision=revision)
    except OSError as error:
        if folder.is_dir():
            raise ValueError(f"{source}: config.json cannot be read: {_one_line(error)}") from error
        raise FileNotFoundError(
            f"{source}: no such checkpoint folder or Hub repository ({_why_not(error)})"
        ) from error
    except Exception as error:  # what a field of the wrong type leads to
        raise ValueError(f"{source}: not a checkpoint of this package: {_one_line(error)}") from error
    _forget_bundle(config)
    if not isinstance(config, Config):
        expected = dict.fromkeys(head.config_class.model_type for head in HEADS.values())
        raise ValueError(f"{source}: model_type: expected one of {', '.join(expected)}, got {config.model_type!r}")
    return config


def repository_and_revision(path_or_repo: str | Path) -> tuple[str, str]:
    """Splits `USER/NAME@REVISION` into repository and branch, tag or commit; the default is `main`.

    Raises:
        ValueError: an empty revision, or one of a folder.
    """
    source = str(path_or_repo)
    name, at, revision = source.rpartition("@")
    if not at or Path(source).exists():
        return source, "main"
    if not revision or Path(name).is_dir():
        raise ValueError(f"{source}: expected a folder, or USER/NAME@REVISION on the Hub")
    return name, revision


@contextmanager
def quietly() -> Iterator[None]:
    """Silences the progress bars and tables of transformers."""
    messages: Any = logging  # its functions are untyped
    level, bar = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bar:
            messages.enable_progress_bar()


def _check_repository(name: str, revision: str, source: str) -> None:
    """Fails at once where the name is in no cache and the Hub cannot be reached; transformers would retry.

    Raises:
        FileNotFoundError: no name of a repository, or no Hub to ask; the message suggests folders of similar names.
    """
    near = ", ".join(map(str, _similar_folders(Path(name))))
    hint = f"; did you mean {near}?" if near else ""
    if not _REPOSITORY_NAME.fullmatch(name):
        raise FileNotFoundError(f"{source}: no such checkpoint folder{hint}")
    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        return
    try:
        url = hf_hub_url(name, "config.json", revision=revision)
        get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HfHubHTTPError:
        pass  # the loading that follows says why
    except Exception as error:  # its class belongs to the HTTP library, which depends on the version of the client
        why = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else f"no connection: {error}"
        raise FileNotFoundError(
            f"{source}: no such checkpoint folder, not in the Hub cache, and the Hub was not asked ({why}){hint}"
        ) from error


def _similar_folders(path: Path) -> list[Path]:
    """Existing folders that a mistyped path may mean: the last part may be mistyped, or the part before it."""
    parents = [path.parent] if path.parent.is_dir() else _similar_folders(path.parent) if path.parent.name else []
    if path.parent not in parents:
        return [parent / path.name for parent in parents if (parent / path.name).is_dir()]
    names = [each.name for each in path.parent.iterdir() if each.is_dir()]
    return [path.parent / name for name in get_close_matches(path.name, names)]


def _refuse_pickle(folder: Path, source: str) -> None:
    if (folder / "pytorch_model.bin").is_file() and not list(folder.glob("model*.safetensors*")):
        raise ValueError(
            f"{source}: expected model.safetensors, found pytorch_model.bin, a pickle, which may run code; where you "
            "trust it, load it with from_pretrained and save it again"
        )


def _forget_bundle(saved: Any) -> None:
    """Drops references to a bundle's code: a copy saved from here does not carry that code."""
    for name in _BUNDLE_ONLY:
        vars(saved).pop(name, None)


def _load_feature_extractor(source: str, config: Config) -> EcgDanFeatureExtractor:
    name, revision = repository_and_revision(source)
    try:
        check_sizes(EcgDanFeatureExtractor.get_feature_extractor_dict(name, revision=revision)[0], _PREPROCESSOR)
        extractor = EcgDanFeatureExtractor.from_pretrained(name, revision=revision)
    except OSError as error:
        if (Path(name) / _PREPROCESSOR).is_file():
            raise ValueError(f"{source}: {_PREPROCESSOR} cannot be read: {_one_line(error)}") from error
        return EcgDanFeatureExtractor(**config.signal_contract)
    except Exception as error:  # what a field of the wrong type leads to
        raise ValueError(f"{source}: {_PREPROCESSOR}: {_one_line(error)}") from error
    _forget_bundle(extractor)
    for field, expected in config.signal_contract.items():
        found = getattr(extractor, field)
        if _plain(found) != _plain(expected):
            raise ValueError(f"{source}: {_PREPROCESSOR}: {field}: expected the model's {expected}, got {found}")
    return extractor


@contextmanager
def reading_weights(source: str) -> Iterator[None]:
    """Turns what a damaged or foreign file of weights makes other libraries raise into a ValueError of one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{source}: the weights cannot be read: {_one_line(error)}") from error
    except Exception as error:
        raise ValueError(f"{source}: the weights do not fit the configuration: {_one_line(error)}") from error


def check_sizes(content: Any, where: str) -> None:
    """Rejects absurd numbers in a configuration before something of that size is built."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            check_sizes(value, f"{where}: {name}")
    elif isinstance(content, list):
        for value in content:
            check_sizes(value, where)
    elif isinstance(content, int | float) and not abs(content) <= _LARGEST_NUMBER:
        raise ValueError(f"{where}: expected a number within {_LARGEST_NUMBER:,}, found {content:g}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _why_not(error: OSError) -> str:
    """Explains why a repository cannot be read, and what to do."""
    why = error.__cause__
    if isinstance(why, GatedRepoError):
        return "it is gated: ask for access on its page, then log in with 'hf auth login' or set HF_TOKEN"
    if isinstance(why, RevisionNotFoundError):
        return "it has no such branch, tag or commit"
    if isinstance(why, RepositoryNotFoundError):
        return "there is none, or it is private: log in with 'hf auth login' or set HF_TOKEN"
    if isinstance(why, HfHubHTTPError) and why.server_message:
        return " ".join(why.server_message.split())
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    """First line of an error message of another library, or two where the first only names a field."""
    lines = [" ".join(line.split()) for line in str(error.args[0] if error.args else error).split("\n")]
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return (first if len(first) <= _LETTERS else f"{first[:_LETTERS]} ...") or type(error).__name__
