"""Runs the drawing operators of a PDF: its lines as polylines and its words with their places, in points of the page.

Follows ISO 32000-1:2008: 7.8 (content streams), 8.3-8.5 (coordinates, graphics state, paths, clipping) and 9.4
(text). Runs in a child process (see `child`), so it imports only pypdf, numpy and `pdf_fonts`. Streams are inflated
here, not by pypdf, which goes on with what it can save of a damaged stream: a changed digit would move a sample.
"""

import base64
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pypdf import PdfReader
from pypdf.generic import ArrayObject, DictionaryObject, IndirectObject, StreamObject

from ecgdan_hf.data.readers.pdf_fonts import Font

MAX_PAGES = 20
MAX_STREAM_BYTES = 64 << 20
_MAX_DEPTH = 8  # of drawings within drawings
_BEZIER = [(t, (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3) for t in (0.25, 0.5, 0.75, 1.0)]
_TOKEN = re.compile(
    rb"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+))(?=[\s\[\]()<>/%]|$)|(?P<word>[A-Za-z'\"][\w*'\"]*)"
    rb"|/(?P<name>[^\s()<>\[\]{}/%]*)|(?P<open>\()|<(?P<hex>[0-9A-Fa-f\s]*)>|(?P<mark>\[|\]|<<|>>)"
    rb"|(?P<skip>%[^\r\n]*|$)|(?P<bad>.))",
    re.DOTALL,
)
_ESCAPE = re.compile(rb"\\([nrtbf()\\]|[0-7]{1,3}|\r\n|\n|\r)")
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f", b"(": b"(", b")": b")", b"\\": b"\\"}
_IDENTITY = np.eye(3)


def drawing(path: Path, _: str | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the points of all lines, (points, 2), and `strokes`, `texts`, `images` and `pages`.

    A stroke is a dictionary of `page`, `start`, `stop` (rows of the points), `scale` (points of the page by unit of
    the stroke, along x and y), `filled` and `clip` (x0, y0, x1, y1); a text has `page`, `text`, `x`, `y`, `size`,
    `angle` in degrees, `width` and `mirrored`; an image has `page` and its `area`, a share of the page's.

    Raises:
        ValueError: damaged, encrypted, without pages, or with operators or filters that this module does not know.
    """
    reader = PdfReader(path, strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise ValueError(f"{path}: expected a PDF without a password, got an encrypted one; save it without")
    pages = list(reader.pages[:MAX_PAGES])
    canvas = _Canvas()
    for number, page in enumerate(pages):
        box = [float(each) for each in page.mediabox]
        canvas.start_page(number, box)
        resources = _object(page.get("/Resources")) or DictionaryObject()
        content = b"\n".join(_inflated(stream, path) for stream in _streams(page.get("/Contents")))
        try:
            _Interpreter(canvas, resources, path).run(content)
        except ValueError as error:
            raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    return canvas.points, {"strokes": canvas.strokes, "texts": canvas.texts, "images": canvas.images} | {
        "pages": len(reader.pages)
    }


def _object(value: Any) -> Any:
    return value.get_object() if isinstance(value, IndirectObject) else value


def _streams(contents: Any) -> list[StreamObject]:
    found = _object(contents)
    each = [_object(item) for item in found] if isinstance(found, ArrayObject) else [found]
    return [item for item in each if isinstance(item, StreamObject)]


def _inflated(stream: StreamObject, path: Path) -> bytes:
    """The bytes of a stream; ValueError unless they are whole."""
    filters = _object(stream.get("/Filter"))
    names = [str(_object(name)) for name in (filters if isinstance(filters, ArrayObject) else [filters]) if name]
    content = bytes(stream._data)
    for name in names:
        if name in ("/FlateDecode", "/Fl"):
            content = _inflate(content, path)
        elif name in ("/ASCII85Decode", "/A85"):
            content = _ascii85(content, path)
        elif name in ("/ASCIIHexDecode", "/AHx"):
            content = bytes.fromhex(re.sub(rb"\s|>.*", b"", content, flags=re.DOTALL).decode("ascii"))
        else:
            raise ValueError(f"{path}: expected drawings in Flate, ASCII85 or no code, got {name[1:]}")
    return content


def _inflate(content: bytes, path: Path) -> bytes:
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(content, MAX_STREAM_BYTES)
    except zlib.error as error:
        raise ValueError(f"{path}: damaged PDF: a drawing cannot be inflated ({error})") from error
    if not inflater.eof:
        raise ValueError(f"{path}: damaged PDF: expected a whole drawing below 64 MiB, got {len(found)} bytes, no end")
    return found


def _ascii85(content: bytes, path: Path) -> bytes:
    text = re.sub(rb"\s", b"", content)
    try:
        return base64.a85decode(text if text.startswith(b"<~") else b"<~" + text, adobe=True)
    except ValueError as error:
        raise ValueError(f"{path}: damaged PDF: a drawing is no ASCII85 ({error})") from error


class _Canvas:
    """What was drawn so far, on all pages."""

    def __init__(self) -> None:
        self.strokes: list[dict[str, Any]] = []
        self.texts: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self._parts: list[np.ndarray] = []
        self._size, self._style, self.page, self.area = 0, None, 0, 1.0

    @property
    def points(self) -> np.ndarray:
        return np.concatenate(self._parts) if self._parts else np.zeros((0, 2))

    def start_page(self, number: int, box: list[float]) -> None:
        self.page, self._style = number, None
        self.box = (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
        self.area = max((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]), 1.0)

    def add(self, points: np.ndarray, matrix: np.ndarray, clip: tuple[float, ...], style: Any, filled: bool) -> None:
        """Adds a polyline; one that begins where the last one of the same style ended continues it."""
        scale = [float(np.hypot(*matrix[0, :2])), float(np.hypot(*matrix[1, :2]))]
        style = (style, tuple(scale), clip, filled)
        if self._parts and style == self._style and not filled:
            last = self._parts[-1][-1]
            if abs(last - points[0]).max() < 1e-3:
                self._parts.append(points[1:])
                self._size += len(points) - 1
                self.strokes[-1]["stop"] = self._size
                return
        self._style = style
        self._parts.append(points)
        start, self._size = self._size, self._size + len(points)
        about = {"page": self.page, "start": start, "stop": self._size, "scale": scale, "filled": filled}
        self.strokes.append({**about, "clip": list(clip)})


class _State:
    """The graphics state that matters here; `copy` for the operator q."""

    def __init__(self, matrix: np.ndarray, clip: tuple[float, ...]) -> None:
        self.matrix, self.clip = matrix, clip
        self.style: dict[str, Any] = {"colour": None, "width": 1.0}
        self.font: Font | None = None
        self.size, self.leading, self.letter, self.word, self.stretch, self.rise = 0.0, 0.0, 0.0, 0.0, 1.0, 0.0

    def copy(self) -> "_State":
        new = _State(self.matrix, self.clip)
        new.__dict__.update(self.__dict__)
        new.style = dict(self.style)
        return new


class _Interpreter:
    """Runs one content stream on a canvas."""

    def __init__(
        self,
        canvas: _Canvas,
        resources: DictionaryObject,
        path: Path,
        state: _State | None = None,
        depth: int = 0,
    ) -> None:
        self.canvas, self.resources, self.path, self.depth = canvas, resources, path, depth
        self.state = state or _State(_IDENTITY, canvas.box)
        self.stack: list[_State] = []
        self.subpaths: list[list[tuple[float, float]]] = []
        self.clipping = False
        self.line = self.text = _IDENTITY
        self.fonts: dict[str, Font] = {}

    def run(self, content: bytes) -> None:
        """Runs all operators; ValueError for one that is none."""
        operands: list[Any] = []
        for kind, value in _tokens(content):
            if kind != "word":
                operands.append(value)
                continue
            try:
                self._apply(value, operands)
            except (TypeError, IndexError, AttributeError) as error:
                raise ValueError(f"damaged PDF: operands of {value!r}: {error}") from error
            operands = []
        if self.stack and self.depth == 0 and len(self.stack) > 2:
            raise ValueError(f"{self.path}: damaged PDF: the drawing ends before its last parts")

    def _apply(self, operator: bytes, operands: list[Any]) -> None:
        name = _OPERATORS.get(operator)
        if name is not None:
            getattr(self, name)(*operands)
        elif operator in _STYLES:
            self.state.style[_STYLES[operator]] = tuple(operands)
        elif operator in _NUMBERS:
            name, scale = _NUMBERS[operator]
            (number,) = operands
            setattr(self.state, name, number * scale)
        elif operator not in _IGNORED:
            raise ValueError(f"damaged PDF: expected a drawing operator, got {operator[:20]!r}")

    # -- graphics state

    def _save(self) -> None:
        self.stack.append(self.state.copy())

    def _restore(self) -> None:
        if self.stack:
            self.state = self.stack.pop()

    def _concatenate(self, *numbers: float) -> None:
        self.state.matrix = _matrix(*numbers) @ self.state.matrix

    # -- paths

    def _move(self, x: float, y: float) -> None:
        self.subpaths.append([(x, y)])

    def _line_to(self, x: float, y: float) -> None:
        self.subpaths[-1].append((x, y))

    def _curve(self, x1: float, y1: float, x2: float, y2: float, x3: float, y3: float) -> None:
        path = self.subpaths[-1]
        x0, y0 = path[-1]
        if _is_straight(x0, y0, x1, y1, x2, y2, x3, y3):
            path.append((x3, y3))
            return
        path += [(a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3) for _, a, b, c, d in _BEZIER]

    def _curve_v(self, x2: float, y2: float, x3: float, y3: float) -> None:
        self._curve(*self.subpaths[-1][-1], x2, y2, x3, y3)

    def _curve_y(self, x1: float, y1: float, x3: float, y3: float) -> None:
        self._curve(x1, y1, x3, y3, x3, y3)

    def _close(self) -> None:
        if self.subpaths:
            self.subpaths[-1].append(self.subpaths[-1][0])

    def _rectangle(self, x: float, y: float, width: float, height: float) -> None:
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
        self.subpaths.append(corners)

    def _clip(self) -> None:
        self.clipping = True

    def _stroke(self) -> None:
        self._paint(stroke=True)

    def _close_and_stroke(self) -> None:
        self._close()
        self._paint(stroke=True)

    def _fill(self) -> None:
        self._paint(fill=True)

    def _end_path(self) -> None:
        self._paint()

    def _paint(self, stroke: bool = False, fill: bool = False) -> None:
        state = self.state
        style = (state.style["colour"], state.style["width"]) if stroke else None
        boxes = []
        for subpath in self.subpaths:
            if len(subpath) < 2 or not (stroke or self.clipping or len(subpath) <= 5):
                continue
            points = np.array(subpath, dtype=float) @ state.matrix[:2, :2] + state.matrix[2, :2]
            if stroke or fill:
                self.canvas.add(points, state.matrix, state.clip, style, not stroke)
            if self.clipping:
                boxes.append((*points.min(axis=0), *points.max(axis=0)))
        if self.clipping and boxes:
            low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
            x0, y0, x1, y1 = state.clip
            state.clip = (max(x0, low[0]), max(y0, low[1]), min(x1, high[0]), min(y1, high[1]))
        self.subpaths, self.clipping = [], False

    # -- text

    def _begin_text(self) -> None:
        self.line = self.text = _IDENTITY

    def _set_matrix(self, *numbers: float) -> None:
        self.line = self.text = _matrix(*numbers)

    def _next(self, x: float, y: float) -> None:
        self.line = self.text = _matrix(1, 0, 0, 1, x, y) @ self.line

    def _next_leading(self, x: float, y: float) -> None:
        self.state.leading = -y
        self._next(x, y)

    def _next_line(self) -> None:
        self._next(0, -self.state.leading)

    def _set_font(self, name: str, size: float) -> None:
        if name not in self.fonts:
            fonts = _object(self.resources.get("/Font")) or {}
            self.fonts[name] = Font(_object(fonts.get("/" + name)), lambda stream: _inflated(stream, self.path))
        self.state.font, self.state.size = self.fonts[name], float(size)

    def _show(self, *strings: Any) -> None:
        """Shows strings, with numbers between them that move back by thousandths of the size."""
        state, words, start = self.state, list[str](), self.text
        if state.font is None:
            raise ValueError(f"{self.path}: damaged PDF: text without a font")
        for each in strings:
            if isinstance(each, bytes):
                word, width, count = state.font.read(each)
                words.append(word)
                width = width * state.size + count * state.letter + word.count(" ") * state.word
            else:
                width = -each / 1000 * state.size
                words += [" "] if width > 0.25 * state.size else []
            self.text = _matrix(1, 0, 0, 1, width * state.stretch, 0) @ self.text
        rise = _matrix(state.size * state.stretch, 0, 0, state.size, 0, state.rise)
        place, end = rise @ start @ state.matrix, self.text @ state.matrix
        self._add_text("".join(words), place, end)

    def _add_text(self, text: str, place: np.ndarray, end: np.ndarray) -> None:
        if text.strip():
            angle = float(np.degrees(np.arctan2(place[0, 1], place[0, 0])))
            size, width = float(np.hypot(*place[1, :2])), float(np.hypot(*(end[2, :2] - place[2, :2])))
            where = {"page": self.canvas.page, "x": float(place[2, 0]), "y": float(place[2, 1])}
            mirrored = bool(np.linalg.det(place[:2, :2]) < 0)
            about = {"text": text, "size": size, "angle": angle, "width": width, "mirrored": mirrored}
            self.canvas.texts.append({**where, **about})

    def _show_list(self, strings: list[Any]) -> None:
        self._show(*strings)

    def _show_next(self, string: bytes) -> None:
        self._next_line()
        self._show(string)

    def _show_spaced(self, word: float, letter: float, string: bytes) -> None:
        self.state.word, self.state.letter = word, letter
        self._show_next(string)

    # -- drawings within drawings

    def _do(self, name: str) -> None:
        objects = _object(self.resources.get("/XObject")) or {}
        drawn = _object(objects.get("/" + name))
        kind = "" if drawn is None else str(drawn.get("/Subtype"))
        if kind == "/Image":
            area = abs(float(np.linalg.det(self.state.matrix[:2, :2]))) / self.canvas.area
            self.canvas.images.append({"page": self.canvas.page, "area": area})
        elif kind == "/Form":
            if self.depth >= _MAX_DEPTH:
                raise ValueError(f"{self.path}: expected drawings at most {_MAX_DEPTH} deep, got more")
            self._run_form(drawn)

    def _run_form(self, form: StreamObject) -> None:
        state = self.state.copy()
        numbers = [float(_object(each)) for each in _object(form.get("/Matrix")) or (1, 0, 0, 1, 0, 0)]
        state.matrix = _matrix(*numbers) @ state.matrix
        resources = _object(form.get("/Resources")) or self.resources
        _Interpreter(self.canvas, resources, self.path, state, self.depth + 1).run(_inflated(form, self.path))


_OPERATORS = {
    b"q": "_save", b"Q": "_restore", b"cm": "_concatenate",
    b"m": "_move", b"l": "_line_to", b"c": "_curve", b"v": "_curve_v", b"y": "_curve_y", b"h": "_close",
    b"re": "_rectangle", b"W": "_clip", b"W*": "_clip", b"S": "_stroke", b"s": "_close_and_stroke", b"n": "_end_path",
    b"f": "_fill", b"F": "_fill", b"f*": "_fill", b"B": "_stroke", b"B*": "_stroke",
    b"b": "_close_and_stroke", b"b*": "_close_and_stroke",
    b"BT": "_begin_text", b"Tm": "_set_matrix", b"Td": "_next", b"TD": "_next_leading", b"T*": "_next_line",
    b"Tf": "_set_font", b"Tj": "_show", b"TJ": "_show_list", b"'": "_show_next", b'"': "_show_spaced", b"Do": "_do",
}  # fmt: skip
_STYLES = {b"w": "width", **dict.fromkeys((b"G", b"RG", b"K", b"SC", b"SCN"), "colour")}
_NUMBERS = {
    b"Tc": ("letter", 1.0),
    b"Tw": ("word", 1.0),
    b"Tz": ("stretch", 0.01),
    b"TL": ("leading", 1.0),
    b"Ts": ("rise", 1.0),
}
_IGNORED = set(
    b"J j M d ri i gs sh ET Tr CS cs sc scn g rg k MP DP BMC BDC EMC BX EX d0 d1 true false null".split()
)  # no line or word depends on these


def _is_straight(x0: float, y0: float, x1: float, y1: float, x2: float, y2: float, x3: float, y3: float) -> bool:
    """Whether the control points of a curve lie on the line between its ends, to a thousandth of its length."""
    dx, dy = x3 - x0, y3 - y0
    off = max(abs(dx * (y1 - y0) - dy * (x1 - x0)), abs(dx * (y2 - y0) - dy * (x2 - x0)))
    return off <= 1e-3 * (dx * dx + dy * dy)


def _matrix(a: float, b: float, c: float, d: float, e: float, f: float) -> np.ndarray:
    """Rows act on (x, y, 1) from the left, as in 8.3.4."""
    return np.array([[a, b, 0.0], [c, d, 0.0], [e, f, 1.0]])


def _tokens(content: bytes) -> Iterator[tuple[str, Any]]:
    """Operands (numbers, names, bytes, lists) and operators (`word`); dictionaries and inline images are left out."""
    at, lists, depth = 0, list[list[Any]](), 0
    while at < len(content):
        found = _TOKEN.match(content, at)
        if found is None:  # only spaces are left
            return
        kind, at = str(found.lastgroup), found.end()
        value: Any = found.group(kind)
        if kind == "skip":
            continue
        if kind == "bad":
            raise ValueError(f"damaged PDF: expected an operator or operand, got {value!r}")
        if kind == "number":
            value = float(value)
        elif kind == "name":
            value = value.decode("latin-1")
        elif kind == "hex":
            digits = re.sub(rb"\s", b"", value)
            value = bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode("ascii"))
        elif kind == "open":
            value, at = _string(content, at)
        elif kind == "mark":
            if value == b"[":
                lists.append([])
                continue
            if value in (b"<<", b">>"):
                depth += 1 if value == b"<<" else -1
                continue
            if not lists:
                raise ValueError("damaged PDF: a list that does not begin")
            value = lists.pop()
        elif value == b"BI":
            end = re.compile(rb"\sEI(?=\s|$)").search(content, at)
            at = end.end() if end else len(content)
            continue
        if depth:
            continue
        if lists:
            lists[-1].append(value)
        else:
            yield kind, value


def _string(content: bytes, at: int) -> tuple[bytes, int]:
    """A string in parentheses, which may be nested, from behind the first; and where it ends."""
    depth, start = 1, at
    while depth:
        found = re.compile(rb"[()]|\\.", re.DOTALL).search(content, at)
        if found is None:
            raise ValueError("damaged PDF: a string without an end")
        depth += {b"(": 1, b")": -1}.get(found.group(), 0)
        at = found.end()
    return _ESCAPE.sub(_unescaped, content[start : at - 1]), at


def _unescaped(found: re.Match[bytes]) -> bytes:
    code = found.group(1)
    return _ESCAPES.get(code, bytes([int(code, 8) & 255]) if code[:1].isdigit() else b"")
