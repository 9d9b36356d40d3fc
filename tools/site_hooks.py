"""What the site does beyond Markdown: links to files of the repository lead to copies of them in the site.

Pages link to code as it lies on a forge (`../dittohead/worker.py`). MkDocs reads this file: see mkdocs.yml.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

#: A Markdown link's target that leads out of docs/.
_OUTSIDE = re.compile(r"\]\(((?:\.\./)+)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Leave out of the navigation what is not there (yet); what is there and is not named is an error."""
    config.nav = _present(config.nav, Path(config.docs_dir))
    return config


def _present(nav: list[Any], docs: Path) -> list[Any]:
    kept: list[Any] = []
    for entry in nav:
        ((title, value),) = entry.items() if isinstance(entry, dict) else ((None, entry),)
        if isinstance(value, list):
            kept.append({title: _present(value, docs)})
        elif (docs / value).exists():
            kept.append(entry)
    return kept


def on_files(files: Files, config: Any) -> Files:
    """Add the files of the repository that pages link to, as text that a browser shows."""
    top = Path(config.docs_dir).parent
    for page in list(files.documentation_pages()):
        for target in _linked(page, top):
            uri = _uri(target, top)
            if target.is_file() and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn those links to the copies; one that leads nowhere stays, and MkDocs says so."""
    top = Path(config.docs_dir).parent
    here = Path(page.file.abs_src_path).parent
    up = "../" * (len(Path(page.file.src_uri).parts) - 1)

    def turned(match: re.Match[str]) -> str:
        target = (here / (match[1] + match[2])).resolve()
        if target.is_relative_to(Path(config.docs_dir)) or not target.is_file():
            return match[0]
        return f"]({up}{_uri(target, top)})"

    return _OUTSIDE.sub(turned, markdown)


def _linked(page: File, top: Path) -> list[Path]:
    here = Path(str(page.abs_src_path)).parent
    found = [(here / (match[1] + match[2])).resolve() for match in _OUTSIDE.finditer(page.content_string)]
    return [path for path in found if not path.is_relative_to(top / "docs")]


def _uri(target: Path, top: Path) -> str:
    return f"repository/{target.relative_to(top).as_posix()}.txt"
