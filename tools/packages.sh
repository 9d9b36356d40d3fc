# For tools/setup and tools/install: Debian packages, a Python, a virtual environment. Each says what it does, tells
# how far it is, and goes on where an earlier run was broken off. The caller sets `me`, its name in what is said,
# `log`, where the programs' own output goes, and `owner`: "sudo" if the virtual environment is to be root's, else "".
# shellcheck shell=sh disable=SC2086,SC2154,SC2119,SC2120

say() { echo "$me: $*"; }
fail() { echo "$me: $*" >&2; exit 1; }

# during STATUS COMMAND...  Run a command; until it ends, say every ten seconds what the function STATUS prints.
during() {
    status=$1; shift
    (
        exec 9>&- # the lock of tools/setup, which the last sleep would keep
        seconds=0
        while sleep 10 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
            seconds=$((seconds + 10))
            say "... $($status) ($seconds s)"
        done
    ) &
    ticker=$!
    # In the foreground, so that Ctrl-C ends it, and sudo can ask.
    result=0
    "$@" >>"$log" 2>&1 </dev/null || result=$?
    kill "$ticker" 2>/dev/null
    wait "$ticker" 2>/dev/null || :
    return $result
}

# show_log PATTERN  After a failure: the end of the log without the lines that only flood it.
show_log() {
    grep -a -v -E "$1" "$log" | tail -n 25 >&2
}

# become_root WHAT  Find out how root's commands are run, or say what somebody else has to do.
become_root() {
    sudo=
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || fail "sudo is missing, and you are not root. Have root do this, then run it again: $1"
    sudo=sudo
    sudo -n true 2>/dev/null && return
    say "sudo may ask for your password"
    sudo true || fail "sudo does not let you. Have root do this, then run it again: $1"
}

_apt_status() {
    line=$(grep -a -E '^(dlstatus|pmstatus):|^Waiting for cache lock' "$log" | tail -n 1)
    case $line in
        Waiting*) echo "apt-get waits until another program has ended its installation" ;;
        dlstatus*) echo "$line" | sed 's/^dlstatus:[^:]*:\([0-9]*\)[^:]*:\(.*\)/apt-get fetches: \1 %, \2/' ;;
        pmstatus*) echo "$line" | sed 's/^pmstatus:.*:\([0-9][0-9]*\)\.[0-9]*:\(.*\)/apt-get installs: \1 %, \2/' ;;
        *) echo "apt-get reads the lists of packages" ;;
    esac
}

# install_debian PACKAGE...  By apt-get.
install_debian() {
    command -v apt-get >/dev/null ||
        fail "apt-get is missing. Install what these Debian packages hold, then run this again: $*"
    say "will install these Debian packages with apt-get: $*"
    become_root "apt-get install $*"
    if [ -n "$(dpkg --audit 2>/dev/null)" ] || [ -n "$(ls /var/lib/dpkg/updates 2>/dev/null)" ]; then
        say "finishes an installation that was broken off (dpkg --configure -a)"
        during _apt_status $sudo env DEBIAN_FRONTEND=noninteractive dpkg --force-confold --configure -a || :
    fi
    during _apt_status $sudo apt-get -q update ||
        say "apt-get update failed (see $log); goes on with the lists that are there"
    during _apt_status $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get -o APT::Status-Fd=1 -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold \
        -q -y --no-install-recommends --fix-broken install "$@" || {
        show_log '^(dlstatus|pmstatus|Get|Hit):'
        fail "apt-get failed; all that it said is in $log. Run this again when that is mended: it goes on from here"
    }
}

# about_python PROGRAM  Print its version and path, and fail if it does not serve.
about_python() {
    "$1" -I -c 'import sys, venv; print("%d.%d.%d" % sys.version_info[:3], sys.executable); sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# choose_python ONLY...  Take the first that is 3.11 or newer: $PYTHON, the distribution's, others (unless ONLY is
# given); sets `python`, "" if there is none.
choose_python() {
    python=
    if [ -n "${PYTHON:-}" ]; then
        about_python "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not a Python of 3.11 or newer with the module venv"
        python=$PYTHON why="as PYTHON says"
        return
    fi
    # A python3 that is first on PATH may be a private build: slower, and gone when its owner tidies up.
    if about_python /usr/bin/python3 >/dev/null; then
        python=/usr/bin/python3 why="the distribution's"
        return
    fi
    [ "${1:-}" != distribution ] || return 0
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        # Without ensurepip it can make no virtual environment; a package of the distribution's would not help it.
        if about_python "$candidate" >/dev/null && "$candidate" -I -c 'import ensurepip' 2>/dev/null; then
            python=$(command -v "$candidate") why="the first on PATH; /usr/bin/python3 is missing or older than 3.11"
            return
        fi
    done
}

# say_python  Say which Python was taken, why, and which was not.
say_python() {
    other=$(command -v python3 || :)
    passed=
    case $other in
        "" | "$python" | /usr/bin/python3 | /bin/python3) ;;
        *) passed=", not the first on PATH, $other ($(about_python "$other" | cut -d' ' -f1))" ;;
    esac
    say "takes Python $(about_python "$python" | cut -d' ' -f1), $python: $why$passed"
}

