"""Read regression tables back, in every format, by programs that did not write them.

Each reader returns a list of lines, each a list of texts: the label, then the cells. A section
is a line with one text only.
"""

import re
from html.parser import HTMLParser
from itertools import pairwise, zip_longest

from markdown_it import MarkdownIt

_TEX = {
    "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<",
    "textgreater": ">", "textbar": "|", "textasciigrave": "`", "infty": "∞",
}  # fmt: skip
_TOKEN = re.compile(
    r"\$-\$|\$\\infty\$|\\symbol\{(\d+)\}|\\([a-z]+)\{\}|\\([&%$#_{}])|\{([\[\]*])\}|\{\}|([^\\{}&%$#_~^<>|\"`])"
)


class Page(HTMLParser):
    """The tags of a page, and the cells of its table with what spans rows."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.said = [], [], []
        self._open, self._left = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([""] if self._left else [])
            self._left = max(self._left - 1, 0)
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._left = max(self._left, int(dict(attrs).get("rowspan", 1)) - 1)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data
        elif {"p", "caption"} & set(self._open):
            self.said.append(data)


def read_html(text):
    return Page(text).rows


def read_markdown(text):
    """As a renderer that lets HTML through sees it; a bold label with nothing else is a section."""
    rows = Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(text)).rows
    heads = [[name.partition(" ")[::2] for name in row[1:]] for row in rows[:1]]
    first = [["", *(name[0] for name in heads[0])], ["", *(name[1] for name in heads[0])]]
    return first + [row if any(row[1:]) else row[:1] for row in rows[1:]]


def read_text(text):
    """Columns end where the numbers of the columns end."""
    lines = text.splitlines()
    top = next(i for i, line in enumerate(lines) if re.fullmatch(r"\s*\(1\)(\s+\(\d+\))*", line))
    ends = [found.end() for found in re.finditer(r"\(\d+\)", lines[top])]
    bottom = max(i for i, line in enumerate(lines) if re.fullmatch("-+", line))
    out = []
    for line in lines[top:bottom]:
        if not line or re.fullmatch("-+", line):
            continue
        label, _, first = line[: ends[0]].rpartition("  ")
        if not label.strip() and line[0] != " ":
            label, first = first, ""
        rest = [line[a:b].strip() for a, b in pairwise(ends)]
        row = [label.strip(), first.strip(), *rest]
        out.append(row if any(row[1:]) else [line.strip()])
    return out


def untex(text):
    """What TeX sets: only what the escapes are known to mean, anything else is an error."""
    out, position = "", 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        assert found, text[position : position + 40]
        code, word, escaped, held, plain = found.groups()
        signs = {"$-$": "−", r"$\infty$": "∞"}
        out += signs.get(found[0]) or (chr(int(code)) if code else "")
        out += (_TEX[word] if word else "") + (escaped or held or plain or "")
        position = found.end()
    return out


def read_latex(text):
    body = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    body = re.sub(r"^\\(midrule|addlinespace)\n", "", body, flags=re.MULTILINE)
    out = []
    for row in re.split(r" \\\\(?:\[2pt\])?\n", body.lstrip("\n"))[:-1]:
        section = re.fullmatch(r"\\multicolumn\{\d+\}\{l\}\{\\textit\{(.*)\}\}", row)
        row = re.sub(
            r"\\begin\{tabular\}\[t\]\{@\{\}[cl]@\{\}\}(.*?)\\end\{tabular\}",
            lambda found: found[1].replace(r"\\", " "),
            row,
        )
        cells = [section[1]] if section else re.split(r"(?<!\\)&", row)
        out.append([untex(cell).strip() for cell in cells])
    return out


def read_excel(path, *, titled):
    """Texts as Excel shows them, numbers by their formats."""
    import openpyxl

    sheet = openpyxl.load_workbook(path).worksheets[0]
    out = []
    for row in sheet.iter_rows(min_row=3 if titled else 1):
        cells = [_as_shown(cell) for cell in row]
        if row[0].border.top.style == "medium" and out:
            break  # the notes
        section = row[0].font.italic
        out.append(cells[:1] if section else cells)
    return out


def _as_shown(cell):
    if cell.value is None:
        return ""
    assert cell.data_type in "sn", (cell.coordinate, cell.data_type)
    if isinstance(cell.value, str):
        return cell.value
    form = cell.number_format.partition(";")[0]
    decimals = len(form.strip('")').partition(".")[2])
    text = f"{abs(cell.value):,.{decimals}f}"
    text = f"−{text}" if cell.value < 0 else text
    return f"({text})" if form.startswith('"("') else text


def read_word(path):
    """One row of the document is a term, with a paragraph for each line."""
    import docx

    out = []
    for row in docx.Document(path).tables[0].rows:
        cells = [[paragraph.text for paragraph in cell.paragraphs] for cell in row.cells]
        if len(row._tr.tc_lst) == 1:
            out.append(cells[0])
            continue
        out += map(list, zip_longest(*cells, fillvalue=""))
    return out


def read_all(table, folder):
    """Write a table in all formats and read it back: lines by format."""
    paths = {s: table.save(folder / f"table.{s}") for s in ("txt", "md", "html", "tex")}
    texts = {suffix: path.read_text("utf-8") for suffix, path in paths.items()}
    return {
        "text": read_text(texts["txt"]),
        "markdown": read_markdown(texts["md"]),
        "html": read_html(texts["html"]),
        "latex": read_latex(texts["tex"]),
        "excel": read_excel(table.to_excel(folder / "table.xlsx"), titled=bool(table.title)),
        "word": read_word(table.to_word(folder / "table.docx")),
    }
