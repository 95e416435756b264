"""How what Handbell needs for some of its jobs is installed."""

from handbell._version import __version__


def install(extra: str) -> str:
    """Return what to do where an extra is missing, in a clone and with a wheel."""
    return (
        f"Install it in Handbell's folder with: pip install '.[{extra}]'; of a wheel: "
        f"pip install 'handbell-{__version__}-py3-none-any.whl[{extra}]'"
    )
