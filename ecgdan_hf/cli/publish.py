"""Verbs that publish a checkpoint: `ecgdan bundle`, `ecgdan push`, `ecgdan export`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ecgdan_hf.cli.output import say
from ecgdan_hf.files import check_output_file


def _bundle(
    checkpoint_dir: Annotated[Path, typer.Argument(help="checkpoint folder")],
    out_dir: Annotated[Path, typer.Argument(help="new folder, or an earlier bundle")],
    name: Annotated[str | None, typer.Option(help="title of the model card; default: the folder's name")] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="folder of a further evaluation, for the card; repeatable")
    ] = None,
    dataset_id: Annotated[
        str | None, typer.Option(help="OWNER/NAME of the data on the Hub, for the card's metadata")
    ] = None,
    power_watts: Annotated[
        float | None, typer.Option(help="mean power of the training hardware, to estimate energy and carbon")
    ] = None,
    grid_gco2_per_kwh: Annotated[
        float, typer.Option(help="carbon intensity of the electricity; default: world mean of 2018")
    ] = 475.0,
    contact: Annotated[
        str | None, typer.Option(help="contact for the card; default: the repository's Community tab")
    ] = None,
    training_data: Annotated[
        str | None,
        typer.Option(help="one sentence on the training data for the card; not needed for known sources"),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="OWNER/NAME on the Hub of the checkpoint it was fine-tuned from")
    ] = None,
    small_cells: Annotated[
        int, typer.Option(help="leave out groups with fewer records, patients or events, such as 5; 0: none")
    ] = 0,
) -> None:
    """Make a Hub-ready folder of weights, code and card; it loads without this package.

    \b
    Example:
      ecgdan bundle runs/survival bundles/ecg-dan-survival --results runs/evaluation --results runs/sanity
    """
    from ecgdan_hf.publish.bundle import make_bundle
    from ecgdan_hf.publish.card.checks import missing_parts

    said: dict[str, Any] = {"power_watts": power_watts, "grid_gco2_per_kwh": grid_gco2_per_kwh}
    said |= {"contact": contact, "training_data": training_data, "base_model": base_model}
    said |= {"small_cells": small_cells}
    out = make_bundle(checkpoint_dir, out_dir, name, dataset_id, results or (), **said)
    say(f"{out}: loads in a clean process with the same outputs")
    for part in missing_parts((out / "README.md").read_text(encoding="utf-8")):
        say(f"{out / 'README.md'}: before publishing, add {part}")


def _push(
    bundle_dir: Annotated[Path, typer.Argument(help="folder made by `ecgdan bundle`")],
    repository: Annotated[str, typer.Argument(help="USER/NAME")],
    private: Annotated[bool, typer.Option(help="create the repository as private")] = False,
    revision: Annotated[str | None, typer.Option(help="branch to upload to, created if needed; default: main")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="open a pull request instead")] = False,
    message: Annotated[str, typer.Option(help="commit message")] = "Upload model",
    identifiers: Annotated[
        Path | None, typer.Option(help="CSV or text file of names and ids that must not be in it")
    ] = None,
) -> None:
    """Check that a bundle loads, then upload it to the Hub.

    Prints USER/NAME@COMMIT, which pins this version: every --checkpoint accepts it.

    \b
    Example:
      ecgdan push bundles/ecg-dan-survival USER/ecg-dan-survival --private
    """
    from ecgdan_hf.publish.identifiers import read_known
    from ecgdan_hf.publish.push import push_bundle

    known = [] if identifiers is None else read_known(identifiers)
    commit = push_bundle(bundle_dir, repository, private, message, revision, create_pr, known)
    say(f"{commit.pr_url or commit.repo_url}: {repository}@{commit.oid}")


def _export(
    checkpoint: Annotated[str, typer.Argument(help="checkpoint folder or Hub name")],
    out: Annotated[Path, typer.Argument(help="file to write, such as model.onnx")],
    int8: Annotated[
        bool, typer.Option(help="8-bit weights: a third of the size, with slightly different outputs")
    ] = False,
) -> None:
    """Export a checkpoint to ONNX and check that onnxruntime gives the same outputs.

    The input is the output of the feature extractor. Its settings, the labels, the sampling rate and the leads are in
    the metadata of the file.

    \b
    Example:
      ecgdan export model_cards/ecg-dan-rhythm-superclasses superclasses.onnx
    """
    from ecgdan_hf.publish.export import export_onnx

    check_output_file(out, (".onnx",), option="out")
    found = export_onnx(checkpoint, out, int8=int8)
    outputs = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in found.outputs.items())
    say(f"{out}: {found.num_bytes / 1e6:.2f} MB: {outputs}; largest difference {found.largest_difference:.1g}")


VERBS: dict[str, Callable[..., None]] = {"bundle": _bundle, "push": _push, "export": _export}
