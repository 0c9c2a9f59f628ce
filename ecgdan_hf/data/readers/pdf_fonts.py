"""Characters of a PDF's strings, from a font's `ToUnicode`, its `Encoding` or Latin-1 (ISO 32000-1, 9.6 and 9.10).

Runs in a child process (see `child`). Only what lead names and scales are written with has to be right.
"""

import re
from collections.abc import Callable
from typing import Any

_BLOCK = re.compile(rb"begin(bfchar|bfrange)(.*?)end\1", re.DOTALL)
_WORD = re.compile(rb"<([0-9A-Fa-f\s]*)>|(\[)|(\])")
_NAMES = {
    **{"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"},
    **{"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"},
    **{"space": " ", "slash": "/", "period": ".", "comma": ",", "colon": ":", "hyphen": "-", "minus": "-"},
    **{"parenleft": "(", "parenright": ")", "plus": "+", "percent": "%", "equal": "=", "underscore": "_"},
}
_DEFAULT_WIDTH = 0.5  # of the size, where a font does not say


class Font:
    """How the strings of a font read and how wide they are."""

    def __init__(self, font: Any, inflate: Callable[[Any], bytes]) -> None:
        font = font if font is not None else {}
        self.wide = str(font.get("/Subtype")) == "/Type0"
        unicode = _resolved(font.get("/ToUnicode"))
        self.known = _unicode_map(inflate(unicode)) if hasattr(unicode, "_data") else {}
        self.differences = {} if self.wide else _differences(_resolved(font.get("/Encoding")))
        self.first = int(_resolved(font.get("/FirstChar")) or 0)
        self.widths = [_number(each) for each in _resolved(font.get("/Widths")) or ()]
        matrix = _resolved(font.get("/FontMatrix"))
        self.scale = abs(_number(matrix[0])) if matrix is not None else 0.001

    def read(self, string: bytes) -> tuple[str, float, int]:
        """The text of a string, its width by size 1, and the number of its characters."""
        step = 2 if self.wide else 1
        codes = [int.from_bytes(string[at : at + step], "big") for at in range(0, len(string), step)]
        return "".join(map(self._character, codes)), sum(map(self._width, codes)), len(codes)

    def _character(self, code: int) -> str:
        known = self.known.get(code) or self.differences.get(code)
        return known if known is not None else ("\ufffd" if self.wide else chr(code))

    def _width(self, code: int) -> float:
        at = code - self.first
        return self.widths[at] * self.scale if 0 <= at < len(self.widths) else _DEFAULT_WIDTH


def _resolved(value: Any) -> Any:
    return value.get_object() if hasattr(value, "get_object") else value


def _number(value: Any) -> float:
    return float(_resolved(value))


def _differences(encoding: Any) -> dict[int, str]:
    """Character by code, of an encoding that lists names of glyphs."""
    listed = _resolved(encoding.get("/Differences")) if hasattr(encoding, "get") else None
    found, code = dict[int, str](), 0
    for each in map(_resolved, listed or ()):
        if not isinstance(each, str):
            code = int(each)
            continue
        name = each.lstrip("/")
        found[code] = name if len(name) == 1 else _NAMES.get(name, _by_number(name))
        code += 1
    return found


def _by_number(name: str) -> str:
    match = re.fullmatch(r"uni([0-9A-F]{4})|u([0-9A-F]{4,6})", name)
    return chr(int(match.group(1) or match.group(2), 16)) if match else "\ufffd"


def _unicode_map(content: bytes) -> dict[int, str]:
    """Character by code, of a CMap."""
    found: dict[int, str] = {}
    for kind, block in _BLOCK.findall(content):
        words = [mark or open_ or close for mark, open_, close in _WORD.findall(block)]
        found |= _single(words) if kind == b"bfchar" else _ranges(words)
    return found


def _single(words: list[bytes]) -> dict[int, str]:
    return {_code(source): _text(target) for source, target in zip(words[::2], words[1::2], strict=False)}


def _ranges(words: list[bytes]) -> dict[int, str]:
    found, at = dict[int, str](), 0
    while at + 2 < len(words):
        first, last = _code(words[at]), _code(words[at + 1])
        if words[at + 2] == b"[":
            end = words.index(b"]", at)
            found |= {first + step: _text(word) for step, word in enumerate(words[at + 3 : end])}
            at = end + 1
            continue
        start = _text(words[at + 2])
        span = range(min(last - first + 1, 65536))
        found |= {first + step: start[:-1] + chr(ord(start[-1]) + step) for step in span if start}
        at += 3
    return found


def _code(word: bytes) -> int:
    return int(re.sub(rb"\s", b"", word) or b"0", 16)


def _text(word: bytes) -> str:
    digits = re.sub(rb"\s", b"", word).decode("ascii")
    return bytes.fromhex(digits + "0" * (len(digits) % 2)).decode("utf-16-be", "replace")
