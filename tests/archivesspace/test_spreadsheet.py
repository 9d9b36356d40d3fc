"""Lists as spreadsheet programs save them, and names that look alike."""

from __future__ import annotations

import unicodedata

import pytest

from dittohead.workers.archivesspace.spreadsheet import Present, UnreadableSheet, rows

WANTED = ("file", "component_id")
ONE = [(2, {"file": "a.tif", "component_id": "X_1"})]


@pytest.mark.parametrize(
    "data",
    [
        b"file,component_id\na.tif,X_1\n",
        b"file;component_id\r\na.tif;X_1\r\n",
        b"file\tcomponent_id\na.tif\tX_1",
        b"\xef\xbb\xbfFile,Component_ID\na.tif,X_1\n",
        b" file , title,component_id \na.tif,\"Letters, 1887\",X_1\n",
        b"title;file;component_id\n\"a;b\";a.tif;X_1\n",
        "file\tcomponent_id\r\na.tif\tX_1\r\n".encode("utf-16"),
        "file;component_id\na.tif;X_1\n".encode("utf-16-be").join([b"\xfe\xff", b""]),
    ],
)  # fmt: skip
def test_what_spreadsheets_save_is_read(data: bytes) -> None:
    """Commas, semicolons, tabs; UTF-8 with and without its mark, UTF-16; capitals; further columns."""
    assert list(rows(data, WANTED)) == ONE


def test_a_first_line_that_says_the_separator_counts_as_a_line() -> None:
    """Excel's own."""
    assert list(rows(b"sep=;\nfile;component_id\na.tif;X_1\n", WANTED)) == [(3, ONE[0][1])]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", 'must name the columns file and component_id; it is ""'),
        (b"name;id\na;b\n", 'it is "name;id"'),
        (b"file,component_id,FILE\na,b,c\n", "names the column file twice"),
        (b'file,component_id\na.tif,"X\n', "line 2: unexpected end of data"),
        (b"file,component_id\n\xff,X\n", "it is not UTF-8"),
        (b"\xff\xfef", "it is not UTF-8"),
    ],
)
def test_what_is_no_such_list_is_said(data: bytes, words: str) -> None:
    """With the line, and with what stands there instead."""
    with pytest.raises(UnreadableSheet, match=words):
        list(rows(data, WANTED))


def test_a_name_means_the_file_that_is_the_same_in_another_form() -> None:
    """Normal forms (macOS), backslashes (Windows); never one of two, never another in capitals."""
    nfc, nfd = "Zürich.tif", unicodedata.normalize("NFD", "Zürich.tif")
    assert Present([nfd]).meant(nfc) == nfd
    assert Present([nfc]).meant(nfd) == nfc
    assert Present([nfc, nfd]).meant(nfc) == nfc
    assert Present([nfc, nfd]).meant(nfd) == nfd
    assert Present(["sub/a.tif"]).meant("sub\\a.tif") == "sub/a.tif"
    assert Present(["a\\b.tif", "a/b.tif"]).meant("a\\b.tif") == "a\\b.tif"
    assert Present(["A.tif"]).meant("a.tif") is None
    assert Present(["b.tif"]).meant("a.tif") is None


@pytest.mark.parametrize(
    ("listed", "there", "words"),
    [
        ("a.tif", "A.TIF", "a.tif (the folder holds A.TIF)"),
        ("a b.tif", "a\N{NO-BREAK SPACE}b.tif", "a b.tif (the folder holds a<U+00A0>b.tif)"),
        ("a b.tif", "a  b.tif", 'a b.tif (the folder holds "a  b.tif")'),
        ("ab.tif", "a\N{ZERO WIDTH SPACE}b.tif", "ab.tif (the folder holds a<U+200B>b.tif)"),
        ("a.tif", "b.tif", "a.tif"),
    ],
)
def test_names_that_look_alike_are_shown_so_that_the_eye_can_tell(
    listed: str, there: str, words: str
) -> None:
    """They are two files for a computer."""
    present = Present([there])
    assert present.meant(listed) is None
    assert present.missing(listed) == words
