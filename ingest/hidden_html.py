"""Text of an HTML page that a browser would not show: it is taken out, the elements around it stay.

A page is read as a browser does it in small: open elements on a stack, each with the few properties that decide
whether its text is seen, inherited as CSS says; rules of the page's own style sheets count where they name one class,
id or element. What scripts and other files would change is not known here.
"""

from __future__ import annotations

import colorsys
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ingest.cleaning import cut_blocks
from ingest.hidden import BLACK, TINY_PT, WHITE, Colour, Taken, colour_of, is_same

MAX_STYLE_CHARS = 200_000
MAX_RULES = 20_000
MAX_VALUE_CHARS = 200
"""Of a declaration's value no more is read: none that hides needs as much, and the rules below look twice at some."""
FAR_PX = 500.0
"""So far to the left or above nobody sees it, whatever the page's own place."""
_OPEN = re.compile(r"<!--|<(/?)([A-Za-z][^\s/<>]*)")
_TAG_END = re.compile(r">|=\s*([\"'])")
_ATTRIBUTE = re.compile(r"([^\s\"'<>/=]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+)))?")
_STYLE = re.compile(r"<(style)\b[^<>]*>", re.IGNORECASE)
_SIMPLE = re.compile(r"([A-Za-z][\w-]*)?([.#][A-Za-z_-][\w-]*)?")
_AROUND_ALL = re.compile(r"(?:(?:html|body)(?:\s*>\s*|\s+))+", re.IGNORECASE)
_NUMBER = re.compile(
    r"([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?)\s*(px|pt|em|rem|%|vw|vh|cm|mm|in|ex|ch)?", re.IGNORECASE
)
_COLOURED = re.compile(r"#[0-9a-f]{3,8}|(?:rgb|hsl)a?\([^()]*\)|[a-z]+", re.IGNORECASE)
_FUNCTION = re.compile(r"([a-z0-9]{1,20})\(([^()]*)\)")
_READ = frozenset(
    [
        "background",
        "background-color",
        "background-image",
        "bottom",
        "clip",
        "clip-path",
        "color",
        "content-visibility",
        "display",
        "filter",
        "font-size",
        "height",
        "inset",
        "left",
        "margin-left",
        "margin-top",
        "max-height",
        "max-width",
        "mso-hide",
        "opacity",
        "overflow",
        "position",
        "right",
        "text-indent",
        "top",
        "transform",
        "visibility",
        "width",
        "zoom",
    ]
)
"""The properties that are looked at: of others nothing is kept, so no rule grows with its length."""
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)
_RAW = frozenset(["script", "style", "textarea", "title", "template", "noscript", "xmp", "iframe", "svg", "math"])
_BARRIERS = frozenset(["table", "td", "th", "caption", "button", "object"])
_CLOSES: Mapping[str, tuple[str, ...]] = {
    "li": ("li",),
    "dt": ("dt", "dd"),
    "dd": ("dt", "dd"),
    "option": ("option",),
    "tr": ("td", "th", "tr"),
    "td": ("td", "th"),
    "th": ("td", "th"),
    "tbody": ("td", "th", "tr", "thead", "tbody"),
    "tfoot": ("td", "th", "tr", "tbody"),
}
_CLOSES_P = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "center",
        "details",
        "div",
        "dl",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "menu",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "ul",
        "dt",
        "dd",
    ]
)
_PX = {"px": 1.0, "pt": 4 / 3, "cm": 37.8, "mm": 3.78, "in": 96.0, "vw": 10.0, "vh": 8.0, "ex": 8.0, "ch": 8.0}


@dataclass(frozen=True, slots=True)
class _Look:
    """What decides whether an element's own text is seen. None: not known here."""

    gone: str | None = None
    visible: bool = True
    colour: Colour | None = BLACK
    background: Colour | None = WHITE
    size_px: float = 16.0

    @property
    def hides(self) -> str | None:
        """Why nobody sees it. "" for what pages hide every day and no warning is worth."""
        if self.gone is not None:
            return self.gone
        if not self.visible:
            return ""
        if self.size_px <= TINY_PT:
            return "in type too small to read"
        if self.colour and self.background and is_same(self.colour, self.background):
            return "in the colour of its background"
        return None


