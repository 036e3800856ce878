"""From Confluence's storage format to a plain HTML page.

The storage format is taken, not the rendered page: what a macro renders (another page's excerpt, a report, an issue) is
what the *account* may read, and its readers are not this page's. Storage holds this page's own text only. Its elements
`ac:…` and `ri:…` are none of HTML; here they become HTML where they carry text that a reader sees, and go where not:

    macro bodies, code, panels and their titles, tasks, captions, layout, link texts, names of linked pages and files,
    status lozenges, dates, emoji                       are kept
    other parameters, ids of users, tasks and macros    are dropped

Everything here meets hostile text outside the sandbox: time is linear in it.
"""

from __future__ import annotations

import html
import re

_TOKEN = re.compile(r"""<(/?)((?:ac|ri):[A-Za-z-]+|time)\b((?:[^<>"']|"[^"<]*"|'[^'<]*')*+)>""")
_TAG = re.compile(r"<[^<>]*>")
_INLINE_MACROS = frozenset({"status", "jira", "view-file", "anchor", "inline-comment"})
_SHOWN = frozenset({"title", "subtitle", "caption", "heading", "subheading", "text", "name", "summary", "question"})
_DROPPED = frozenset(
    {
        "ac:default-parameter",
        "ac:task-id",
        "ac:task-uuid",
        "ac:task-status",
        "ac:placeholder",
        "ac:adf-attribute",
        "ac:adf-mark",
    }
)
_AS_HTML = {
    "ac:rich-text-body": "div",
    "ac:plain-text-body": "pre",
    "ac:adf-content": "div",
    "ac:layout": "div",
    "ac:layout-section": "div",
    "ac:layout-cell": "div",
    "ac:caption": "div",
    "ac:task-list": "ul",
    "ac:task": "li",
}
_LINK_BODIES = frozenset({"ac:link-body", "ac:plain-text-link-body"})
_TARGETS = {
    "ri:page": "ri:content-title",
    "ri:blog-post": "ri:content-title",
    "ri:attachment": "ri:filename",
    "ri:space": "ri:space-key",
    "ri:url": "ri:value",
}
_CDATA, _CDATA_END = "<![CDATA[", "]]>"


def page_html(title: str, storage: str) -> bytes:
    """Make a whole HTML page of a page's title and its body in storage format. One without any text shows its title."""
    body = _Rewriting().of(_escaped_cdata(storage))
    named = html.escape(title, quote=False)
    if not html.unescape(_TAG.sub("", body)).strip():
        body = f"<h1>{named}</h1>"
    page = f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>{named}</title></head><body>{body}</body></html>'
    return page.encode("utf-8", "replace")


def _escaped_cdata(storage: str) -> str:
    """Turn CDATA sections, which HTML has not, into escaped text. One that nothing ends runs to the end."""
    first, *others = storage.split(_CDATA)
    parts = [first]
    for other in others:
        inside, _, after = other.partition(_CDATA_END)
        parts += [html.escape(inside, quote=False), after]
    return "".join(parts)


class _Rewriting:
    """One pass over a page's tags. Ordinary HTML goes through as it is."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._macros: list[str] = []
        self._links: list[str | None] = []  # what to show of each open link that has no body of its own
        self._parameter: str | None = None  # the open parameter that is shown
        self._dropping: str | None = None
        self._depth = 0
        self._has_adf_content = False

    def of(self, storage: str) -> str:
        at = 0
        for match in _TOKEN.finditer(storage):
            if self._dropping is None:
                self._out.append(storage[at : match.start()])
            at = match.end()
            slash, name, attributes = match.groups()
            if self._dropping is not None:
                self._pass(name, bool(slash), attributes)
            elif slash:
                self._close(name)
            else:
                self._open(name, attributes)
                if attributes.rstrip().endswith("/"):
                    self._end_of(name)
        if self._dropping is None:
            self._out.append(storage[at:])
        return "".join(self._out)

    def _pass(self, name: str, closes: bool, attributes: str) -> None:
        """Go through what is dropped, to its end."""
        if name != self._dropping or attributes.rstrip().endswith("/"):
            return
        self._depth += -1 if closes else 1
        if self._depth == 0:
            self._dropping = None

    def _drop(self, name: str) -> None:
        self._dropping, self._depth = name, 1

    def _end_of(self, name: str) -> None:
        """Close an element that is empty."""
        if self._dropping == name:
            self._dropping = None
        else:
            self._close(name)

    def _open(self, name: str, attributes: str) -> None:
        if name in _DROPPED or self._is_unseen_body(name):
            self._drop(name)
        elif name in _AS_HTML:
            self._has_adf_content |= name == "ac:adf-content"
            self._out.append(f"<{_AS_HTML[name]}>")
        elif name in ("ac:structured-macro", "ac:macro"):
            self._macros.append(_attribute(attributes, "ac:name"))
            self._out.append("<span>" if self._macros[-1] in _INLINE_MACROS else "<div>")
        elif name == "ac:parameter":
            self._open_parameter(_attribute(attributes, "ac:name"))
        elif name == "ac:link":
            self._links.append("")
        elif name in _LINK_BODIES and self._links:
            self._links[-1] = None
        elif name in _TARGETS:
            self._target(_attribute(attributes, _TARGETS[name]))
        else:
            self._out.append(_shown_attribute(name, attributes))

    def _is_unseen_body(self, name: str) -> bool:
        if name == "ac:plain-text-body":
            return bool(self._macros) and self._macros[-1] == "style"
        return name == "ac:adf-fallback" and self._has_adf_content

    def _open_parameter(self, called: str) -> None:
        macro = self._macros[-1] if self._macros else ""
        if called in _SHOWN or (called, macro) == ("key", "jira"):
            self._parameter = macro
            self._out.append("<span> " if macro in _INLINE_MACROS else "<p><strong>")
        else:
            self._drop("ac:parameter")

    def _target(self, shown: str) -> None:
        if self._parameter is not None:
            self._out.append(html.escape(shown, quote=False))
        elif self._links and self._links[-1] == "":
            self._links[-1] = shown

    def _close(self, name: str) -> None:
        if name in _AS_HTML:
            self._out.append(f"</{_AS_HTML[name]}>")
        elif name in ("ac:structured-macro", "ac:macro") and self._macros:
            self._out.append("</span>" if self._macros.pop() in _INLINE_MACROS else "</div>")
        elif name == "ac:parameter" and self._parameter is not None:
            self._out.append(" </span>" if self._parameter in _INLINE_MACROS else "</strong></p>")
            self._parameter = None
        elif name == "ac:link" and self._links:
            self._out.append(html.escape(self._links.pop() or "", quote=False))
        elif name == "ac:adf-extension":
            self._has_adf_content = False


def _shown_attribute(name: str, attributes: str) -> str:
    """What a reader sees of an element that has no text inside: a date, an emoji, an image's description."""
    shown = {"time": "datetime", "ac:emoticon": "ac:emoji-fallback", "ac:image": "ac:alt"}.get(name)
    text = _attribute(attributes, shown) if shown else ""
    if name == "ac:emoticon" and text.startswith(":"):
        return ""
    return f" {html.escape(text, quote=False)} " if text else ""


def _attribute(attributes: str, name: str) -> str:
    found = re.search(rf"""(?<![\w:-]){name}\s*=\s*(?:"([^"]*)"|'([^']*)')""", attributes)
    return html.unescape(found.group(1) or found.group(2) or "") if found else ""
