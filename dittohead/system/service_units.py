"""The units that run dittohead, as their files say: by which configuration, with what secrets."""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Where units lie; what comes first goes before the same name in the others. Source: systemd.unit(5).
PLACES = (
    Path("/etc/systemd/system"),
    Path("/run/systemd/system"),
    Path("/usr/local/lib/systemd/system"),
    Path("/usr/lib/systemd/system"),
)

#: Settings that give a service credentials, by name and where from. Source: systemd.exec(5).
_GIVEN = ("LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted")

#: What `systemctl is-active` prints of a service that does not run. Source: systemctl(1).
_DOWN = (b"inactive", b"failed")


@dataclass(kw_only=True)
class Unit:
    """A service, without what drop-ins outside of its own directory say."""

    name: str  #: such as dittohead.service
    config: str = ""  #: what `--config` names; specifiers as patterns
    user: str = "root"
    credentials: dict[str, str] = field(
        default_factory=dict
    )  #: name -> the file it is read from; "" for none
    imported: list[str] = field(
        default_factory=list
    )  #: patterns of names that come from systemd's own stores

    def gives(self, name: str) -> bool:
        """Tell whether the service is given a credential, or may be."""
        return name in self.credentials or any(fnmatch.fnmatchcase(name, one) for one in self.imported)

    def set(self, key: str, value: str) -> None:
        """Take a line of a unit's file."""
        if key in _GIVEN:
            self._give(key, value)
        elif key == "ImportCredential":
            self.imported = [*self.imported, value.partition(":")[0]] if value else []
        elif key == "User":
            self.user = value or "root"
        elif key == "ExecStart" and value:
            found = re.search(r"\bdittohead\b.*--config[= ](\S+)", value)
            self.config = re.sub(r"%[A-Za-z]", "*", found[1]) if found else ""

    def _give(self, key: str, value: str) -> None:
        name, _, rest = value.partition(":")
        if not value:  # takes back what was said before
            self.credentials.clear()
        elif key == "LoadCredential" and rest.startswith("/") and "%" not in rest:
            self.credentials[name] = rest
        else:
            self.credentials[name] = ""


def unit_of(config: Path, places: tuple[Path, ...] = ()) -> Unit | None:
    """Return the unit that runs by a configuration; None for none. Blocking."""
    seen: set[str] = set()
    places = places or PLACES
    for place in places:
        for path in sorted(place.glob("*.service")):
            if path.name in seen:
                continue
            seen.add(path.name)
            unit = _read(path, places)
            if unit.config and fnmatch.fnmatchcase(str(config.resolve()), unit.config):
                return unit
    return None


def is_down(unit: Unit) -> bool:
    """Tell whether a service is stopped, as systemd tells everybody; no where it does not say. Blocking."""
    program = shutil.which("systemctl")
    if program is None:
        return False
    from dittohead.system.process import environment  # it brings asyncio, which few commands need

    argv = [program, "is-active", unit.name]
    try:
        said = subprocess.run(argv, capture_output=True, check=False, timeout=10, env=environment())
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.stdout.strip() in _DOWN


def _read(main: Path, places: tuple[Path, ...]) -> Unit:
    unit = Unit(name=main.name)
    for path in (main, *_drop_ins(main.name, places)):
        try:
            for key, value in _lines(path):
                unit.set(key, value)
        except (OSError, UnicodeDecodeError):
            unit.imported.append("*")  # it may give anything
    return unit


def _drop_ins(name: str, places: tuple[Path, ...]) -> list[Path]:
    found: dict[str, Path] = {}
    for place in reversed(places):
        found.update({path.name: path for path in (place / f"{name}.d").glob("*.conf")})
    return [found[one] for one in sorted(found)]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the settings of a unit's section [Service]."""
    section = ""
    for line in re.sub(r"\\\n", " ", path.read_text(encoding="utf-8")).splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text
        elif section == "[Service]" and "=" in text and text[0] not in "#;":
            key, _, value = text.partition("=")
            yield key.strip(), value.strip()


def line_for(name: str, config: Path) -> str:
    """Return what to add to the unit so that it is given a credential that lies beside its configuration."""
    return f"LoadCredential={name}:{shlex.quote(str(config.parent / 'credentials' / name))}"