def without_hidden(source: str, taken: Taken) -> str:
    """Take the text that nobody sees out of a page, or of HTML within Markdown. Linear in the source."""
    if not re.search(r"\bstyle\b|\bhidden\b|\bcolor\b|\bbgcolor\b", source, re.IGNORECASE):
        return source
    sheet = _Sheet(source)
    stack = _Stack()
    parts: list[str] = []
    for text, tag, closes, raw in _tokens(source):
        why = stack.look.hides
        if why is None or taken.keep or not text.strip():
            parts.append(text)
        if why and text.strip():
            taken.add(why, html.unescape(text))
        parts.append(raw)
        if tag:
            if closes:
                stack.close(tag)
            else:
                stack.open(tag, raw, sheet)
    return "".join(parts)


def _tokens(source: str) -> Iterator[tuple[str, str, bool, str]]:
    """Text, then the tag behind it: its name, whether it closes, and its source with raw text that belongs to it."""
    position = 0
    endless: set[str] = set()
    while found := _OPEN.search(source, position):
        text = source[position : found.start()]
        name = (found[2] or "").lower()
        end = _tag_end(source, found.end()) if name else source.find("-->", found.end()) + 3
        if end < 3:
            yield source[position:], "", False, ""  # it is never closed
            return
        if name in _RAW and not found[1] and name not in endless:
            closing = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(source, end)
            end = closing.end() if closing else end
            if closing is None:
                endless.add(name)
            name = ""
        yield text, name, bool(found[1]), source[found.start() : end]
        position = end
    yield source[position:], "", False, ""


def _tag_end(source: str, position: int) -> int:
    """The place behind a tag's `>`, which may stand between quotes before; -1 where it is never closed."""
    while found := _TAG_END.search(source, position):
        if not found[1]:
            return found.end()
        position = source.find(found[1], found.end()) + 1
        if not position:
            return -1
    return -1


class _Stack:
    """The open elements and how they look."""

    def __init__(self) -> None:
        self._elements: list[tuple[str, _Look]] = []
        self._places: dict[str, list[int]] = {}
        self._barriers: list[int] = []

    @property
    def look(self) -> _Look:
        return self._elements[-1][1] if self._elements else _Look()

    def open(self, name: str, tag: str, sheet: _Sheet) -> None:
        if name in _CLOSES_P:
            self._pop_to("p")
        for closed in _CLOSES.get(name, ()):
            self._pop_to(closed)
        if name in _VOID or tag.endswith("/>"):
            return
        self._places.setdefault(name, []).append(len(self._elements))
        if name in _BARRIERS:
            self._barriers.append(len(self._elements))
        self._elements.append((name, _looks(self.look, name, _attributes(tag, name), sheet)))

    def close(self, name: str) -> None:
        self._pop_to(name)

    def _pop_to(self, name: str) -> None:
        places = self._places.get(name)
        barrier = self._barriers[-1] if self._barriers else -1
        if not places or (places[-1] < barrier and name not in ("table", "tr", "tbody", "thead", "tfoot", "body")):
            return
        place = places[-1]
        while len(self._elements) > place:
            gone, _ = self._elements.pop()
            self._places[gone].pop()
            if gone in _BARRIERS:
                self._barriers.pop()


class _Sheet:
    """The page's own rules for one class, id or element; others only tell that colours are not known."""

    def __init__(self, source: str) -> None:
        self._rules: dict[str, dict[str, str]] = {}
        self.knows_colours = not re.search(r"<link\b[^<>]*stylesheet|@import", source, re.IGNORECASE)
        for block in cut_blocks(source, _STYLE, lambda tag: rf"</{tag}\s*>")[1::2]:
            sheet = block.partition(">")[2].rpartition("<")[0][:MAX_STYLE_CHARS]
            # By CSS' own rule a comment that nothing closes runs to the end.
            sheet = re.sub(r"/\*.*?(?:\*/|\Z)|@[^{}@]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", sheet, flags=re.DOTALL)
            for names, body in re.findall(r"(?<![^{}])([^{}]+)\{([^{}]*)\}", sheet):
                self._add(names, body)

    def _add(self, names: str, body: str) -> None:
        declared = _declarations(body)
        for selector in map(str.strip, names[-2_000:].split(",")):
            around = _AROUND_ALL.match(selector)
            name = selector[around.end() :] if around else selector
            if name and _SIMPLE.fullmatch(name) and len(self._rules) < MAX_RULES:
                self._rules.setdefault(name, {}).update(declared)
            elif "background" in body:
                self.knows_colours = False

    def speaks_of(self, name: str) -> bool:
        """Whether an element looks other than the one around it though it has no attribute."""
        return name in self._rules or not self.knows_colours

    def declared(self, name: str, attributes: Mapping[str, str]) -> dict[str, str]:
        """What holds for an element: rules by its name, its classes, its id, then its own `style`."""
        found = dict(self._rules.get(name, {}))
        keys = [f".{word}" for word in dict.fromkeys(attributes.get("class", "").split()[:50])]
        keys += [f"#{attributes['id'].strip()}"] if "id" in attributes else []
        for key in keys:
            for selector in (key, name + key):
                found |= self._rules.get(selector, {})
        return found | _declarations(attributes.get("style", ""))


