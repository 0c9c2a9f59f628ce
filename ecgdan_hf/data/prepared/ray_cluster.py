"""Work for all machines of a Ray cluster; needs the extra `ray`.

The cluster is that of `RAY_ADDRESS`, or one that Ray starts on this machine. Every machine must have the package and
see the files under the same paths. What a lost machine was doing is done again by the others.
"""

import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from ecgdan_hf.telemetry import import_silently


def check_ray() -> None:
    """Raises ValueError if Ray is not installed."""
    if find_spec("ray") is None:
        raise ValueError("engine: ray is not installed; pip install ecgdan-hf[ray]")


def in_order_on_ray(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Yields the function's result for each item, in order; function, items and results must be picklable.

    An item may be done twice, where a machine is lost. An exception of the function is raised here.
    """
    if not items:
        return
    check_ray()
    ray: Any = import_silently("ray")
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    rows = ray.data.from_items([pickle.dumps(item) for item in items], override_num_blocks=len(items))
    results = rows.map(partial(_result, pickle.dumps(function)), num_cpus=1)
    for row in results.iter_rows():
        result, error = pickle.loads(row["result"])
        if error is not None:
            raise error
        yield result


def _result(function: bytes, row: Mapping[str, bytes]) -> dict[str, bytes]:
    try:
        return {"result": pickle.dumps((pickle.loads(function)(pickle.loads(row["item"])), None))}
    except Exception as error:  # of any kind: it is raised where the results are read
        return {"result": pickle.dumps((None, error))}
