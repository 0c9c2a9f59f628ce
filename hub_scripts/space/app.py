"""A page to try the released checkpoints: upload an ECG file, see it explained. Research use only.

python hub_scripts/space/app.py

Checkpoints are folders or names on the Hub, from ECGDAN_LABELS_MODEL, ECGDAN_STATEMENTS_MODEL and ECGDAN_RISK_MODEL;
by default those of `model_cards/`, or of the owner that `hub_scripts/push_space.py` fills in here.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, which would ask for its newest version

import gradio as gr
from page import (
    ABOUT,
    INTRODUCTION,
    ON_LOAD,
    PRIVACY,
    STYLE,
    TO_RESULT,
    banner_html,
    downloads_html,
    error_html,
    result_html,
)
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uploads import SYNTHETIC, can_be_mended, discard, read_upload, synthetic_ecg

from ecgdan_hf.data.record import EcgRecord
from ecgdan_hf.explain.page.ecg_report import EcgReport, Networks

DEFAULTS = {
    "ECGDAN_LABELS_MODEL": "OWNER/ecg-dan-rhythm-superclasses",
    "ECGDAN_STATEMENTS_MODEL": "OWNER/ecg-dan-rhythm",
    "ECGDAN_RISK_MODEL": "OWNER/ecg-dan-rhythm-survival-simulated",
}
MODEL_CARDS = Path(__file__).parents[2] / "model_cards"
DELETE_EVERY, DELETE_AFTER = 60, 600  # seconds
MAX_FILE_SIZE, MAX_UPLOAD_BYTES = "25mb", 50 << 20  # of a file, of all files of a request
MAPS = {"of the labels": "labels", "of the risk": "risk"}
UNITS = {"from the file": None, "mV": "mV", "uV": "uV", "V": "V"}
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'"
)

Pieces = Iterator[tuple[object, ...]]


class OnlyThisHost:
    """Makes the browser contact no server but this one, whatever the libraries of the page try to fetch."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self.app(scope, receive, with_policy)


class LimitedUploads:
    """Ends a request that is larger than `limit` bytes, whatever length it claims, before it fills the disk."""

    def __init__(self, app: ASGIApp, limit: int = MAX_UPLOAD_BYTES) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= self.limit else {"type": "http.disconnect"}

        await self.app(scope, counted, send)


def networks_of_environment() -> Networks:
    """Loads the checkpoints that the environment names, else those of the repository, else those on the Hub.

    Raises:
        FileNotFoundError, ValueError: a checkpoint is missing, or is of another kind.
    """
    return Networks.load(*(os.environ.get(variable) or _default(name) for variable, name in DEFAULTS.items()))


def _default(name: str) -> str:
    folder = MODEL_CARDS / name.split("/")[1]
    return str(folder) if folder.is_dir() else name


def analyse(record: EcgRecord, networks: Networks, maps: str) -> Iterator[tuple[str, str, str]]:
    """Yields status, result and downloads; the result first, because the downloads take as long again."""
    yield "Analysing…", "", ""
    found = EcgReport.of(record, networks, MAPS[maps])
    shown = result_html(found)
    yield "Analysed. The result follows.", shown, ""
    yield "Analysed. The result and its downloads follow.", shown, downloads_html(found)


def analyse_upload(
    files: Sequence[str] | None, maps: str, rate: float | None, unit: str, leads: str, networks: Networks
) -> Pieces:
    """Yields status, result, downloads, the files that stay selected, and whether the options open.

    Files are deleted, with one exception: a rejected ECG that may only need an option stays for ten minutes.
    """
    files = files or []
    try:
        record = read_upload(files, rate or None, UNITS[unit], leads)
        for pieces in analyse(record, networks, maps):
            discard(files)
            yield (*pieces, None, gr.skip())
    except Exception as error:
        mendable = bool(files) and isinstance(error, ValueError | OSError) and can_be_mended(files)
        if not mendable:
            discard(files)
        yield error_html(_said(error)), "", "", gr.skip() if mendable else None, gr.Accordion(open=mendable)


