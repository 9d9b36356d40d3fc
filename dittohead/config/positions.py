"""Read YAML into plain data that remembers the line and column of every key and value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dittohead.model.errors import ConfigError

#: Where something stands: keys and list indices from the top.
Place = tuple[str | int, ...]


@dataclass
class Document:
    """The data of a YAML file and where each part of it stands."""

    path: Path
    data: Any = None
    digest: str = ""  #: SHA-256 of the file, hexadecimal
    keys: dict[Place, tuple[int, int]] = field(default_factory=dict)
    values: dict[Place, tuple[int, int]] = field(default_factory=dict)

    def where(self, place: Place, *, key: bool = False) -> str:
        """Return "FILE:LINE:COLUMN" of a key or a value, or of the nearest part around it."""
        marks = self.keys if key else self.values
        while True:
            mark = marks.get(place) or self.keys.get(place) or self.values.get(place)
            if mark is not None:
                return f"{self.path}:{mark[0]}:{mark[1]}"
            if not place:
                return str(self.path)
            place = place[:-1]


def read(path: Path) -> Document:
    """Read a YAML file.

    Raises: ConfigError: it cannot be read, is not YAML, or has a key twice; with line and column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the configuration cannot be read ({error.strerror})",
            where=str(path),
            hint="Write one with: dittohead init" if isinstance(error, FileNotFoundError) else "",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("the configuration is not UTF-8 text", where=str(path)) from error
    document = Document(path, digest=hashlib.sha256(text.encode()).hexdigest())
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            document.data = _plain(node, (), document, yaml.SafeLoader(""))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(
            f"this is not valid YAML: {error.problem or error.context}",
            where=where,
            hint="Check the indentation and the quotes there",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not valid YAML: {error}", where=str(path)) from error
    return document


def _plain(node: yaml.Node, place: Place, document: Document, loader: yaml.SafeLoader) -> Any:
    document.values[place] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, document, loader)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, i), document, loader) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


def _mapping(
    node: yaml.MappingNode, place: Place, document: Document, loader: yaml.SafeLoader
) -> dict[str, Any]:
    loader.flatten_mapping(node)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        # As written: to YAML 1.1 the key `on` is the truth value True.
        key = str(key_node.value)
        here = (*place, key)
        mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if key in result:
            raise ConfigError(
                f'the key "{key}" stands here a second time',
                where=f"{document.path}:{mark[0]}:{mark[1]}",
                hint=f"The first is on line {document.keys[here][0]}; remove one of them",
            )
        document.keys[here] = mark
        result[key] = _plain(value_node, here, document, loader)
    return result
