"""What usage costs: the ``prices`` block of ``adapterctl.yaml``, and usage times price."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import Field

from adapterctl.accounting.usage import Usage
from adapterctl.settings import Settings

_HOUR = 3600.0
_JOULES_PER_KWH = 3.6e6


class EnergyPrices(Settings):
    """Electricity, for machines that are owned. It is computed from seconds and watts, not measured at the socket."""

    kwh: float = Field(0.0, ge=0, description="Price of one kilowatt-hour; 0 leaves electricity out.")
    watts_per_core: float = Field(10.0, ge=0, description="Power of one busy CPU core.")
    watts_per_device: float = Field(700.0, ge=0, description="Power of one accelerator in use.")


class PriceSheet(Settings):
    """Prices of what steps use. The numbers shipped are examples: put your own contract's in."""

    currency: str = Field("USD", min_length=1, max_length=8, description="Shown beside every amount.")
    cpu_core_hour: float = Field(0.04, ge=0, description="One CPU core, busy for one hour.")
    machine_hour: float = Field(
        0.0, ge=0, description="The whole machine for one hour of wall time, where it is rented whole."
    )
    device_hour: float | dict[str, float] = Field(
        default_factory=lambda: {"default": 2.5},
        description="One accelerator for one hour; or prices by a part of its name (`H100: 3.2`) with a `default`.",
    )
    energy: EnergyPrices = Field(default_factory=EnergyPrices, description="Electricity, for machines that are owned.")

    def device_price(self, device: str) -> float:
        """Return the hourly price of an accelerator: the longest key that its name contains wins."""
        if not isinstance(self.device_hour, dict):
            return self.device_hour
        fitting = [key for key in self.device_hour if key.lower() in device.lower()]
        return self.device_hour[max(fitting, key=len)] if fitting else self.device_hour.get("default", 0.0)


@dataclass(frozen=True)
class Cost:
    """Money.

    Attributes:
        amount: The sum of the parts.
        currency: As in the price sheet.
        breakdown: Amounts by ``machine``, ``cpu``, ``device`` and ``energy``; parts without a price are left out.
    """

    amount: float
    currency: str
    breakdown: dict[str, float] = field(default_factory=dict)


def cost(usage: Usage, sheet: PriceSheet) -> Cost:
    """Return what the usage costs: Σ hours × hourly price, plus watts × seconds × price of energy.

    Usage added up over different kinds of accelerators cannot be told apart again: price entries one by one.
    """
    energy = sheet.energy
    joules = usage.cpu_seconds * energy.watts_per_core + usage.device_seconds * energy.watts_per_device
    parts = {
        "machine": usage.wall_seconds / _HOUR * sheet.machine_hour,
        "cpu": usage.cpu_seconds / _HOUR * sheet.cpu_core_hour,
        "device": usage.device_seconds / _HOUR * sheet.device_price(usage.device),
        "energy": joules / _JOULES_PER_KWH * energy.kwh,
    }
    parts = {name: amount for name, amount in parts.items() if amount}
    return Cost(sum(parts.values()), sheet.currency, parts)
