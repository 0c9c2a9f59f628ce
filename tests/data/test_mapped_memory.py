import sys

import numpy as np
import pyarrow as pa
import pytest

from ecgdan_hf.data.mapped_memory import release_mapped_pages, shared_bytes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")


def test_pages_of_mapped_arrow_files_are_given_back_and_read_the_same_again(tmp_path):
    path = tmp_path / "rows.arrow"
    table = pa.table({"x": np.arange(8_000_000, dtype=np.float64)})  # 64 MB
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    mapped = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()["x"]
    before = shared_bytes()
    total = pa.compute.sum(mapped).as_py()
    held = shared_bytes() - before
    assert held > 50e6
    assert release_mapped_pages(limit_bytes=1 << 50) == 0
    assert release_mapped_pages(limit_bytes=0) >= 1
    assert shared_bytes() - before < held / 2
    assert pa.compute.sum(mapped).as_py() == total
