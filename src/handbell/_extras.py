"""Installation of optional extras."""

from handbell._version import __version__


def install(extra: str) -> str:
    """Return how to install a missing extra, in a clone and with a wheel."""
    return (
        f"Install it in Handbell's folder with: pip install '.[{extra}]'; of a wheel: "
        f"pip install 'handbell-{__version__}-py3-none-any.whl[{extra}]'"
    )
