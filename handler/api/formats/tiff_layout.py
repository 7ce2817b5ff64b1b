"""How a page of a TIFF lays out its samples. What is not interpreted is refused here, by its name."""

from dataclasses import dataclass

from handler.api.formats.directory import Directory
from handler.api.formats.picture import corrupt, unsupported

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, CHANNELS, ROWS = 256, 257, 258, 259, 262, 266, 277, 278
MAX_VALUE, PLANES, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, INK_SET, DOT_RANGE = 281, 284, 317, 322, 323, 332, 336
EXTRA_SAMPLES, SAMPLE_FORMAT, SIGNED_MAX_VALUE, SUBSAMPLING = 338, 339, 341, 530

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, INDEXED, MASK, SEPARATED, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 4, 5, 6, 8, 9
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, INDEXED: 1, SEPARATED: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
OTHER_PHOTOMETRICS = {
    MASK: "a transparency mask",
    10: "ITULab",
    32803: "a colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
RAW, LZW, JPEG = 1, 5, 7
CCITT = (2, 3, 4)
# Decompressed to bytes by libtiff: LZW, deflate (two codes), PackBits, LZMA, Zstandard.
BYTE_CODECS = (LZW, 8, 32946, 32773, 34925, 50000)
OTHER_COMPRESSIONS = {
    6: "old-style JPEG",
    32809: "ThunderScan",
    33003: "JPEG 2000 (Aperio, YCbCr)",
    33004: "JPEG 2000",
    33005: "JPEG 2000 (Aperio, RGB)",
    34676: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
SAMPLE_FORMATS = {2: "signed integer", 3: "floating point", 5: "complex integer", 6: "complex floating point"}
NO_PREDICTOR, HORIZONTAL = 1, 2
UNSTATED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
MAX_CHANNELS = 5


@dataclass(frozen=True)
class Layout:
    """One page's samples: unsigned, of one depth, `bits` of 1 to 16.

    `top` is the sample of full intensity. `segment` is width and height of a tile, or of a strip. `extra` says for each
    channel beyond the colours whether it is alpha. `subsampling` is by how much YCbCr's colours are coarser.
    """

    width: int
    height: int
    photometric: int
    bits: int
    top: int
    channels: int
    extra: tuple[int, ...]
    planar: bool
    compression: int
    reversed_bits: bool
    predictor: int
    tiled: bool
    segment: tuple[int, int]
    subsampling: tuple[int, int]
    orientation: int

    @property
    def colours(self) -> int:
        return COLOURS[self.photometric]


def read_layout(page: Directory) -> Layout:
    """Raises `RequestError` for a layout that is not interpreted, and names it."""
    photometric, compression = page.number(PHOTOMETRIC, -1), page.number(COMPRESSION, RAW)
    bits, channels = page.number(BITS, 1), page.number(CHANNELS, 1)
    _check_compression(compression, page.number(PREDICTOR, NO_PREDICTOR), bits)
    _check_samples(page, bits, channels)
    if photometric not in COLOURS:
        name = OTHER_PHOTOMETRICS.get(photometric, "missing" if photometric < 0 else str(photometric))
        raise unsupported(f"A TIFF whose photometric interpretation is {name}")
    planar = page.number(PLANES, 1) == 2 and channels > 1
    subsampling = _subsampling(page) if photometric == YCBCR and compression != JPEG else (1, 1)
    width, height = page.number(WIDTH, 0), page.number(HEIGHT, 0)
    tiled = page.values(TILE_WIDTH, 1).size > 0
    segment = (page.number(TILE_WIDTH, 0), page.number(TILE_HEIGHT, 0)) if tiled else (width, page.number(ROWS, height))
    layout = Layout(
        width=width,
        height=height,
        photometric=photometric,
        bits=bits,
        top=_top(page, bits),
        channels=channels,
        extra=_extra(page, channels - COLOURS[photometric], photometric),
        planar=planar,
        compression=compression,
        reversed_bits=page.number(FILL_ORDER, 1) == 2,
        predictor=page.number(PREDICTOR, NO_PREDICTOR),
        tiled=tiled,
        segment=segment if tiled else (width, min(segment[1], height)),
        subsampling=subsampling,
        orientation=page.orientation(),
    )
    _check_colours(page, layout)
    return layout


def _check_compression(compression: int, predictor: int, bits: int) -> None:
    if compression not in (RAW, JPEG, *CCITT, *BYTE_CODECS):
        raise unsupported(f"A TIFF compressed by {OTHER_COMPRESSIONS.get(compression, f'method {compression}')}")
    if compression in BYTE_CODECS and predictor not in (NO_PREDICTOR, HORIZONTAL):
        raise unsupported("A TIFF with the floating point predictor")
    if compression in BYTE_CODECS and predictor == HORIZONTAL and bits not in (8, 16):
        raise unsupported(f"A TIFF with a predictor for {bits} bits a sample")
    if (compression == JPEG and bits != 8) or (compression in CCITT and bits != 1):
        raise unsupported(f"A TIFF with {bits} bits a sample in JPEG or CCITT compression")


def _check_samples(page: Directory, bits: int, channels: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise unsupported(f"A TIFF with {channels} channels")
    for code in page.values(SAMPLE_FORMAT, channels).tolist():
        if code in SAMPLE_FORMATS:
            raise unsupported(f"A TIFF with {SAMPLE_FORMATS[code]} samples (no range is defined for them)")
    depths = page.values(BITS, channels).tolist()
    if len(set(depths)) > 1:
        raise unsupported(f"A TIFF with channels of {', '.join(map(str, depths))} bits")
    if not 1 <= bits <= 16:
        raise unsupported(f"A TIFF with {bits} bits a sample")


def _check_colours(page: Directory, layout: Layout) -> None:
    photometric, bits = layout.photometric, layout.bits
    if photometric == SEPARATED and page.number(INK_SET, 1) != 1:
        raise unsupported("A TIFF with inks other than CMYK")
    dots = page.values(DOT_RANGE, 2).tolist()
    if photometric == SEPARATED and dots not in ([], [0, (1 << bits) - 1]):
        raise unsupported(f"A TIFF with inks in the range {dots}")
    if photometric == YCBCR and (bits != 8 or layout.extra or (layout.planar and layout.subsampling != (1, 1))):
        raise unsupported("A TIFF with YCbCr of other than 8 bits, with more channels, or subsampled in planes")
    if (photometric == CIELAB and bits not in (8, 16)) or (photometric == ICCLAB and bits != 8):
        raise unsupported(f"A TIFF with CIE L*a*b* of {bits} bits")
    if layout.compression == JPEG and not layout.planar and layout.channels not in (1, 3, 4):
        raise unsupported(f"A TIFF with {layout.channels} channels in JPEG compression")
    if layout.compression in CCITT and layout.channels > 1:
        raise unsupported("A TIFF with several channels in CCITT compression")


def _top(page: Directory, bits: int) -> int:
    """The sample of full intensity: MaxSampleValue if it states fewer bits, as cameras of 12 bits do.

    The tag is meant for statistics, so a value in the upper half of the range may be the brightest sample.
    """
    full = (1 << bits) - 1
    values = [*page.values(MAX_VALUE, MAX_CHANNELS).tolist(), *page.values(SIGNED_MAX_VALUE, MAX_CHANNELS).tolist()]
    top = max(values, default=full)
    if top > full // 2 or page.number(PHOTOMETRIC, -1) in (INDEXED, YCBCR):
        return full
    if top < 1 or top & (top + 1):
        raise unsupported(f"A TIFF with {bits} bits a sample and a MaxSampleValue of {top}")
    return int(top)


def _extra(page: Directory, count: int, photometric: int) -> tuple[int, ...]:
    """The meaning of the channels beyond the colours. Grey with channels of unknown meaning is no grey picture."""
    kinds = page.values(EXTRA_SAMPLES, max(count, 0)).tolist()
    if count < 0 or not set(kinds) <= {UNSTATED, ASSOCIATED, UNASSOCIATED}:
        raise corrupt()
    if ASSOCIATED in kinds and photometric not in (BLACK_IS_ZERO, RGB):
        raise unsupported("A TIFF with premultiplied alpha beside other channels than grey or RGB")
    if len(kinds) < count or (COLOURS[photometric] == 1 and UNSTATED in kinds):
        raise unsupported("A TIFF with channels whose meaning is not stated (ExtraSamples)")
    if len(kinds) - kinds.count(UNSTATED) > 1:
        raise unsupported("A TIFF with several alpha channels")
    return tuple(kinds)


def _subsampling(page: Directory) -> tuple[int, int]:
    values = page.values(SUBSAMPLING, 2).tolist() or [2, 2]
    if len(values) != 2 or not set(values) <= {1, 2, 4}:
        raise corrupt()
    return values[0], values[1]