def analyse_synthetic(choice: str, maps: str, networks: Networks) -> Pieces:
    """Yields status, result and downloads."""
    yield from analyse(synthetic_ecg(choice), networks, maps)


def _said(error: Exception) -> str:
    """Returns the error as one line; of an unexpected error only its type, because its text may contain anything."""
    if isinstance(error, ValueError | OSError):
        return " ".join(str(error).split())
    return f"This file could not be analysed ({type(error).__name__}); please report its format."


def build(networks: Networks) -> gr.Blocks:
    """Builds the page."""
    with gr.Blocks(
        title="One ECG, explained", analytics_enabled=False, delete_cache=(DELETE_EVERY, DELETE_AFTER)
    ) as page:
        gr.HTML(banner_html(networks.risk[0].config.simulated_outcome), elem_id="banner")
        gr.HTML(INTRODUCTION, elem_id="introduction")
        with gr.Row():
            with gr.Column():
                gr.HTML("<h2>Your ECG</h2>")
                files = gr.File(
                    label="ECG file, or the .hea and .dat of a WFDB record",
                    file_count="multiple",
                    height=170,
                    elem_id="upload",
                )
                upload = gr.Button("Analyse my file", variant="primary", elem_id="analyse-file")
                with gr.Accordion("My file lacks its sampling rate, unit or lead names", open=False) as options:
                    rate = gr.Number(None, label="Sampling rate, Hz (0: that of the file)", elem_id="rate")
                    unit = gr.Radio(list(UNITS), value="from the file", label="Unit", elem_id="unit")
                    leads = gr.Textbox("", label="Lead names in file order, such as I, II, V1", elem_id="leads")
                gr.HTML(PRIVACY, elem_id="privacy")
            with gr.Column():
                gr.HTML("<h2>Or a synthetic one</h2>")
                choice = gr.Radio(
                    list(SYNTHETIC), value=next(iter(SYNTHETIC)), label="Synthetic ECG", elem_id="choice"
                )
                example = gr.Button("Analyse this synthetic ECG", variant="primary", elem_id="analyse-synthetic")
                with gr.Accordion("What is computed", open=False):
                    gr.HTML(ABOUT, elem_id="about")
                    maps = gr.Radio(
                        list(MAPS), value=next(iter(MAPS)), label="Network whose attention is drawn", elem_id="maps"
                    )
        status = gr.HTML("", elem_id="status")
        downloads = gr.HTML("", elem_id="downloads")
        result = gr.HTML("", elem_id="result-area")
        shown = [status, result, downloads]

        def on_upload(*given: object) -> Pieces:
            yield from analyse_upload(*given, networks=networks)  # type: ignore[arg-type]

        def on_synthetic(*given: object) -> Pieces:
            yield from analyse_synthetic(*given, networks=networks)  # type: ignore[arg-type]

        quietly = {"api_visibility": "private", "show_progress": "hidden"}
        after_upload = upload.click(on_upload, [files, maps, rate, unit, leads], [*shown, files, options], **quietly)
        after_example = example.click(on_synthetic, [choice, maps], shown, **quietly)
        for event in (after_upload, after_example):
            event.then(None, js=TO_RESULT)
    return page


def launch(page: gr.Blocks, **options: object) -> object:
    """Serves the page at the address given by Gradio's environment variables, which Spaces set."""
    fonts = ["system-ui", "sans-serif"]  # system fonts, so that none is fetched
    return page.queue(default_concurrency_limit=2).launch(
        theme=gr.themes.Default(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
        js=ON_LOAD,
        footer_links=[],
        max_file_size=MAX_FILE_SIZE,
        ssr_mode=False,
        share=False,
        app_kwargs={"middleware": [Middleware(OnlyThisHost), Middleware(LimitedUploads)]},
        **options,
    )


if __name__ == "__main__":
    launch(build(networks_of_environment()))
