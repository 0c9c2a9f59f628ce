"""Cost of a run: measured time, and an estimate of energy and carbon with its assumptions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WORLD_GCO2_PER_KWH = 475.0
"""Mean carbon intensity of the world's electricity (IEA, Global Energy and CO2 Status Report 2019, year 2018)."""

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Emissions:
    """An estimate: energy = power x time, carbon = energy x intensity.

    Attributes:
        seconds: time of the run, measured.
        power_watts: assumed power of the hardware the run kept busy, all processes together.
        grid_gco2_per_kwh: assumed carbon intensity of its electricity.
    """

    seconds: float
    power_watts: float
    grid_gco2_per_kwh: float = WORLD_GCO2_PER_KWH

    @property
    def kwh(self) -> float:
        """Energy in kilowatt hours.

        >>> Emissions(seconds=3600, power_watts=100).kwh
        0.1
        """
        return self.power_watts * self.seconds / JOULES_PER_KWH

    @property
    def grams(self) -> float:
        """Carbon dioxide equivalent in grams.

        >>> Emissions(seconds=3600, power_watts=100, grid_gco2_per_kwh=475).grams
        47.5
        """
        return self.kwh * self.grid_gco2_per_kwh

    @property
    def assumptions(self) -> str:
        """The formula with its numbers."""
        return (
            f"{self.power_watts:g} W x {self.seconds:.0f} s = {self.kwh:.2g} kWh; "
            f"x {self.grid_gco2_per_kwh:g} gCO2eq/kWh = {self.grams:.2g} g"
        )


def emissions_of(
    metrics: Mapping[str, Any] | None, power_watts: float | None, grid_gco2_per_kwh: float = WORLD_GCO2_PER_KWH
) -> Emissions | None:
    """The estimate for a run; None where its time was not recorded or no power is assumed.

    Raises:
        ValueError: a power or an intensity that is not positive.
    """
    if power_watts is None:
        return None
    if power_watts <= 0 or grid_gco2_per_kwh <= 0:
        raise ValueError(f"power_watts, grid: expected positive numbers, got {power_watts} and {grid_gco2_per_kwh}")
    seconds = (metrics or {}).get("seconds")
    return Emissions(float(seconds), power_watts, grid_gco2_per_kwh) if seconds else None


def time_text(metrics: Mapping[str, Any] | None) -> str:
    """Time and hardware of a run in words; empty where the time was not recorded."""
    seconds, found = (metrics or {}).get("seconds"), (metrics or {}).get("hardware")
    if not seconds:
        return ""
    text = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
    if not isinstance(found, Mapping):
        return f"{text}; the hardware was not recorded"
    processes, threads = found.get("processes", 1), found.get("threads", 1)
    return f"{text} on {found.get('device', 'unknown hardware')}, {processes} process(es) of {threads} thread(s)"
