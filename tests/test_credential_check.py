"""`check` names the credentials that are not there: by line and key, as the service sees them, never wrongly."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dittohead.cli import main
from dittohead.system import service_units

CONFIG = """\
root: .
store: postgresql://d@127.0.0.1/d
store_credential: one
http: {listen: "127.0.0.1:0", tokens: two}
pipelines:
  a:
    match: ".*"
    steps:
      - command: {argv: ["true"], secrets: {KEY: three}, env: {credential: no-name-of-one}}
      - upload: {bucket: b, credentials: four, endpoint_url: "http://127.0.0.1:9"}
notify:
  - smtp: {host: h, sender: a@b.org, to: [a@b.org], user: u, password_credential: five}
  - webhook: {url: "http://127.0.0.1:9", secret_credential: [six, five]}
  - {url_credential: seven}
"""
NAMES = ["one", "two", "three", "four", "five", "six", "seven"]
PLACES = ["3:19", "4:39", "9:50", "10:42", "12:83", "13:62", "14:22"]
UNIT = (
    "[Unit]\nAfter=x\n[Service]\nUser={user}\nExecStart=/opt/dittohead/bin/dittohead --config {config} run\n"
)


class Place:
    """A configuration, and what units there are."""

    def __init__(self, base: Path) -> None:
        self.config = base / "config.yaml"
        self.config.write_text(CONFIG)
        self.secrets = base / "credentials"
        self.secrets.mkdir(mode=0o700)
        self.units = (base / "etc", base / "lib")
        for place in self.units:
            place.mkdir()

    def unit(
        self, more: str = "", *, name: str = "dittohead.service", config: str = "", user: str = "root"
    ) -> None:
        """Install a unit, with a drop-in."""
        (self.units[0] / name).write_text(UNIT.format(config=config or self.config, user=user))
        self.drop_in(more, name=name)

    def drop_in(
        self, text: str, *, name: str = "dittohead.service", place: int = 0, file: str = "site"
    ) -> None:
        path = self.units[place] / f"{name}.d" / f"{file}.conf"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def write(self, *names: str) -> None:
        for name in names:
            (self.secrets / name).write_text("a secret of many letters")
            (self.secrets / name).chmod(0o600)

    def check(self) -> Result:
        return CliRunner().invoke(main, ["--config", str(self.config), "check"])

    def lacking(self) -> list[str]:
        """Return the names that `check` says are not there."""
        said = self.check().output
        return [name for name in NAMES if f'there is no credential "{name}"' in said]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A directory that others may enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        made = Place(Path(name))
        monkeypatch.setattr(service_units, "PLACES", made.units)
        yield made


def test_each_that_is_not_there_is_named_with_line_and_key(here: Place) -> None:
    """Together, and no word that is not the name of one."""
    said = here.check()
    assert said.exit_code == os.EX_CONFIG
    for name, place in zip(NAMES, PLACES, strict=True):
        assert f"config.yaml:{place}: " in said.output, (name, said.output)
        assert said.output.count(f'no credential "{name}"') == 1
    assert '"password_credential": there is no credential "five"' in said.output
    assert '"secrets: {KEY}": there is no credential "three"' in said.output
    assert "no-name-of-one" not in said.output
    here.write(*NAMES)
    assert here.check().exit_code == 0, here.check().output


def test_they_are_told_with_the_other_errors(here: Place) -> None:
    """Mending one kind shows no other."""
    here.config.write_text(CONFIG.replace("match:", "mach:").replace("root: .", "rot: ."))
    said = here.check().output
    assert all(f'"{name}"' in said for name in NAMES)
    assert 'unknown key "mach"' in said
    assert 'unknown key "rot"' in said


def test_one_that_is_no_text_is_named(here: Place) -> None:
    """It is there, and of no use."""
    here.write(*NAMES)
    (here.secrets / "four").write_bytes(b"\xff\x00")
    said = here.check()
    assert said.exit_code == os.EX_CONFIG
    assert said.output.count("config.yaml:") == 1
    assert 'the credential "four" cannot be used' in said.output


@pytest.mark.parametrize("text", ["", "\n"])
@pytest.mark.parametrize("with_unit", [False, True])
def test_an_empty_one_is_named(here: Place, text: str, with_unit: bool) -> None:
    """As a file that was made and never filled; a list of tokens may be empty: nobody may look on then."""
    if with_unit:
        here.unit("[Service]\n" + "".join(f"LoadCredential={name}:{here.secrets}/{name}\n" for name in NAMES))
    here.write(*NAMES)
    for name in ("one", "two", "seven"):
        (here.secrets / name).write_text(text)
    said = here.check()
    assert said.exit_code == os.EX_CONFIG
    assert [name for name in NAMES if f'the credential "{name}" is empty' in said.output] == ["one", "seven"]


def test_what_the_unit_gives_is_there_for_the_service(here: Place, tmp_path: Path) -> None:
    """By any of systemd's settings, wherever the drop-in lies; what is taken back is not given."""
    (tmp_path / "x").write_text("x")
    here.drop_in(f"[Service]\nLoadCredential=one:{tmp_path}/x\nSetCredential=two:abc\n", place=1)
    here.unit(
        "[Service]\nLoadCredential=three\nLoadCredentialEncrypted=four:/etc/none\nLoadCredential=five:%h/x\n"
    )
    here.drop_in("[Service]\n# a line\nImportCredential=s*\n[Install]\nLoadCredential=x\n", file="more")
    assert here.lacking() == ["one", "two"]  # the drop-in of the same name in /etc goes before
    here.drop_in(f"[Service]\nLoadCredential=one:{tmp_path}/x\nSetCredential=two:abc\n", place=1, file="far")
    assert here.lacking() == []
    assert here.check().exit_code == 0
    here.drop_in("[Service]\nLoadCredential=\nLoadCredential=seven\n", file="zz")
    assert here.lacking() == ["one", "two", "three", "four", "five"]


