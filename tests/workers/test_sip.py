"""Packages: valid by the schemas of others, the same each time, and every fault of what goes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import package
from tests.support.package import DPRES, NS, context, folder, mets_of, packed, unpacked
from tests.support.trees import tree


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.schemas(tmp_path_factory.mktemp("schemas"))


async def test_the_finnish_profile_is_valid(schemas: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path, tree(tmp_path / "object-7", folder()))
    await packed(ctx, **DPRES, schemas=schemas, metadata=["*/lido.xml"])
    root = unpacked(ctx, tmp_path / "out")
    mets = mets_of(root)
    print((root / "mets.xml").read_text()[:6000])
    print(ctx.events)
    print(ctx.outputs)
    assert len(mets.findall(".//mets:file", NS)) == 9


async def test_generic(schemas: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path, tree(tmp_path / "object-7", folder()))
    await packed(ctx, schemas=schemas, metadata=["*/lido.xml"])
    root = unpacked(ctx, tmp_path / "out")
    print((root / "object-7/mets.xml").read_text()[:3000])
    print(ctx.events)
