"""Write a JPEG 2000 codestream tile by tile by libopenjp2, which libvips brings along.

libvips' jp2ksave has no option for the progression, precincts and PLT; opj_compress has, and keeps
the whole image in memory as numbers of 32 bits. libopenjp2 itself takes tiles one by one.

Spoken to by cffi's ABI mode, as pyvips speaks to libvips: no compiler, no callback (see library.py).

Source: openjpeg.h 2.5; its soname (7) stands for these structures.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from dataclasses import dataclass
from functools import cache
from typing import Any

import cffi
import numpy as np
from numpy.typing import NDArray

from dittohead.toolkit.images.reasons import RefusedImage

#: Names the library may have, the one that the structures were read for first. One of another number is
#: loaded only when it says that it is of version 2, whose structures these are.
_SONAMES = ("libopenjp2.so.7", "libopenjp2.so")

#: What to do where there is none that fits.
MISSING = "libopenjp2 2.x is missing; on Debian: apt-get install libopenjp2-7"

_HEADER = """
typedef struct {
    uint32_t resno0, compno0, layno1, resno1, compno1, layno0, precno0, precno1;
    int prg1, prg;
    char progorder[5];
    uint32_t tile, tx0, tx1, ty0, ty1, layS, resS, compS, prcS, layE, resE, compE, prcE;
    uint32_t txS, txE, tyS, tyE, dx, dy, lay_t, res_t, comp_t, prc_t, tx0_t, ty0_t;
} opj_poc_t;
typedef struct {
    int tile_size_on, cp_tx0, cp_ty0, cp_tdx, cp_tdy;
    int cp_disto_alloc, cp_fixed_alloc, cp_fixed_quality, *cp_matrice;
    char *cp_comment;
    int csty, prog_order;
    opj_poc_t POC[32];
    uint32_t numpocs;
    int tcp_numlayers;
    float tcp_rates[100], tcp_distoratio[100];
    int numresolution, cblockw_init, cblockh_init, mode, irreversible, roi_compno, roi_shift;
    int res_spec, prcw_init[33], prch_init[33];
    char infile[4096], outfile[4096];
    int index_on;
    char index[4096];
    int image_offset_x0, image_offset_y0, subsampling_dx, subsampling_dy, decod_format, cod_format;
    int jpwl_epc_on, jpwl_hprot_MH, jpwl_hprot_TPH_tileno[16], jpwl_hprot_TPH[16];
    int jpwl_pprot_tileno[16], jpwl_pprot_packno[16], jpwl_pprot[16];
    int jpwl_sens_size, jpwl_sens_addr, jpwl_sens_range, jpwl_sens_MH;
    int jpwl_sens_TPH_tileno[16], jpwl_sens_TPH[16];
    int cp_cinema, max_comp_size, cp_rsiz;
    char tp_on, tp_flag, tcp_mct;
    int jpip_on;
    void *mct_data;
    int max_cs_size;
    uint16_t rsiz;
} opj_cparameters_t;
typedef struct {
    uint32_t x0, y0, x1, y1, numcomps;
    int color_space;
    void *comps;
    uint8_t *icc_profile_buf;
    uint32_t icc_profile_len;
} opj_image_t;
typedef struct { uint32_t dx, dy, w, h, x0, y0, prec, bpp, sgnd; } opj_image_cmptparm_t;
typedef struct opj_codec opj_codec_t;
typedef struct opj_stream opj_stream_t;
const char *opj_version(void);
opj_codec_t *opj_create_compress(int format);
void opj_set_default_encoder_parameters(opj_cparameters_t *);
opj_image_t *opj_image_tile_create(uint32_t, opj_image_cmptparm_t *, int);
int opj_setup_encoder(opj_codec_t *, opj_cparameters_t *, opj_image_t *);
int opj_encoder_set_extra_options(opj_codec_t *, const char *const *);
int opj_set_error_handler(opj_codec_t *, void *, void *);
opj_stream_t *opj_stream_create_default_file_stream(const char *, int);
int opj_start_compress(opj_codec_t *, opj_image_t *, opj_stream_t *);
int opj_write_tile(opj_codec_t *, uint32_t, const void *, uint32_t, opj_stream_t *);
int opj_end_compress(opj_codec_t *, opj_stream_t *);
void opj_stream_destroy(opj_stream_t *);
void opj_destroy_codec(opj_codec_t *);
void opj_image_destroy(opj_image_t *);
int fputs(const char *, void *);
extern void *stderr;
"""

#: OPJ_CODEC_J2K, OPJ_RPCL, OPJ_CLRSPC_UNSPECIFIED (the boxes say which colours they are).
_CODESTREAM, _RPCL, _UNSPECIFIED = 0, 2, 0

#: The tile-parts that one TLM segment of OpenJPEG's holds, and it writes one.
_TLM_MOST = 10_921

#: ISO/IEC 15444-1 A.4.2: the number of a tile has 16 bits.
_TILES_MOST = 65_535

#: Bytes that must still fit where writing has failed, or the disk is the reason.
_ROOM = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class CodestreamProfile:
    """How a codestream is laid out; always 5-3 reversible, RPCL, one layer, one tile-part a tile, PLT.

    RPCL with precincts and PLT lets a reader fetch one region at one size without reading the rest;
    tiles bound the memory of the one who writes or reads it.
    """

    tile: int = 1024  #: width and height, pixels
    levels: int = 5  #: decompositions: the smallest size is a thirty-second
    #: width and height, of the largest resolution first
    precincts: tuple[int, ...] = (256, 256, 128, 128, 128, 128)
    block: int = 64  #: width and height of a code block


def _names() -> Iterator[str]:
    yield from _SONAMES
    if found := find_library("openjp2"):  # starts programs: last
        yield found


class _Library:
    """libopenjp2."""

    def __init__(self) -> None:
        self.ffi = cffi.FFI()
        self.ffi.cdef(_HEADER)
        self.opj = self._loaded()
        self._libc = self.ffi.dlopen(None)
        #: what prints an error, where `Overheard` finds it: fputs takes what a handler is given
        self.say = self.ffi.cast("void *", self._libc.fputs), self._libc.stderr

    def _loaded(self) -> Any:
        for name in _names():
            try:
                library = self.ffi.dlopen(name)
                said = self.ffi.string(library.opj_version())
            except (OSError, AttributeError):  # not there, or not this library
                continue
            if said.startswith(b"2."):
                return library
        raise OSError(errno.ENOENT, MISSING)


@cache
def _library() -> _Library:
    return _Library()


def version() -> tuple[str, str]:
    """Return the version of libopenjp2 and ""; where there is none that fits, "" and what helps."""
    try:
        found = _library()
    except OSError as error:
        return "", error.strerror or str(error)
    return str(found.ffi.string(found.opj.opj_version()).decode()), ""


def tiles_of(width: int, height: int, tile: int) -> int:
    """Return how many tiles an image has.

    Args:
        width, height: the image's size in pixels.
        tile: length of a tile's sides in pixels.
    """
    return -(-width // tile) * -(-height // tile)


def encode(
    rows: Callable[[int, int], NDArray[Any]],
    shape: tuple[int, int, int],
    bits: int,
    fd: int,
    profile: CodestreamProfile,
) -> None:
    """Write an image's codestream to an open file, which is emptied first.

    Memory: one row of tiles as samples, and one tile as numbers of 32 bits.

    Args:
        rows: gives so many rows from one on, as (height, width, bands) of unsigned numbers; called once
            for each row of tiles, from top to bottom.
        shape: height, width, bands; 3 and more begin with red, green and blue.
        bits: of a sample, 8 or 16.
        fd: a regular file, open for writing.
        profile: how.

    Raises:
        OSError: the disk takes no more.
        RefusedImage: libopenjp2 cannot write it.
    """
    height, width, _ = shape
    if tiles_of(width, height, profile.tile) > _TILES_MOST:
        raise RefusedImage(f"{width}x{height} are more than {_TILES_MOST} tiles; set a larger tile")
    library = _library()
    with _Encoder(library, shape, bits, fd, profile) as encoder:
        index = 0
        for top in range(0, height, profile.tile):
            band = rows(top, min(profile.tile, height - top))
            for left in range(0, width, profile.tile):
                encoder.write(index, band[:, left : left + profile.tile])
                index += 1
        encoder.end()


class _Encoder:
    """One codestream that is being written."""

    def __init__(
        self, library: _Library, shape: tuple[int, int, int], bits: int, fd: int, profile: CodestreamProfile
    ) -> None:
        self._library, self._fd, self._shape, self._bits, self._profile = library, fd, shape, bits, profile
        self._codec = self._image = self._stream = library.ffi.NULL

    def __enter__(self) -> _Encoder:
        opj, ffi = self._library.opj, self._library.ffi
        height, width, _ = self._shape
        self._codec = opj.opj_create_compress(_CODESTREAM)
        opj.opj_set_error_handler(self._codec, *self._library.say)
        self._image = self._new_image()
        try:
            given = self._parameters()
            self._see(opj.opj_setup_encoder(self._codec, given, self._image))
            tiles = tiles_of(width, height, self._profile.tile)
            said = [b"PLT=YES", *([b"TLM=YES"] if tiles <= _TLM_MOST else [])]
            kept = [ffi.new("char[]", word) for word in said]
            words = ffi.new("char *[]", [*kept, ffi.NULL])
            self._see(opj.opj_encoder_set_extra_options(self._codec, words))
            self._stream = opj.opj_stream_create_default_file_stream(f"/proc/self/fd/{self._fd}".encode(), 0)
            self._see(self._stream != ffi.NULL)
            self._see(opj.opj_start_compress(self._codec, self._image, self._stream))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        opj, ffi = self._library.opj, self._library.ffi
        for thing, destroy in (
            (self._stream, opj.opj_stream_destroy),
            (self._codec, opj.opj_destroy_codec),
            (self._image, opj.opj_image_destroy),
        ):
            if thing != ffi.NULL:
                destroy(thing)

    def _new_image(self) -> Any:
        height, width, bands = self._shape
        components = self._library.ffi.new("opj_image_cmptparm_t[]", bands)
        for component in components:
            component.dx = component.dy = 1
            component.w, component.h, component.prec = width, height, self._bits
        image = self._library.opj.opj_image_tile_create(bands, components, _UNSPECIFIED)
        image.x1, image.y1 = width, height
        return image

    def _parameters(self) -> Any:
        profile = self._profile
        given = self._library.ffi.new("opj_cparameters_t *")
        self._library.opj.opj_set_default_encoder_parameters(given)
        given.tile_size_on, given.cp_tdx, given.cp_tdy = 1, profile.tile, profile.tile
        given.tcp_numlayers, given.cp_disto_alloc = 1, 1
        given.tcp_rates[0] = 0  # no bound
        given.irreversible = 0
        given.prog_order = _RPCL
        given.numresolution = profile.levels + 1
        given.cblockw_init = given.cblockh_init = profile.block
        given.csty |= 1  # precincts
        given.res_spec = len(profile.precincts)
        for place, side in enumerate(profile.precincts):
            given.prcw_init[place] = given.prch_init[place] = side
        given.tcp_mct = b"\1" if self._shape[2] >= 3 else b"\0"
        return given

    def write(self, index: int, tile: NDArray[Any]) -> None:
        """Write the next tile, of (height, width, bands)."""
        data = np.ascontiguousarray(tile.transpose(2, 0, 1))
        buffer = self._library.ffi.from_buffer(data)
        self._see(self._library.opj.opj_write_tile(self._codec, index, buffer, data.nbytes, self._stream))

    def end(self) -> None:
        """Write what comes last; after this the file is whole but for its buffers."""
        opj, ffi = self._library.opj, self._library.ffi
        self._see(opj.opj_end_compress(self._codec, self._stream))
        # It is fclose that writes the last of it, and says nothing; the reader of the structure sees it.
        opj.opj_stream_destroy(self._stream)
        self._stream = ffi.NULL

    def _see(self, done: Any) -> None:
        """See that a call has succeeded; it does not say why not. Raises: OSError, RefusedImage."""
        if not done:
            os.posix_fallocate(self._fd, os.fstat(self._fd).st_size, _ROOM)
            raise RefusedImage("libopenjp2 cannot write it; the step's log has its words")