def test_a_source_that_is_not_there_is_named(here: Place, tmp_path: Path) -> None:
    """The service would not start."""
    here.unit("[Service]\n" + "".join(f"LoadCredential={name}:{tmp_path}/{name}\n" for name in NAMES))
    for name in NAMES[1:]:
        (tmp_path / name).write_text("a secret of many letters")
    said = here.check()
    assert said.exit_code == os.EX_CONFIG
    assert f"LoadCredential=one:{tmp_path}/one in the unit names a file that is not there" in said.output
    assert f"sudoedit {tmp_path}/one" in said.output
    assert said.output.count("in the unit names") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT, FOR TWO UIDS: left out")
def test_what_lies_beside_is_not_the_services_unless_it_may_read_it(here: Place) -> None:
    """Root's eyes see more: `nobody` is not given what only root may read."""
    here.unit(user="nobody")
    here.write(*NAMES)
    said = here.check()
    assert said.exit_code == os.EX_CONFIG
    assert said.output.count("the service is not given the credential") == len(NAMES)
    assert f"Add LoadCredential=one:{here.secrets}/one to the unit" in said.output
    here.secrets.chmod(0o711)
    for path in here.secrets.iterdir():
        path.chmod(0o604)
    assert "is not given" not in here.check().output


@pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT, FOR TWO UIDS: left out")
@pytest.mark.parametrize("with_unit", [True, False])
def test_a_person_who_cannot_see_them_is_told_so_and_no_more(here: Place, with_unit: bool) -> None:
    """They are there; and who can tell is named."""
    here.write(*NAMES)
    if with_unit:
        here.unit("[Service]\n" + "".join(f"LoadCredential={n}:{here.secrets}/{n}\n" for n in NAMES))
    os.seteuid(60001)
    try:
        said = here.check()
    finally:
        os.seteuid(0)
    assert said.exit_code == 0, said.output
    assert (
        f"60001 may not see: {', '.join(NAMES)}; root can: sudo dittohead --config {here.config} check"
        in said.output
    )


def test_a_unit_that_may_not_be_read_may_give_anything(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said that is not known."""
    here.unit("[Service]\nLoadCredential=one\n")
    real = Path.read_text

    def read(path: Path, **more: str) -> str:
        if path.name == "site.conf":
            raise PermissionError
        return real(path, **more)

    monkeypatch.setattr(Path, "read_text", read)
    assert here.check().exit_code == 0


@pytest.mark.parametrize("name", ["dittohead-lab2.service", "dittohead@.service"])
def test_a_unit_of_another_name_counts_for_its_own_configuration(here: Place, name: str) -> None:
    """A second daemon, or an instance of a template; and another's unit does not."""
    config = str(here.config.parent / "%i.yaml") if "@" in name else ""
    given = "[Service]\n" + "".join(f"SetCredential={one}:x\n" for one in NAMES)
    here.unit(given, name=name, config="/etc/dittohead/config.yaml")
    assert here.lacking() == NAMES
    here.unit(given, name=name, config=config)
    assert here.lacking() == []


def test_within_a_service_what_it_is_given_counts(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose secrets are mounted."""
    given = here.config.parent / "given"
    given.mkdir()
    for name in NAMES:
        (given / name).write_text("x")
    here.unit()
    assert here.lacking() == NAMES
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    assert here.check().exit_code == 0


def test_the_first_line_says_which_file_and_a_note_which_one_the_service_reads(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed in a checkout, which has a config.yaml of its own."""
    installed = here.config.parent / "installed.yaml"
    installed.write_text(CONFIG)
    here.write(*NAMES)
    monkeypatch.setattr("dittohead.cli.advice.INSTALLED", installed)
    monkeypatch.chdir(here.config.parent)
    here.config.chmod(0o644)

    def typed(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["dittohead", *words])
        return CliRunner().invoke(main, words).output

    assert typed("check").startswith(f"reads {here.config}\n")
    assert "the service reads" not in typed("check")
    here.unit(config=str(installed))
    note = f"note: this command reads {here.config}; the service reads {installed}: dittohead --config {installed} "
    assert f"reads {here.config}\n" in typed("check")
    for words in (
        ["check"],
        ["check", "--json"],
        ["status", "--json"],
        ["list"],
        ["reload"],
        ["drop", str(here.config)],
    ):
        assert typed(*words).count(f"{note}{' '.join(words)}\n") == 1
    assert f"{note}check\n" in typed("--config", str(here.config), "check")
    assert "the service reads" not in typed("--config", str(here.config), "list")  # it was chosen
    here.config.write_text("nonsense: 1\n")
    assert note in typed("check")
    assert "the service reads" not in typed("--config", str(installed), "check")
