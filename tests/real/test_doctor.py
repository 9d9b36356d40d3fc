"""`dittohead doctor` sees what a delivery would see: the running daemon looks, not the shell that asks."""

from __future__ import annotations

from pathlib import Path

from tests.support.daemon import Site

CONFIG = """
root: .
pipelines:
  scans: {match: "lab-.*", steps: [{command: {argv: ["true"], secrets: {S: only-the-daemon-has-it}}}]}
http: {listen: "{socket}", tokens: people}
"""


def test_the_daemon_looks_with_its_own_credentials(tmp_path: Path) -> None:
    """As under systemd's LoadCredential=, which no shell sees; without it the command says whose eyes it has."""
    site = Site(tmp_path / "root", CONFIG.replace("{socket}", str(tmp_path / "s")))
    given = tmp_path / "given"
    given.mkdir()
    (given / "people").write_text("reader alice 0123456789abcdefghijklmn\n")
    mine = site.env
    site.env = mine | {"CREDENTIALS_DIRECTORY": str(given)}
    site.start()
    site.env = mine
    try:
        found = site.run("doctor", check=False)
        assert "the running daemon looked" in found.stdout
        assert "1 token" in found.stdout
        assert "there is no credential" not in found.stdout
    finally:
        site.stop()
    alone = site.run("doctor", check=False)
    assert "; looked as " in alone.stdout
    assert 'there is no credential "people"' in alone.stdout
    assert alone.returncode == 65
