"""MkDocs hook: the tutorial notebook becomes a page of the site, its cells in their order, beside the
notebook itself.
"""

import json
from pathlib import Path
from typing import Any

NOTEBOOK = "tutorial.ipynb"


def page(notebook: str) -> str:
    """Write a notebook as Markdown, with a link to itself below its title."""
    parts = []
    for cell in json.loads(notebook)["cells"]:
        text = "".join(cell["source"]).strip()
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    title, *rest = parts
    head, _, introduction = title.partition("\n")
    return "\n\n".join([head, introduction.strip(), f"[Download the notebook]({NOTEBOOK}).", *rest, ""])


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the page to the site."""
    from mkdocs.structure.files import File

    text = (Path(config["docs_dir"]) / NOTEBOOK).read_text(encoding="utf-8")
    files.append(File.generated(config, "tutorial.md", content=page(text)))
    return files
