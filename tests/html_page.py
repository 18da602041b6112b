"""Reads HTML as a browser does, into a flat list of elements."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page's elements with their attributes, and its text; every element must be closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(str(page))  # a part of `Markup` is `Markup`, and would escape what it is added to
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    @property
    def tags(self):
        return {tag for tag, _ in self.elements}

    def all(self, tag):
        """The attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def first(self, tag):
        return next(iter(self.all(tag)), None)

    def values_of(self, name):
        """The values of an attribute, on all elements that have it."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]
