"""How a figure is written, and what has come of a file that could not be."""

__all__ = ["amount", "trouble_with"]


def amount(value: float, unit: str) -> str:
    """Return a figure with its unit, as a table shows it."""
    return f"{value:.3f}" if unit == "share" else f"{value:,.1f} {unit}".rstrip()


def trouble_with(error: OSError) -> str:
    """Return in one line what could not be read or written, and why."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"cannot use {error.filename}: {error.strerror}"
