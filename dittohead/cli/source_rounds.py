"""What commands on sources look at themselves: the configuration, and what a round would do."""

from __future__ import annotations

import asyncio

from dittohead.cli.base import USAGE
from dittohead.cli.open_config import load_config, reading
from dittohead.cli.terminal import fail
from dittohead.cli.without_daemon import must_be_its_user
from dittohead.config import registry
from dittohead.config.loader import Config, SourceSetting
from dittohead.contract.catalogue import Keep
from dittohead.contract.source import Person
from dittohead.folders.stations import Stations
from dittohead.intake.look import DrySourceLook
from dittohead.store import Store
from dittohead.store import items as item_store
from dittohead.store.keeping import keep
from dittohead.system.credentials import Credentials


def setting_of(name: str) -> tuple[Config, SourceSetting]:
    """Return the configuration, and a source of it; end where it has none of this name."""
    config = load_config()
    found = config.source(name)
    if found is None:
        names = ", ".join(setting.name for setting in config.sources) or "none"
        fail(f'there is no source "{name}". There are: {names}', USAGE)
    return config, found


def dry_look(config: Config, setting: SourceSetting, prefix: str) -> DrySourceLook:
    """Look at a source; nothing is fetched, and queues are not read. Return what was seen.

    Args:
        setting: the source, as config.yaml has it.
        prefix: only keys that begin so; "" for all.

    Raises: StoreError; StepError: the source cannot be asked.
    """
    with reading(config) as (store, stations):
        kept = keep(store, stations.state, setting.name, Credentials(config.path).needed)
        return asyncio.run(_look(store, setting, prefix, kept))


async def _look(store: Store, setting: SourceSetting, prefix: str, kept: Keep) -> DrySourceLook:
    ctx = DrySourceLook(store, setting.name, prefix)
    kind = registry.sources().get(setting.kind)
    async with kind.connect(setting.options, kept) as upstream:
        await upstream.look(ctx)
    return ctx


def forgettable(config: Config, name: str, prefix: str) -> tuple[int, int]:
    """Return how many items of a source could be fetched again, and how many are under way.

    Args:
        name: the source's name.
        prefix: only keys that begin so; "" for all.

    Raises: StoreError: there is no store yet, or it cannot be read.
    """
    with reading(config) as (store, _):
        return store.run(item_store.forgettable, name, prefix)


def authorized(name: str, person: Person) -> str:
    """Have a person sign a source in; return what was done, in words. Raises: ItemError, TransientError."""
    config, setting = setting_of(name)
    kind = registry.sources().get(setting.kind)
    if not kind.signs_in:
        fail(f"{name}: nobody signs in to a source of the kind {setting.kind}", USAGE)
    must_be_its_user(Stations(config.root).state)
    with reading(config) as (store, stations):
        kept = keep(store, stations.state, setting.name, Credentials(config.path).needed)
        return asyncio.run(kind.authorize(setting.options, kept, person))
