"""Rows for the files of an archive, made on all machines of a Ray cluster."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from ecgdan_hf.data.prepared.ray_cluster import in_order_on_ray
from ecgdan_hf.data.prepared.record_file import Recording
from ecgdan_hf.data.prepared.shards import is_ray
from ecgdan_hf.inference.archive import RowMaker, RowMakerAround, default_workers

FILES_AT_ONCE = 32
"""A machine is handed so many files at a time; a lost machine loses what it has of them."""


class OnRay(RowMakerAround):
    """A maker of rows whose files are shared by the machines of a cluster; for [`rows_to_file`].

    The rows come back in the order of the files, so that they are written and resumed as those of one machine.

    Args:
        maker: a [`Predictor`], `LitePredictor` or `Measurer`, on the CPU and without processes of its own.
    """

    def batches(self, files: Sequence[Recording]) -> Iterator[list[dict[str, Any]]]:
        """The rows, a batch at a time, in the order of the files."""
        parts = [files[first : first + FILES_AT_ONCE] for first in range(0, len(files), FILES_AT_ONCE)]
        yield from in_order_on_ray(partial(_rows, self.maker), parts)


def _rows(maker: RowMaker, files: Sequence[Recording]) -> list[dict[str, Any]]:
    return [row for batch in maker.batches(files) for row in batch]


def on_engine(engine: str, maker: RowMaker) -> RowMaker:
    """The maker itself on "local", or one that shares its files in the cluster on "ray"."""
    return OnRay(maker) if is_ray(engine) else maker


def workers_on(engine: str, num_workers: int | None, num_files: int) -> int:
    """Processes of a maker; none on Ray, which has its own.

    Raises:
        ValueError: an unknown engine, Ray that is not installed, or processes beside those of Ray.
    """
    if not is_ray(engine):
        return default_workers(num_files) if num_workers is None else num_workers
    if num_workers:
        raise ValueError(
            f"num_workers: expected none with engine ray, which starts its own processes; got {num_workers}"
        )
    return 0


def device_on(engine: str, device: str) -> str:
    """The device of the network: the CPU on Ray, whose machines may have others.

    Raises:
        ValueError: another device with Ray.
    """
    if not is_ray(engine):
        return device
    if device not in ("auto", "cpu"):
        raise ValueError(f"device: expected auto or cpu with engine ray, got {device!r}")
    return "cpu"
