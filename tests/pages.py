"""Pages as a browser would make something of them, for tests that look at reports."""

import base64
import math
import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.tables, self.spoken = [], [], {}, ""
        self._row, self._caption, self._open = None, "", []
        self.feed(text.replace("\u00a0", " "))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self._open.append(tag)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "caption":
            self._caption = ""
        if tag == "tr":
            self._row = []
        if tag in ("td", "th") and self._row is not None:
            self._row.append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass
        if tag == "caption":
            self.tables[self._caption] = []
        if tag == "tr":
            self.tables[self._caption].append(self._row)
            self._row = None

    def handle_data(self, data):
        if {"style", "title"} & set(self._open):
            return
        self.spoken += data
        if "caption" in self._open:
            self._caption += data
        elif self._row and {"td", "th"} & set(self._open):
            self._row[-1] += data

    def table(self, start):
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))

    def images(self):
        return [attrs for tag, attrs in self.tags if tag == "img"]


def part(text, name):
    """Return the text of one section."""
    return re.search(rf'<section[^>]*aria-labelledby="{name}".*?</section>', text, re.DOTALL)[0]


def drawings(page):
    """Return the SVG images of a page as text."""
    sources = [image["src"] for image in page.images() if "svg" in image["src"]]
    return [base64.b64decode(source.partition(",")[2]).decode() for source in sources]


def number(text):
    plain = text.replace("−", "-").replace(",", "").replace("∞", "inf")
    return math.nan if plain == "—" else float(plain)
