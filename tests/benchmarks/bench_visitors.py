"""Visits the running page of `hub_scripts/space` with many uploads at once: does each get its own answer?

    python tests/benchmarks/bench_visitors.py --visits 200 [--shared ../shared/cases]

Starts the page as the Hub does and uploads by HTTP, several visitors at a time: synthetic ECGs, each with a name of
its own, and hostile files (those of `--shared`, and mutated ones). Counted are answers with the visitor's name and no
other, refusals in one line, other endings, uploads that were left on disk, the slowest answer, and the memory of the
page and its processes.
"""

import argparse
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))

from bench_mutations import mutated

from ecgdan_hf.data.simulate.synthetic import make_signal
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS

ROOT = Path(__file__).parents[2]
OPTIONS = ["of the labels", None, "from the file", ""]  # the maps, and what a file may lack
NAME = re.compile(r"visitor-\d+")


def start_page(folder: Path) -> tuple[str, subprocess.Popen]:
    """The page on a free port; its address and process. Uploads lie in `folder/uploads`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"GRADIO_SERVER_PORT": port, "GRADIO_TEMP_DIR": str(folder / "uploads")}
    environment |= {"TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1"}
    (folder / "temporary").mkdir()
    command = [sys.executable, str(ROOT / "hub_scripts" / "space" / "app.py")]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return address, process
        except OSError:
            time.sleep(0.5)
    raise RuntimeError("the page did not start")


def upload(address: str, name: str, content: bytes) -> str:
    """Uploads one file; where the page put it."""
    border = uuid.uuid4().hex
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{border}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
    request = urllib.request.Request(f"{address}/gradio_api/upload", body, kind)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.loads(answer.read())[0]


def analyse(address: str, paths: list[tuple[str, str]]) -> str:
    """Presses the button for files that were uploaded; all that the page shows until it is done."""
    session = uuid.uuid4().hex
    files = [{"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}} for path, name in paths]
    task = {"data": [files, *OPTIONS], "fn_index": 0, "session_hash": session}
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/gradio_api/queue/join", json.dumps(task).encode(), kind)
    urllib.request.urlopen(request, timeout=600).close()
    shown = []
    with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash={session}", timeout=600) as answers:
        for line in answers:
            message = json.loads(line[6:]) if line.startswith(b"data: ") else {}
            shown.append(json.dumps(message.get("output", "")))
            if message.get("msg") in ("process_completed", "close_stream"):
                break
    return "\n".join(shown)


def an_ecg(number: int) -> bytes:
    """A synthetic ECG as CSV."""
    rows = np.round(make_signal(0.0, 95.0, 60.0 + number % 40, seed=number), 4).T
    head = "# sampling_rate: 500\n# unit: mV\n" + ",".join(STANDARD_LEADS) + "\n"
    return (head + "\n".join(",".join(map(str, row)) for row in rows)).encode()


def hostile_files(folder: Path | None) -> list[tuple[str, bytes]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    return [(path.name, path.read_bytes()) for path in found if path.stat().st_size < 20 << 20]


def visit(address: str, number: int, hostile: list[tuple[str, bytes]]) -> tuple[str, float, str]:
    """How one visit ended, its seconds, and what was shown."""
    draw, started, name = random.Random(number), time.monotonic(), f"visitor-{number}.csv"
    kind = draw.choice(("own", "own", "mutated", "hostile")) if hostile else draw.choice(("own", "own", "mutated"))
    content = an_ecg(number)
    if kind == "mutated":
        content = mutated(content, draw)[0]
    elif kind == "hostile":
        other, content = draw.choice(hostile)
        name = f"visitor-{number}-{other}"
    try:
        shown = analyse(address, [(upload(address, name, content), name)])
    except OSError as error:
        return f"{kind}: {type(error).__name__}", time.monotonic() - started, str(error)
    seconds, names = time.monotonic() - started, set(NAME.findall(shown))
    if names - {f"visitor-{number}"}:
        return f"{kind}: ANOTHER VISITOR'S", seconds, str(names)
    if "<article" in shown:
        return f"{kind}: answered", seconds, ""
    refused = "Not analysed" in shown and "Traceback" not in shown
    return f"{kind}: {'refused' if refused else 'OTHER'}", seconds, "" if refused else shown[-500:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--shared", type=Path, help="folder with hostile files")
    asked = parser.parse_args()
    hostile, ends, slowest, most = hostile_files(asked.shared), Counter[str](), 0.0, 0
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        address, page = start_page(folder)
        with ThreadPoolExecutor(asked.at_once) as visitors:
            numbers = range(asked.first, asked.first + asked.visits)
            for ending, seconds, shown in visitors.map(lambda number: visit(address, number, hostile), numbers):
                ends[ending] += 1
                slowest = max(slowest, seconds)
                whole = psutil.Process(page.pid)
                used = [each.memory_info().rss for each in (whole, *whole.children(recursive=True))]
                most = max(most, sum(used))
                if shown:
                    print(ending, shown, flush=True)
        left = [path.name for path in folder.rglob("*") if path.is_file() and "visitor" in path.name]
        page.terminate()
        page.wait()
    print(f"{sum(ends.values())} visits: {dict(ends)}; slowest {slowest:.1f} s; at most {most >> 20} MB in memory")
    print(f"{len(left)} uploads left, which may lack a rate, unit or lead names, until ten minutes have passed")
    sys.exit(any(word in ending for ending in ends for word in ("ANOTHER", "OTHER", "Error")))


if __name__ == "__main__":
    main()
