"""Give every filter, test and operator of a template every hostile value, within hard limits.

Prints how many expressions were tried. Run by ``test_template_limits.py`` in a process of its own:
the limits are the operating system's.
"""

import resource
import time
from itertools import product
from pathlib import Path

from handbell.creation.expressions import BINARY, TESTS, UNARY
from handbell.creation.filters import FILTERS
from handbell.creation.rendering import TextRefusedError, compiled

_MEBIBYTE = 1 << 20
_SECONDS = 40
_SECONDS_EACH = 5.0

VALUES = {
    "format": "%500000000d",
    "formats": "%9999999s%9999999s",
    "brace": "{:>500000000}",
    "digits": "9" * 20_000,
    "long": "x" * 65_000,
    "marks": "\u0301" * 9_000,
    "family": "\U0001f468\u200d" * 4_000,
    "huge": 10**4200,
    "most": 10**18,
    "infinite": float("inf"),
    "nothing": None,
    "flag": True,
    "float": 1e308,
    "negative": -1,
    "empty": "",
    "many": ["x" * 9] * 20_000,
    "nested": [[["x"]]] * 1000,
    "members": {str(n): n for n in range(1000)},
}
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")


def expressions() -> list[str]:
    """Return one expression for each filter, test and operator with each value in each place."""
    names = list(VALUES)
    texts = [f"{{{{ {a} is {test} }}}}" for a, test in product(names, TESTS)]
    texts += [f"{{{{ {sign}{a} }}}}" for sign, a in product(UNARY, names)]
    texts += [
        f"{{{{ {a} {sign} {b} }}}}"
        for a, sign, b in product(names, (*BINARY, "~", *COMPARISONS), names)
    ]
    texts += [f"{{{{ {a} | {name} }}}}" for a, name in product(names, FILTERS)]
    texts += [
        f"{{{{ {a} | {name}({b}) }}}}"
        for a, name, b in product(names, sorted({*FILTERS} - {"upper", "lower"}), names)
    ]
    # As often as a text may say it: what one costs little a hundred must not make much of.
    costly = ("long", "family", "many")
    texts += [f"{{{{ {a} | {name} }}}}" * 100 for a, name in product(costly, FILTERS)]
    return texts


def main() -> None:
    """Render all of it; what cannot be is refused, and nothing else happens."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 96 * _MEBIBYTE, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    tried = 0
    for text in expressions():
        began = time.process_time()
        try:
            compiled(text).render(VALUES)
        except TextRefusedError as refusal:
            if "nested too deep" in str(refusal):
                raise SystemExit(f"out of memory: {text[:200]}") from None
        tried += 1
        if time.process_time() - began > _SECONDS_EACH:
            raise SystemExit(f"too slow: {text[:200]}")
    print(tried)  # noqa: T201 - this is what it is for


if __name__ == "__main__":
    main()
