"""Markdown to one self-contained HTML file, with figures and style (`html_page.css`) inside.

The Markdown is rendered by markdown-it-py after CommonMark, with tables; raw HTML in it is shown as text. The
page forbids itself scripts and anything from elsewhere (Content-Security-Policy).
"""

import base64
import mimetypes
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = Path(__file__).with_name("html_page.css")


def html_page(
    markdown_text: str, folder: Path | str, folded: Mapping[str, str] | None = None, folded_word: str = ""
) -> str:
    """Returns one self-contained page.

    Args:
        markdown_text: a report; its first heading is the title of the page.
        folder: where the figures lie that it shows; their paths are relative to it.
        folded: headings of the second level whose sections are shown only after a click -> the words to click on.
        folded_word: in other sections, paragraphs that begin with this word in bold are folded to their words before
            the first colon.

    Returns:
        A whole HTML5 document, figures as data URIs.

    Raises:
        ValueError: no first-level heading, a figure outside the folder or on the web, or of a kind no browser shows.
        FileNotFoundError: a figure that is not there.
    """
    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table")
    tokens = parser.parse(markdown_text)
    title = _title(tokens)
    _embed_figures(tokens, Path(folder))
    _scroll_tables(tokens)
    sections = _name_headings(tokens)
    _fold_paragraphs(tokens, folded or {}, folded_word)
    _fold(tokens, folded or {})
    body = parser.renderer.render(tokens, parser.options, {})
    return _page(title, sections, body)


def _title(tokens: Sequence[Token]) -> str:
    for heading, inside in pairwise(tokens):
        if heading.type == "heading_open" and heading.tag == "h1":
            return _plain(inside)
    raise ValueError("markdown_text: expected a heading of the first level as title, found none")


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))


def _embed_figures(tokens: Sequence[Token], folder: Path) -> None:
    """Puts images into the page; a paragraph that is an image becomes a figure with its caption."""
    for place, token in enumerate(tokens):
        images = [child for child in token.children or [] if child.type == "image"]
        for image in images:
            image.attrs["src"] = _data_uri(str(image.attrs["src"]), folder)
        if len(images) == 1 and len(token.children or []) == 1 and tokens[place - 1].type == "paragraph_open":
            caption = Token("html_inline", "", 0, content=f"<figcaption>{escape(_plain(images[0]))}</figcaption>")
            token.children = [images[0], caption]
            tokens[place - 1].tag = tokens[place + 1].tag = "figure"


def _data_uri(source: str, folder: Path) -> str:
    path = (folder / unquote(source)).resolve()
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", source) or not path.is_relative_to(folder.resolve()):
        raise ValueError(f"markdown_text: expected figures inside {folder}, found {source}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a figure of the report, found no such file")
    kind, _ = mimetypes.guess_type(path.name)
    if kind is None or not kind.startswith("image/"):
        raise ValueError(f"{path}: expected a PNG, JPEG or SVG, found {kind or 'an unknown kind'}")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _scroll_tables(tokens: list[Token]) -> None:
    """A wide table scrolls by itself on a phone; also by keyboard."""
    for place in reversed(range(len(tokens))):
        if tokens[place].type == "table_open":
            opening = '<div class="table" role="region" aria-label="table" tabindex="0">\n'
            tokens.insert(place, Token("html_block", "", 0, content=opening))
        elif tokens[place].type == "table_close":
            tokens.insert(place + 1, Token("html_block", "", 0, content="</div>\n"))


def _name_headings(tokens: Sequence[Token]) -> list[tuple[str, str]]:
    """Gives every heading an id of its own; those of the second level, with their text."""
    seen: set[str] = set()
    sections = []
    for heading, inside in pairwise(tokens):
        if heading.type != "heading_open":
            continue
        text = _plain(inside)
        slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        while slug in seen:
            slug += "-again"
        seen.add(slug)
        heading.attrs["id"] = slug
        if heading.tag == "h2":
            sections.append((slug, text))
    return sections


def _fold_paragraphs(tokens: list[Token], folded: Mapping[str, str], word: str) -> None:
    starts, section = [], ""
    for place, (token, inside) in enumerate(pairwise(tokens)):
        if token.type == "heading_open" and token.tag == "h2":
            section = _plain(inside)
        is_paragraph = token.type == "paragraph_open" and bool(word) and section not in folded
        if is_paragraph and inside.content.startswith(f"**{word}**"):
            starts.append(place)
    for place in reversed(starts):
        words = escape(_plain(tokens[place + 1]).split(":")[0])
        tokens.insert(place + 3, Token("html_block", "", 0, content="</details>\n"))
        tokens.insert(place, Token("html_block", "", 0, content=f"<details>\n<summary>{words}</summary>\n"))


def _fold(tokens: list[Token], folded: Mapping[str, str]) -> None:
    """Puts what follows these headings, up to the next of their level, behind words to click on."""
    headings = [place for place, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    for start, end in reversed(list(pairwise([*headings, len(tokens)]))):
        words = folded.get(_plain(tokens[start + 1]))
        if words is not None:
            opening = f"<details>\n<summary>{escape(words)}</summary>\n"
            tokens.insert(end, Token("html_block", "", 0, content="</details>\n"))
            tokens.insert(start + 3, Token("html_block", "", 0, content=opening))


def _page(title: str, sections: Sequence[tuple[str, str]], body: str) -> str:
    links = "".join(f'<li><a href="#{slug}">{escape(text)}</a></li>' for slug, text in sections)
    contents = f'<nav aria-label="contents"><ul>{links}</ul></nav>\n' if sections else ""
    style = STYLE.read_text(encoding="utf-8")
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
    )
    end = body.index("</h1>") + len("</h1>")
    return f"{head}<main>\n{body[:end]}\n{contents}{body[end:]}</main>\n</body>\n</html>\n"