# fault_of_venv DIR  Print why a virtual environment cannot be used; nothing if it can.
fault_of_venv() {
    [ ! -e "$1/.making" ] || { echo "its making was broken off"; return; }
    "$1/bin/python" -I - 2>/dev/null <<'END' || echo "its Python does not start"
import os, sys, sysconfig

here = "%d.%d" % sys.version_info[:2]
with open(os.path.join(sys.prefix, "pyvenv.cfg")) as file:
    made = dict(line.strip().split(" = ", 1) for line in file if " = " in line)
version = ".".join(made.get("version", made.get("version_info", here)).split(".")[:2])
place = made.get("command", "").partition(" -m venv ")[2]
if sys.version_info < (3, 11):
    print("its Python is " + here)
elif version != here:
    print("it was made by Python %s, which is %s now" % (version, here))
elif place.startswith("/") and not (os.path.exists(place) and os.path.samefile(place, sys.prefix)):
    print("it was made in another place, " + place)
elif not os.path.exists(os.path.join(sysconfig.get_path("purelib"), "pip", "__main__.py")):
    print("it has no pip")
END
}

# make_venv DIR  A virtual environment of `python`; one that is there is kept if it can be used.
make_venv() {
    if [ -e "$1/pyvenv.cfg" ] || [ -e "$1/.making" ]; then
        fault=$(fault_of_venv "$1")
        if [ -z "$fault" ]; then
            base=$("$1/bin/python" -I -c 'import os, sys; print(os.path.realpath(sys.executable))')
            [ "$base" = "$(realpath "$(about_python "$python" | cut -d' ' -f2-)")" ] ||
                say "keeps $1, which another Python made: $base ($(about_python "$1/bin/python" | cut -d' ' -f1)). For a new one, remove $1"
            return 0
        fi
        say "makes $1 again: $fault"
        $owner rm -rf "$1"
    elif [ -d "$1" ] && [ -n "$(ls -A "$1")" ]; then
        fail "$1 is there, and is not a virtual environment. Remove it, or name another directory"
    fi
    $owner mkdir -p "$1"
    $owner touch "$1/.making"
    during _venv_status $owner "$python" -m venv "$1" || {
        show_log '^$'
        fail "$python could not make the virtual environment $1; see above"
    }
    $owner rm "$1/.making"
}
_venv_status() { echo "a virtual environment is being made"; }

_pip_status() {
    total=$(grep -a '^Installing collected packages:' "$log" | tail -n 1 | tr -cd , | wc -c)
    there=$(($(_installed) - before))
    fetched=$(grep -a -c '^Collecting ' "$log" || :)
    if [ "$total" -eq 0 ] && [ "$fetched" -eq 0 ]; then
        echo "pip looks what is there"
    elif [ "$total" -eq 0 ]; then
        echo "pip looks up and fetches: $fetched packages so far"
    elif [ "$there" -le "$total" ]; then
        echo "pip installs: $there of $((total + 1)) packages"
    else
        echo "pip installs the last package"
    fi
}
_installed() { find "$into"/lib/python3*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l; }

# install_python DIR WHAT...  Install Python packages into the virtual environment DIR, by pip with requirements.txt.
install_python() {
    into=$1; shift
    if [ -e "$into/.installing" ]; then
        say "goes on with an installation that was broken off"
        # pip calls a package installed whose files it had not all written.
        $owner "$into/bin/python" -I - <<'END'
import csv, pathlib, shutil, sysconfig

site = pathlib.Path(sysconfig.get_path("purelib"))
for info in site.glob("*.dist-info"):
    try:
        rows = list(csv.reader((info / "RECORD").open(newline="")))
        whole = bool(rows) and all((site / row[0]).stat().st_size == int(row[2]) for row in rows if row[2])
    except (OSError, ValueError, IndexError):
        whole = False
    if not whole:
        shutil.rmtree(info)
END
    fi
    $owner touch "$into/.installing"
    before=$(_installed)
    during _pip_status $owner "$into/bin/python" -m pip install --no-color --progress-bar off --disable-pip-version-check \
        -c requirements.txt "$@" || {
        show_log '^(WARNING: (Location|The candidate|Retrying)|Collecting|Looking in| |Requirement already)'
        fail "pip failed; all that it said is in $log. Run this again when that is mended: it goes on from here"
    }
    $owner rm "$into/.installing"
}