def _attributes(tag: str, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, *values in _ATTRIBUTE.findall(tag[1 + len(name) :]):
        found.setdefault(key.lower(), html.unescape("".join(values)))
    return found


def _declarations(body: str) -> dict[str, str]:
    body = re.sub(r"/\*.*?(?:\*/|\Z)", "", body, flags=re.DOTALL)
    body = re.sub(r"\\([0-9a-fA-F]{1,6})\s?", lambda found: chr(min(int(found[1], 16), 0xFFFF) or 63), body)
    found: dict[str, str] = {}
    for key, _, value in (item.partition(":") for item in body.lower().split(";")):
        name = key.strip()
        value = re.sub(r"! ?important", "", " ".join(value.split())[:MAX_VALUE_CHARS]).strip()
        if name == "font":
            name, value = "font-size", _size_within(value)
        if name in _READ and value:
            found[name] = value
    return found


def _size_within(font: str) -> str:
    """The size in the shorthand `italic 700 12px/1.5 Arial`: the first number with a unit, or 0."""
    for word in font.split():
        found = _NUMBER.fullmatch(word.partition("/")[0])
        if found and (found[2] or float(found[1]) == 0):
            return found.group()
    return ""


def _looks(parent: _Look, name: str, attributes: Mapping[str, str], sheet: _Sheet) -> _Look:
    if not attributes and not sheet.speaks_of(name):
        return parent
    style = sheet.declared(name, attributes)
    look = replace(parent, gone=parent.gone if parent.gone is not None else _gone(style, attributes))
    if "visibility" in style:
        look = replace(look, visible=style["visibility"] not in ("hidden", "collapse"))
    if "font-size" in style:
        look = replace(look, size_px=_size(style["font-size"], parent.size_px))
    colour = style.get("color") or (attributes.get("color", "")[:MAX_VALUE_CHARS] if name == "font" else None)
    if colour:
        see_through, found = _colour(colour)
        look = replace(look, colour=found, gone="in no colour" if see_through and look.gone is None else look.gone)
    return replace(look, background=_background(parent, name, style, attributes, sheet))


def _gone(style: Mapping[str, str], attributes: Mapping[str, str]) -> str | None:
    if "hidden" in attributes or style.get("display") == "none" or style.get("mso-hide") == "all":
        return ""
    if _is_cut_away(style) or style.get("content-visibility") == "hidden":
        return ""  # the usual way to speak to screen readers only
    if any(_share(part) <= 0.05 for part in [style.get("opacity", "1"), *_given(style.get("filter", ""), "opacity")]):
        return "in no colour"
    if _is_beside(style):
        return "beside the page"
    scales = _given(style.get("transform", ""), "scale", "scalex", "scaley", "scale3d")
    if any(_share(scale) == 0 for scale in scales) or _share(style.get("zoom", "1")) <= 0.05:
        return "in type too small to read"
    return None


def _given(functions: str, *names: str) -> list[str]:
    """The first two arguments of each function with one of these names."""
    found = [given.split(",")[:2] for name, given in _FUNCTION.findall(functions) if name in names]
    return [part.strip() for parts in found for part in parts]


def _share(text: str) -> float:
    """`0.5`, `50%`; 1 for what is no number."""
    found = _NUMBER.match(text)
    return float(found[1]) * (0.01 if found[2] == "%" else 1) if found else 1.0


def _is_beside(style: Mapping[str, str]) -> bool:
    indent = _length(style.get("text-indent", ""))
    if indent is not None and indent <= -FAR_PX:
        return True
    if style.get("position") in ("absolute", "fixed", "relative", "sticky"):
        places = [_length(style.get(side, "")) for side in ("left", "top", "right", "bottom")]
        places += [_length(word) for word in style.get("inset", "").split()]
        if any(place is not None and (place <= -FAR_PX or place >= 20 * FAR_PX) for place in places):
            return True
    moves = _given(style.get("transform", ""), "translate", "translatex", "translatey", "translate3d")
    moves += [style.get("margin-left", ""), style.get("margin-top", "")]
    # Pages centre wide boxes by negative margins, and by moving them by half of their own width.
    found = [_length(move) for move in moves if "%" not in move]
    return any(move is not None and move <= -4 * FAR_PX for move in found)


def _is_cut_away(style: Mapping[str, str]) -> bool:
    clip = style.get("clip", "")
    if clip.startswith("rect("):
        sides = clip[5:].rstrip(") ").replace(",", " ").split()
        if len(sides) == 4 and all(side in ("0", "1", "0px", "1px") for side in sides):
            return True
    if re.match(r"inset\( ?(?:50|100)%", style.get("clip-path", "")):
        return True
    hides = style.get("overflow", "") in ("hidden", "clip")
    return hides and any(_length(style.get(side, "")) == 0 for side in ("height", "max-height", "width", "max-width"))


def _background(
    parent: _Look, name: str, style: Mapping[str, str], attributes: Mapping[str, str], sheet: _Sheet
) -> Colour | None:
    told = style.get("background-color") or style.get("background") or attributes.get("bgcolor", "")[:MAX_VALUE_CHARS]
    if (
        "background" in attributes
        or "background-image" in style
        or "url(" in (told or "")
        or "gradient" in (told or "")
    ):
        return None
    if told and told not in ("none", "transparent", "inherit", "initial"):
        see_through, found = _colour(told)
        return parent.background if see_through else found
    if not sheet.knows_colours and ("class" in attributes or "id" in attributes or name in ("body", "td", "th")):
        return None
    return parent.background


def _colour(text: str) -> tuple[bool, Colour | None]:
    """Whether a colour is seen through, and which it is."""
    for word in _COLOURED.findall(text):
        if word == "transparent":
            return True, None
        if word.startswith(("rgb", "hsl")):
            return _mixed(word)
        if word.startswith("#") and len(word) in (5, 9):
            digits = word[1:] if len(word) == 9 else "".join(digit * 2 for digit in word[1:])
            return (True, None) if int(digits[6:], 16) <= 12 else (False, colour_of(digits[:6]))
        found = colour_of(word)
        if found or word.startswith("#"):
            return False, found
    return False, None


def _mixed(function: str) -> tuple[bool, Colour | None]:
    """`rgb(255 255 255 / 50%)`, `rgb(100%,100%,100%)`, `hsla(0,0%,100%,1)`; as `_colour`."""
    found = [_NUMBER.match(part) for part in re.split(r"[\s,/()]+", function)[1:5]]
    values = [(float(number[1]), number[2] == "%") for number in found if number]
    if len(values) > 3 and values[3][0] * (0.01 if values[3][1] else 1) <= 0.05:
        return True, None
    if len(values) < 3:
        return False, None
    if function.startswith("hsl"):
        hue = min(max(values[0][0], -360), 360) / 360
        saturation, light = (min(max(value / 100, 0), 1) for value, _ in values[1:3])
        channels = [255 * channel for channel in colorsys.hls_to_rgb(hue % 1, light, saturation)]
    else:
        channels = [value * (2.55 if percent else 1) for value, percent in values[:3]]
    red, green, blue = (round(min(max(channel, 0), 255)) for channel in channels)
    return False, (red, green, blue)


def _size(text: str, parent_px: float) -> float:
    found = _NUMBER.match(text)
    if not found:
        return max(parent_px, 10.0) if text in ("small", "medium", "large", "inherit", "initial") else 16.0
    value, unit = float(found[1]), (found[2] or "px").lower()
    if unit in ("em", "%"):
        return value * parent_px / (100 if unit == "%" else 1)
    return value * (16.0 if unit == "rem" else _PX[unit])


def _length(text: str) -> float | None:
    found = _NUMBER.fullmatch(text)
    if not found:
        return None
    unit = (found[2] or "px").lower()
    return float(found[1]) * {"em": 16.0, "rem": 16.0, "%": 10.0, **_PX}[unit]
