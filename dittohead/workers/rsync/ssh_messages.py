"""What ssh, a far account's shell and rsync print when a delivery fails: what it means and what helps.

One table. Programs print the cause first, the symptom after it, and warnings around both: so a
saying is searched for in everything that was printed, in the order of the table, causes before symptoms.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dittohead.model.errors import ItemError, StepError, TargetError

#: What is quoted of a line that somebody else's program has printed, characters.
_QUOTED = 300


@dataclass(frozen=True, kw_only=True)
class DeliveryPlace:
    """Where a delivery goes and how: what a cure has to name."""

    where: str  #: the target as people know it
    again: str = ""  #: the command that tries the step again
    login: str = ""  #: user@host as in the configuration; "" for a local target
    path: str = ""  #: the folder there
    port: int | None = None
    identity: str = ""  #: the key's file; "" for ssh's own defaults
    known_hosts: str = ""  #: the file of hosts' keys; "" for ssh's own

    def values(self) -> dict[str, str]:
        """Return what the texts of the table may name."""
        me = pwd.getpwuid(os.geteuid())
        host = self.login.rpartition("@")[2].strip("[]")
        known = self.known_hosts or f"{me.pw_dir}/.ssh/known_hosts"
        key = self.identity or f"{me.pw_dir}/.ssh/id_ed25519"
        port = f"-p {self.port} " if self.port else ""
        identity = f"-i {shlex.quote(self.identity)} " if self.identity else ""
        hosts = (
            shlex.join(["-o", f'UserKnownHostsFile="{self.known_hosts}"']) + " " if self.known_hosts else ""
        )
        return {
            "scan": f"ssh-keyscan {port}{shlex.quote(host)}",
            "ssh": f"sudo -u {me.pw_name} ssh {port}{identity}{hosts}{shlex.quote(self.login)}",
            "me": me.pw_name,
            "host": host,
            "login": self.login,
            "path": self.path,
            "key": shlex.quote(key),
            "known": shlex.quote(known),
            "again": self.again,
        }


@dataclass(frozen=True, kw_only=True)
class Saying:
    """Lines that mean something. All of `lines` have to be there; their groups fill the texts."""

    lines: tuple[re.Pattern[str], ...]
    meaning: str
    cure: str
    kind: type[StepError] = TargetError
    telling: int = 0  #: which of the lines is quoted


def _saying(
    *lines: str, meaning: str, cure: str, kind: type[StepError] = TargetError, telling: int = 0
) -> Saying:
    patterns = tuple(re.compile(line) for line in lines)
    return Saying(lines=patterns, meaning=meaning, cure=cure, kind=kind, telling=telling)


#: ssh's last word when no key was good enough; why not is said before.
_NO_KEY = r"\S+: Permission denied \((?P<ways>[a-z0-9,-]+)\)\."
_CONNECT = r"ssh: connect to host \S+ port (?P<port>\d+): "
_SHELL = r"(?:[\w./-]+: )?(?:line )?(?:\d+: )?(?:exec: )?"

#: Whole lines: rsync's own may hold any name. Source: OpenSSH's sshconnect.c, sshconnect2.c, sshkey.c,
#: authfile.c and packet.c; rsync's rrsync and compat.c; tests/test_ssh_messages.py has printed each.
SSH: tuple[Saying, ...] = (
    _saying(
        r"Offending \S+ key in (?P<file>.+):(?P<line>\d+)",
        r"(?P<print>SHA256:\S+)\.",
        r"Host key for (?P<who>.+) has changed and you have requested strict checking\.",
        meaning="the host's key has changed: it is not the one in {file}, line {line}; somebody else may be "
        "answering",
        cure="Ask who runs {host} whether its key was changed to {print}. If so: `{run} ssh-keygen -R "
        "'{who}' -f '{file}' && {scan} | {run} tee -a '{file}'`",
        telling=2,
    ),
    _saying(
        r"No (?P<type>\S+) host key is known for (?P<who>.+) and you have requested strict checking\.",
        meaning="the host's key is not known here",
        cure="Compare the fingerprints with those at the host: `{scan} | ssh-keygen -lf -`. Then: `{scan} | "
        "sudo -u {me} tee -a {known}`",
    ),
    _saying(
        r"Host key verification failed\.",
        meaning="the host's key is not the known one",
        cure="Compare the fingerprints with those at the host: `{scan} | ssh-keygen -lf -`. Then correct "
        "{known}",
    ),
    _saying(
        r"Permissions (?P<mode>\d+) for '(?P<file>.+)' are too open\.",
        _NO_KEY,
        meaning="ssh does not use the key {file}: others may read it (mode {mode})",
        cure="`sudo chmod 600 '{file}'`",
    ),
    _saying(
        r"(?:Warning: Identity file |no such identity: )(?P<file>.+?)(?: not accessible)?: No such file or "
        r"directory\.?",
        _NO_KEY,
        meaning="the key {file} does not exist",
        cure="Correct `identity`; or make it: `sudo -u {me} ssh-keygen -t ed25519 -N '' -f '{file}'`, and "
        "put {file}.pub into ~/.ssh/authorized_keys of {login}",
    ),
    _saying(
        r"(?:Warning: Identity file |Load key \"|no such identity: )(?P<file>.+?)(?:\"| not accessible)?: "
        r"Permission denied\.?",
        _NO_KEY,
        meaning="{me} may not read the key {file}",
        cure="`sudo chown {me} '{file}' && sudo chmod 600 '{file}'`",
    ),
    _saying(
        r"Load key \"(?P<file>.+)\": incorrect passphrase supplied to decrypt private key",
        _NO_KEY,
        meaning="the key {file} has a passphrase, which nobody is there to type",
        cure="Make one without: `sudo -u {me} ssh-keygen -t ed25519 -N '' -f '{file}.new'`",
    ),
    _saying(
        r"Load key \"(?P<file>.+)\": (?P<words>error in libcrypto|invalid format|.+)",
        _NO_KEY,
        meaning="{file} cannot be used as a private key ({words})",
        cure="See that it is the private key, whole, not the .pub: `sudo -u {me} ssh-keygen -y -f '{file}'`",
    ),
    _saying(
        r"Bad owner or permissions on (?P<file>.+)",
        meaning="ssh refuses its own file {file}: others may change it",
        cure="`sudo chown {me} '{file}' && sudo chmod 600 '{file}'`",
    ),
    _saying(
        r"Received disconnect from \S+ port \d+:\d+: (?P<words>Too many authentication failures)",
        meaning="the host refuses us: too many keys were offered",
        cure="Name one key in the step: ssh: {{identity: FILE}}",
    ),
    _saying(
        _NO_KEY,
        meaning="the host refuses our key",
        cure="Add the line that `sudo -u {me} ssh-keygen -y -P '' -f {key}` prints to ~/.ssh/authorized_keys "
        "of {login}; where it asks for a passphrase, make a key without; where it is there already, look at "
        "that host's log of sshd: an account that is closed, or a home that others may write",
    ),
    _saying(
        r"ssh: Could not resolve hostname (?P<who>.+): (?P<words>.+)",
        meaning="the name {who} is not known",
        cure="Correct the host in `to`; or see why the name is not found: `getent hosts {host}`",
    ),
    _saying(
        _CONNECT + r"Connection refused",
        meaning="the host refuses connections at port {port}",
        cure="See that sshd runs there, and at which port; where the port is another: ssh: {{port: N}}",
    ),
    _saying(
        _CONNECT + r"(?P<words>Connection timed out|Operation timed out)",
        meaning="the host does not answer at port {port}",
        cure="See that it runs, and that no firewall is between: `ping {host}`",
    ),
    _saying(
        r"(?:Connection timed out during banner exchange|Connection to \S+ port (?:\d+) timed out"
        r"|Timeout, server \S+ not responding\.)",
        meaning="the host does not answer any more",
        cure="See that it runs and is not overloaded",
    ),
    _saying(
        _CONNECT + r"(?P<words>.+)",
        meaning="the host cannot be reached ({words})",
        cure="See that the network leads there: `ping {host}`",
    ),
    _saying(
        r"Unable to negotiate with \S+ port \d+: (?P<words>.+?)(?:\. Their offer: .*)?",
        meaning="ssh here and sshd there have nothing in common ({words})",
        cure="Update the older of the two",
    ),
    _saying(
        r"(?:kex_exchange_identification|ssh_exchange_identification|banner exchange): .+",
        meaning="the host closed the connection before any login",
        cure="See its log of sshd: too many connections (MaxStartups), or this address is blocked "
        "(PerSourcePenalties, fail2ban)",
    ),
    _saying(
        r"Received disconnect from \S+ port \d+:\d+: (?P<words>.+)",
        meaning="the host ended the connection ({words})",
        cure="See its log of sshd",
    ),
    _saying(
        r"Connection (?:closed|reset) by \S+ port \d+",
        meaning="the host closed the connection",
        cure="See its log of sshd: the account may be closed",
    ),
)

#: What the account there says, when ssh was let in.
ACCOUNT: tuple[Saying, ...] = (
    _saying(
        r"\S*rrsync error: option -s has been disabled on this server\.",
        meaning="the account is restricted to rrsync, which forbids rsync's option -s, and so any delivery",
        # With -s rrsync could check nothing: to allow it there would be no restriction, and look like one.
        cure="At {host}, take command=... out of the key's line in ~/.ssh/authorized_keys, and limit the "
        "account by the rights of its folders",
    ),
    _saying(
        r"\S*rrsync error: (?P<words>sending to read-only server is not allowed)",
        meaning="rrsync lets the account read there, not write",
        cure="At {host}, take -ro out of the key's line in ~/.ssh/authorized_keys",
    ),
    _saying(
        r"\S*rrsync error: (?P<words>option \S+ has been disabled on this server\.)",
        meaning="rrsync, to which the account is restricted, refuses a setting of this step",
        cure="Take the setting out of the step; or let rrsync pass it at {host}",
    ),
    _saying(
        r"\S*rrsync error: (?P<words>.+)",
        meaning="rrsync, to which the account is restricted, refuses what is asked",
        cure="See the key's line in ~/.ssh/authorized_keys of {login}",
    ),
    _saying(
        r"This account is currently not available\.",
        meaning="the account is closed: it has no shell to log in with (nologin)",
        cure="At {host}: `sudo usermod -s /bin/sh {user}`",
    ),
    _saying(
        r"This service allows sftp connections only\.",
        meaning="the account may only use sftp, not rsync",
        cure="At {host}, take ForceCommand internal-sftp from this account; or use another account",
    ),
    _saying(
        r"(?:Your|Sorry, your|This) account (?:has expired|is locked).*|.*[Uu]nprivileged users are not "
        r"permitted to log in.*",
        meaning="the host lets this account in no more",
        cure="Ask who runs {host}",
    ),
    _saying(
        _SHELL + r"[^:\"]*rsync[^:\"/]*: (?:[Cc]ommand not found\.?|not found|No such file or directory"
        r"|[Pp]ermission denied)|(?:zsh:\d+: |fish: )(?:[Cc]ommand not found|[Uu]nknown command): "
        r"\S*rsync\S*",
        meaning="rsync is not installed there, or not where it is searched for",
        cure="At {host}: `sudo apt-get install rsync`; or set rsync_path to where it lies",
    ),
    _saying(
        r"rsync: on remote machine: (?P<option>-\S+): unknown option",
        meaning="the rsync there is too old for {option}",
        cure="Update rsync at {host}; or take the setting out of the step, have the daemon read config.yaml "
        "again, then: `{rerun}`",
        kind=ItemError,
    ),
    _saying(
        r"rsync: (?P<option>-\S+): unknown option",
        meaning="the rsync here is too old for {option}",
        cure="`sudo apt-get install rsync`; or take the setting out of the step, have the daemon read "
        "config.yaml again, then: `{rerun}`",
        kind=ItemError,
    ),
    _saying(
        r"protocol version mismatch -- is your shell clean\?",
        meaning="the account prints something at login, which spoils the exchange with rsync",
        cure="See what: `{ssh} true`. Then take it out of ~/.bashrc, ~/.profile or the key's command there",
    ),
)


def lines_of(said: bytes) -> list[str]:
    """Return the lines of what a program printed, without blank ones."""
    return [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]


def explained(
    lines: Sequence[str], way: DeliveryPlace, table: Iterable[Saying] = (*SSH, *ACCOUNT)
) -> StepError | None:
    """Return the error for the first saying of the table that was printed; None when none was.

    Args:
        lines: what ssh, the account or rsync printed.
        way: the place of the delivery, named in what helps.
        table: sayings in the order in which they are tried.
    """
    for saying in table:
        found = [_first(pattern, lines) for pattern in saying.lines]
        if all(match is not None for match in found):
            groups = {key: text for match in found if match for key, text in match.groupdict("").items()}
            quoted = found[saying.telling]
            return _error(saying, groups, quoted[0] if quoted else "", way)
    return None


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> re.Match[str] | None:
    return next((match for line in lines if (match := pattern.fullmatch(line))), None)


def _error(saying: Saying, groups: dict[str, str], quoted: str, way: DeliveryPlace) -> StepError:
    values = way.values()
    user = way.login.rpartition("@")[0] or values["me"]
    # ssh-keygen writes the file again: it must stay its owner's.
    run = "sudo" if groups.get("file", "").startswith("/etc/") else f"sudo -u {values['me']}"
    values |= {"user": user, "run": run, "rerun": way.again.replace("retry", "rerun"), **groups}
    meaning, cure = saying.meaning.format_map(values), saying.cure.format_map(values)
    if saying.kind is TargetError:
        cure += "; work goes on by itself"
    return saying.kind(f"{meaning} ({shown(quoted)})", where=way.where, hint=cure)


def shown(line: str) -> str:
    """Return a line of somebody else's program, as much as is shown of it."""
    return line.rstrip(".")[:_QUOTED]


def account_says(returncode: int, stdout: bytes, stderr: bytes, way: DeliveryPlace) -> StepError | None:
    """Return what is wrong with an account that was asked to run `true`; None: nothing, or it is not known.

    A closed account says so where rsync expects rsync's own words, so that nobody sees it.

    Args:
        returncode: exit status of ssh.
        stdout, stderr: all that ssh printed.
        way: the place of the delivery, named in what helps.
    """
    printed, complained = lines_of(stdout), lines_of(stderr)
    known = explained([*printed, *complained], way)
    if known is not None:
        return known
    values = way.values()
    if printed:
        return TargetError(
            "the account prints something at login, which spoils the exchange with rsync "
            f"({shown(printed[0])})",
            where=way.where,
            hint=f"See all of it: `{values['ssh']} true`. Then take it out of ~/.bashrc, ~/.profile or the "
            "key's command there; work goes on by itself",
        )
    if returncode != 0:
        return TargetError(
            f"the account there runs no commands (it ended with status {returncode})",
            where=way.where,
            hint=f"See for yourself: `{values['ssh']} true`. Then give the account a shell, or correct the "
            "key's command; work goes on by itself",
        )
    return None
