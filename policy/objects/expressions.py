"""Whether RE2, which has no look-around and no back-references, can read an expression. Pure."""

import re
import warnings
from functools import lru_cache

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_BEYOND = re.compile(r"\(\?(?:[=!>(#]|<[=!]|P[=>])|(?:[*+?]|\})\+")
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_MAX_REPEAT = 1000
_MAX_LENGTH = 4096


@lru_cache(maxsize=1024)
def problem(text: str) -> str:
    """Why it cannot be compiled; empty if it can."""
    if len(text) > _MAX_LENGTH:
        return f"is longer than {_MAX_LENGTH} characters"
    bare = re.sub(r"\[(?:\\.|[^\]\\])*\]", "x", _ESCAPE.sub(_plain, text))
    if _BEYOND.search(bare):
        return "uses look-around or another construct that RE2 does not have"
    if re.search(r"\\(?:[1-7](?![0-7])|[89])", re.sub(r"\\\\", "", text)):
        return "uses a back-reference, which RE2 does not have"
    for low, high in _REPEAT.findall(text):
        if any(len(n) > 4 or int(n) > _MAX_REPEAT for n in (low, high) if n):
            return f"repeats more than {_MAX_REPEAT} times"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(_in_python(text))
    except (re.error, OverflowError, RecursionError) as error:
        return f"cannot be compiled: {error}"
    return ""


def _plain(match: re.Match[str]) -> str:
    return "x" if not match[1].isdigit() else match[0]


def _in_python(text: str) -> str:
    """What only RE2 knows, as something that Python knows as well."""
    text = re.sub(r"\[:\^?[a-z]+:\]", "a", text)
    text = re.sub(r"\\[pP](?:\{\^?\w+\}|[A-Z])", r"\\w", text)
    text = re.sub(r"\\[zC]", r"\\Z", text)
    text = re.sub(r"\\(?:x\{[0-9A-Fa-f]+\}|[1-7][0-7]+)", "x", text)
    text = re.sub(r"\(\?[imsU]*(?:-[imsU]+)?\)", "", text)
    text = re.sub(r"\(\?[imsU]*(?:-[imsU]+)?:", "(?:", text)
    text = re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", text)
    return re.sub(r"\\Q.*?(?:\\E|$)", "x", text, flags=re.DOTALL)
