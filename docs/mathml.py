"""MkDocs hook: formulas become MathML while the site is built, so that a page needs no script to show
them.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex leaves in its generic mode: <span>\(...\)</span> within a line, <div>\[...\]</div>
# on its own.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    return (
        f"<{match[1]}"
        f' class="formula">{convert(html.unescape(match[2]).strip(), display=display)}</{match[1]}>'
    )


def on_page_content(content: str, **_: Any) -> str:
    """Replace every formula of a rendered page."""
    return _FORMULA.sub(_mathml, content)
