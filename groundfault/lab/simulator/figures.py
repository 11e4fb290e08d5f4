"""How a figure is written, and an error."""

__all__ = ["amount", "trouble_with"]


def amount(value: float, unit: str) -> str:
    """Return a figure with its unit, as a table shows it."""
    return f"{value:.3f}" if unit == "share" else f"{value:,.1f} {unit}".rstrip()


def trouble_with(error: Exception) -> str:
    """Return an error in one line; of a file, what could not be read or written, and why."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return str(error)
    return f"cannot use {error.filename}: {error.strerror}"
