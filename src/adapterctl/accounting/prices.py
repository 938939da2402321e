"""What usage costs: the ``prices`` block of ``adapterctl.yaml``, or a sheet in a file of its own; usage times price."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from adapterctl.accounting.energy import Processors
from adapterctl.accounting.usage import Usage
from adapterctl.settings import Settings

_HOUR = 3600.0
_JOULES_PER_KWH = 3.6e6

Billing = Literal["busy", "reserved"]
_Price = Annotated[float, Field(ge=0)]


class EnergyPrices(Settings):
    """Electricity and its CO2. What no meter read is computed from seconds and watts, and marked so."""

    kwh: float = Field(
        0.0, ge=0, description="Price of one kilowatt-hour, for machines that are owned; 0 leaves electricity out."
    )
    co2_per_kwh: float = Field(0.4, ge=0, description="Kilograms of CO2 that one kilowatt-hour stands for.")
    watts_per_core: float = Field(10.0, ge=0, description="Power of one busy CPU core.")
    watts_per_device: float = Field(
        700.0, ge=0, description="Power of one accelerator in use, where no meter reads it."
    )
    processors: Processors = Field(
        "watts",
        description="Who tells the energy of processors: watts (times seconds of cores) or codecarbon (an extra).",
    )


class PriceSheet(Settings):
    """Prices of what steps use. The numbers shipped are examples: put your own contract's in."""

    as_of: datetime.date | None = Field(
        None, description="The day on which these prices held; shown beside every amount."
    )
    currency: str = Field("USD", min_length=1, max_length=8, description="Shown beside every amount.")
    cpu_core_hour: float = Field(0.04, ge=0, description="One CPU core, busy for one hour.")
    machine_hour: float = Field(
        0.0, ge=0, description="The whole machine for one hour of wall time, where it is rented whole."
    )
    device_hour: _Price | dict[str, _Price] = Field(
        default_factory=lambda: {"default": 2.5},
        description="One accelerator for one hour; or prices by a part of its name (`H100: 3.2`) with a `default`.",
    )
    spot_factor: float = Field(
        1.0,
        gt=0,
        le=1,
        description="What spot machines cost as a share of the hourly prices above; not of electricity.",
    )
    billing: Billing = Field(
        "busy", description="busy: hours that were worked are paid; reserved: all workers for the whole wall time."
    )
    workers: int = Field(1, ge=1, le=10_000, description="Machines that train at the same time.")
    energy: EnergyPrices = Field(default_factory=EnergyPrices, description="Electricity and its CO2.")

    @field_validator("as_of", mode="before")
    @classmethod
    def _a_day(cls, value: Any) -> Any:
        """Refuse what pydantic would take for a date too: seconds since 1970."""
        if value is None or isinstance(value, datetime.date):
            return value
        try:
            return datetime.date.fromisoformat(value)
        except (TypeError, ValueError):
            raise ValueError(f"must be a day such as 2026-11-20, not {value!r}") from None

    def device_price(self, device: str) -> float:
        """Return the hourly price of an accelerator: the longest key that its name contains wins."""
        if not isinstance(self.device_hour, dict):
            return self.device_hour
        fitting = [key for key in self.device_hour if key.lower() in device.lower()]
        return self.device_hour[max(fitting, key=len)] if fitting else self.device_hour.get("default", 0.0)


@dataclass(frozen=True)
class Cost:
    """Money, and the energy and CO2 that were paid for.

    Attributes:
        amount: The sum of the parts.
        currency: As in the price sheet.
        breakdown: Amounts by ``machine``, ``cpu``, ``device`` and ``energy``; parts without a price are left out.
        kwh: Energy.
        measured_kwh: The part of it that hardware counters read; the rest was computed.
        co2_kg: Kilograms of CO2.
    """

    amount: float
    currency: str
    breakdown: Mapping[str, float] = field(default_factory=dict)
    kwh: float = 0.0
    measured_kwh: float = 0.0
    co2_kg: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the cost as plain values."""
        return {
            "amount": self.amount,
            "currency": self.currency,
            "breakdown": dict(self.breakdown),
            "kwh": self.kwh,
            "measured_kwh": self.measured_kwh,
            "co2_kg": self.co2_kg,
        }


def energy_joules(usage: Usage, prices: EnergyPrices) -> float:
    """Return the energy of the usage: what was told, plus watts × seconds of what nothing told."""
    cores = max(0.0, usage.cpu_seconds - usage.energy_cpu_seconds)
    devices = max(0.0, usage.device_seconds - usage.energy_device_seconds)
    return usage.energy_joules + cores * prices.watts_per_core + devices * prices.watts_per_device


def cost(usage: Usage, sheet: PriceSheet) -> Cost:
    """Return what the usage costs: spot factor × Σ hours × hourly price, plus kilowatt-hours × their price.

    Only what was used is paid here; the idle hours of reserved machines belong to a whole scenario (``scenarios``).
    """
    energy = sheet.energy
    kwh = energy_joules(usage, energy) / _JOULES_PER_KWH
    devices = sum(seconds / _HOUR * sheet.device_price(kind) for kind, seconds in usage.devices.items())
    parts = {
        "machine": sheet.spot_factor * usage.wall_seconds / _HOUR * sheet.machine_hour,
        "cpu": sheet.spot_factor * usage.cpu_seconds / _HOUR * sheet.cpu_core_hour,
        "device": sheet.spot_factor * devices,
        "energy": kwh * energy.kwh,
    }
    parts = {name: amount for name, amount in parts.items() if amount}
    return Cost(
        sum(parts.values()),
        sheet.currency,
        parts,
        kwh=kwh,
        measured_kwh=usage.energy_joules / _JOULES_PER_KWH if usage.energy_measured else 0.0,
        co2_kg=kwh * energy.co2_per_kwh,
    )
