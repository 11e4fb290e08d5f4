"""How a figure is written."""

__all__ = ["amount"]


def amount(value: float, unit: str) -> str:
    """Return a figure with its unit, as a table shows it."""
    return f"{value:.3f}" if unit == "share" else f"{value:,.1f} {unit}".rstrip()
