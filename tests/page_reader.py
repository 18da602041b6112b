"""Reads HTML as a browser does, into a tree of elements."""

from __future__ import annotations

from html.parser import HTMLParser

import attrs

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})


@attrs.define(eq=False)
class Element:
    """An element with its content."""

    tag: str
    attributes: dict[str, str | None]
    parts: list[Element | str] = attrs.field(factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Every element inside this one that has the tag and these words in its attributes, in page order."""
        found = []
        for part in self.parts:
            if isinstance(part, Element):
                if part.tag == tag and all(
                    value in (part.attributes.get(name.rstrip("_")) or "").split()
                    for name, value in attributes.items()
                ):
                    found.append(part)
                found += part.all(tag, **attributes)
        return found

    def one(self, tag: str, **attributes: str) -> Element:
        (element,) = self.all(tag, **attributes)
        return element


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes))
        self.open[-1].parts.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.open[-1].parts.append(Element(tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> within <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].parts.append(data)


def read(page: str) -> Element:
    """The whole page; every tag must be closed, in order."""
    parser = _Parser()
    parser.feed(str(page))  # a part of `Markup` is `Markup`, and would escape what it is added to
    parser.close()
    (whole,) = parser.open
    return whole
