"""Read broken, odd and hostile media files, each in a child of its own, and judge how each ended.

A file may be read or be refused in one line. Anything else is a fault: a traceback, a crash, a hang, more
than 1 GiB of memory, a changed file, a connection, or a look at another file. The children share a listener
on this machine and a watched folder: the files name both, in playlists, links and URLs.

Usage: ``python benchmarks/fuzz_media.py [--count 300] [--seed 0] [--through read|extract]``
"""

import ctypes
import os
import random
import socket
import struct
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from alignmamba.cli.main import main as alignmamba
from alignmamba.files import verdict
from fuzz_ends import End, judge, one_thread, options, run
from made_clips import CODECS, write_clip

MOST_BYTES = 1 << 30
"""Memory that a child may hold; PyTorch and FFmpeg alone take a third of it."""
IN_OPEN, IN_ACCESS, IN_MODIFY, IN_CREATE = 0x20, 0x1, 0x2, 0x100

Seeds = Mapping[str, bytes]
Mutation = Callable[[Seeds, random.Random, "Trap"], tuple[str, bytes]]


@dataclass
class Trap:
    """A listener and a watched folder that no reader may touch."""

    folder: Path
    server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def __post_init__(self) -> None:
        self.server.setblocking(False)
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", self.port))
        self.datagrams.setblocking(False)
        write_clip(self.folder / "there.ts", 0.3)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.inotify_init1(os.O_NONBLOCK)
        flags = IN_OPEN | IN_ACCESS | IN_MODIFY | IN_CREATE
        if self._libc.inotify_add_watch(self._watch, os.fsencode(self.folder), flags) < 0:
            raise OSError(ctypes.get_errno(), "the folder cannot be watched")

    @property
    def port(self) -> int:
        """Port of the listener, for streams and for datagrams."""
        return int(self.server.getsockname()[1])

    @property
    def file(self) -> Path:
        """A file of media in the watched folder."""
        return self.folder / "there.ts"

    def sprung(self) -> list[str]:
        """Traps that were touched since the last call."""
        found = []
        with suppress(BlockingIOError):
            self.server.accept()[0].close()
            found.append("a connection")
        with suppress(BlockingIOError):
            self.datagrams.recv(1 << 16)
            found.append("a datagram")
        with suppress(BlockingIOError):
            os.read(self._watch, 1 << 16)
            found.append("a look at another file")
        return found


# Mutations: of seeds of every container


def truncated(seeds: Seeds, draw: random.Random, _: Trap) -> tuple[str, bytes]:
    """A file that ends somewhere."""
    ending, content = _seed(seeds, draw)
    return ending, content[: draw.randrange(len(content))]


def flipped(seeds: Seeds, draw: random.Random, _: Trap) -> tuple[str, bytes]:
    """Bits flipped anywhere."""
    ending, content = _seed(seeds, draw)
    changed = bytearray(content)
    for _time in range(draw.choice((1, 3, 10, 100, 1000))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return ending, bytes(changed)


def flipped_head(seeds: Seeds, draw: random.Random, _: Trap) -> tuple[str, bytes]:
    """Bits flipped where headers and indices lie."""
    ending, content = _seed(seeds, draw)
    changed = bytearray(content)
    for _time in range(draw.choice((1, 2, 5, 20))):
        place = draw.randrange(min(800, len(changed)))
        changed[place if draw.randrange(2) else -1 - place] ^= 1 << draw.randrange(8)
    return ending, bytes(changed)


def spliced(seeds: Seeds, draw: random.Random, _: Trap) -> tuple[str, bytes]:
    """A piece removed, repeated, replaced by zeros or noise, or by a piece of another file."""
    ending, content = _seed(seeds, draw)
    begin = draw.randrange(len(content))
    end = min(len(content), begin + draw.choice((1, 50, 1000, 20_000)))
    other = _seed(seeds, draw)[1]
    middle = draw.choice(
        (b"", content[begin:end] * 3, bytes(end - begin), draw.randbytes(end - begin), other[: end - begin])
    )
    return ending, content[:begin] + middle + content[end:]


def extreme(seeds: Seeds, draw: random.Random, _: Trap) -> tuple[str, bytes]:
    """Sizes, counts and times that are huge, zero or negative, in a header."""
    ending, content = _seed(seeds, draw)
    changed = bytearray(content)
    spots = [
        place + skip
        for word in (
            b"mvhd",
            b"tkhd",
            b"mdhd",
            b"stts",
            b"stsz",
            b"stco",
            b"stsc",
            b"elst",
            b"avc1",
            b"mp4a",
            b"ctts",
        )
        for place in _places(content, word)
        for skip in range(4, 28, 4)
    ] or list(range(4, min(300, len(content) - 8)))
    for _time in range(draw.choice((1, 2, 4))):
        value = draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00FFFFFF, 36_000_000))
        struct.pack_into(draw.choice((">I", "<I")), changed, min(draw.choice(spots), len(changed) - 4), value)
    return ending, bytes(changed)


def long_header(seeds: Seeds, draw: random.Random, _: Trap) -> tuple[str, bytes]:
    """A header of ten hours, or of terabytes, over a second of content."""
    which = draw.randrange(4)
    if which == 0:
        return ".webm", seeds[".webm"].replace(b"00:00:01.0", b"10:00:01.0")
    if which == 1:
        changed = bytearray(seeds[".mp4"])
        for word, skip in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24), (b"elst", 12)):
            for place in _places(changed, word):
                struct.pack_into(">I", changed, place + skip, 36_000_000)
        return ".mp4", bytes(changed)
    if which == 2:
        changed = bytearray(seeds[".wav"])
        struct.pack_into("<I", changed, changed.index(b"data") + 4, 0xFFFFFFF0)
        return ".wav", bytes(changed)
    rate, channels = draw.choice((1, 8000, 4_000_000_000)), draw.choice((1, 255, 65_535))
    head = struct.pack("<HHIIHH", 1, channels, rate, rate & 0xFFFFFFFF, 2 * channels & 0xFFFF, 16)
    size = struct.pack("<I", 0xFFFFFFF0)
    return ".wav", b"RIFF" + size + b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + size + bytes(2000)


def odd(seeds: Seeds, draw: random.Random, trap: Trap) -> tuple[str, bytes]:
    """Files of nothing, of one frame, without streams, or with pictures of another size than any."""
    width, height = draw.choice(((1, 1), (33, 17), (9000, 9000), (65_535, 65_535), (0, 0), (2, 60_000)))
    raw = f"YUV4MPEG2 W{width} H{height} F25:1 C420\nFRAME\n".encode()
    frame = bytes(min(width * height * 3 // 2 + 4, 200_000))
    mvhd = struct.pack(">I4s", 108, b"mvhd") + bytes(100)
    one = trap.folder.parent / f"one{draw.choice(tuple(CODECS))}"
    return draw.choice(
        (
            (".mp4", b""),
            (".mp4", b"\0"),
            (".avi", b"RIFF\0\0\0\0AVI "),
            (
                ".mp4",
                struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4s", 116, b"moov") + mvhd,
            ),
            (one.suffix, write_clip(one, 0.1).read_bytes()),
            (".y4m", raw + frame),
            (".gif", b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(200)),
            (".mkv", seeds[".mkv"].replace(b"A_AAC", b"A_XYZ").replace(b"V_MPEG4", b"V_XXXXX")),
        )
    )


LISTS = (
    "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{there}\n#EXT-X-ENDLIST\n",
    '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{there}\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",URI="{there}"\n',
    '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{there}"\n#EXT-X-MAP:URI="{there}"\n#EXTINF:5,\n{there}\n',
    "ffconcat version 1.0\nfile '{there}'\nduration 36000\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT10H"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{there}</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
    '<?xml version="1.0"?><playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track>'
    "<location>{there}</location></track></trackList></playlist>",
    '<!DOCTYPE a [<!ENTITY b SYSTEM "{there}">]><smil><body><video src="{there}">&b;</video></body></smil>',
    '<asx version="3.0"><entry><ref href="{there}"/></entry></asx>',
    "[playlist]\nFile1={there}\nNumberOfEntries=1\nVersion=2\n",
    "[Reference]\nRef1={there}?MSWMExt=.asf\n",
    "RTSPtext{there}\n",
    "{there}\n",
    ";FFMETADATA1\ntitle={there}\n",
)
PLACES = (
    *("{file}", "file://{file}", "http://127.0.0.1:{port}/a.ts", "../trap/there.ts", "/etc/passwd"),
    *("tcp://127.0.0.1:{port}", "udp://127.0.0.1:{port}", "rtmp://127.0.0.1:{port}/a", "/dev/zero", "pipe:0"),
    *("concat:{file}|{file}", "subfile,,start,0,end,99,,:{file}", "crypto:{file}", "async:file:{file}"),
    "cache:{file}",
)


def listed(_: Seeds, draw: random.Random, trap: Trap) -> tuple[str, bytes]:
    """Lists of files and URLs, in every language that players know, under names of media."""
    there = draw.choice(PLACES).format(file=trap.file, port=trap.port)
    text = draw.choice(LISTS).format(there=there, port=trap.port)
    return draw.choice((".mp4", ".wav", ".mkv", ".m3u8", ".ts")), text.encode()


def referring(seeds: Seeds, draw: random.Random, trap: Trap) -> tuple[str, bytes]:
    """A QuickTime file whose tracks lie in another file or behind a URL."""
    content = bytearray(seeds[".mov"])
    url = (
        draw.choice((f"file://{trap.file}", f"http://127.0.0.1:{trap.port}/a.ts", "there.ts")).encode()
        + b"\0"
    )
    for place in _places(content, b"url "):
        content[place + 4 : place + 8] = bytes(4)  # not in this file, says the flag
    place = content.find(b"alis")
    if place > 0:
        content[place + 7] = 0
    return ".mov", bytes(content) + struct.pack(">I4s", 8 + len(url), b"url ") + url


MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    (truncated, 40),
    (flipped, 60),
    (flipped_head, 45),
    (spliced, 35),
    (extreme, 45),
    (long_header, 10),
    (odd, 20),
    (listed, 30),
    (referring, 5),
)
"""Kinds and their shares of a run; what is left are `links`."""


def links(folder: Path, draw: random.Random, trap: Trap) -> Path:
    """A name that leads to a pipe, a device, a folder, nothing, itself, or a good file elsewhere."""
    path = folder / f"clip{draw.choice(('.mp4', '.wav', '.mkv'))}"
    target = draw.choice(("pipe", "zero", "folder", "nothing", "itself", "socket"))
    if target == "pipe":
        os.mkfifo(path)
    elif target == "folder":
        path.mkdir()
    elif target == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to({"zero": "/dev/zero", "nothing": trap.folder / "gone", "itself": path.name}[target])
    return path


def _seed(seeds: Seeds, draw: random.Random) -> tuple[str, bytes]:
    return draw.choice(sorted(seeds.items()))


def _places(content: bytes | bytearray, word: bytes) -> list[int]:
    found, place = [], content.find(word)
    while place >= 0:
        found.append(place)
        place = content.find(word, place + 1)
    return found


# Reading


def read(arguments: Sequence[str]) -> int:
    """Read facts, sound and pictures of each file, as a command that says its verdict."""
    import numpy as np

    from alignmamba.media.clip import MediaClip
    from alignmamba.media.decoding import facts, frames, waveform
    from alignmamba.media.extractors import AUDIO, VIDEO
    from alignmamba.media.tracks import Track

    try:
        for argument in arguments:
            clip = MediaClip(path=Path(argument))
            found: list[object] = [facts(clip), waveform(clip), sum(1 for _ in frames(clip))]
            for offer in (AUDIO["logmel"], VIDEO["pixels"]):
                track = offer.make(None, offer.options()).extract(clip)
                if isinstance(track, Track):
                    assert np.isfinite(track.values).all()
                    assert (np.diff(track.times) >= 0).all()
                    assert track.values.shape[0] == track.times.shape[0] > 0
            print(found[0])
    except Exception as error:
        code, said = verdict(error)
        print(f"error: {said}", file=sys.stderr)
        return code
    return 0


THROUGH: Mapping[str, tuple[Callable[[list[str]], int], tuple[str, ...]]] = {
    "read": (read, ()),
    "extract": (alignmamba, ("extract", "--show", "--text", "none")),
}
"""Commands by name, with the arguments before the file."""


def made(number: int, seed: int, seeds: Seeds, folder: Path, trap: Trap) -> tuple[str, Path]:
    """The kind of a case and its file; the same numbers make the same file again."""
    draw = random.Random(f"media {seed} {number}")
    place = 37 * number % 300  # kinds take turns, so that a few cases have all of them
    for mutation, share in MUTATIONS:
        if place < share:
            ending, content = mutation(seeds, draw, trap)
            path = folder / f"clip{ending}"
            path.write_bytes(content)
            return mutation.__name__, path
        place -= share
    return "links", links(folder, draw, trap)


def faults_of(end: End, trap: Trap) -> list[str]:
    """All that is wrong with how a child ended."""
    found = [*judge(end), *trap.sprung()]
    if end.bytes > MOST_BYTES:
        found.append(f"held {end.bytes / 1e9:.1f} GB")
    if end.changed:
        found.append(f"changed {', '.join(end.changed[:3])}")
    return found


def main() -> int:
    """Run the cases asked for, and print a table; 1 if one ended wrongly."""
    parser = options(__doc__, count=300)
    parser.add_argument("--through", choices=THROUGH, default="read", help="command that reads the files")
    given = parser.parse_args()
    command, before = THROUGH[given.through]
    one_thread()
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    most: defaultdict[str, float] = defaultdict(float)
    slowest: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory(prefix="fuzz-media-") as temporary:
        place = Path(temporary)
        (place / "trap").mkdir()
        trap = Trap(place / "trap")
        seeds = {ending: write_clip(place / f"seed{ending}", 1.0).read_bytes() for ending in CODECS}
        trap.sprung()
        kept = given.keep or Path(tempfile.mkdtemp(prefix="fuzz-kept-"))
        for number in range(given.start, given.start + given.count):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                kind, path = made(number, given.seed, seeds, Path(folder), trap)
                end = run([*before, path.name], Path(folder), seconds=given.seconds, command=command)
                found = faults_of(end, trap)
                counts[kind]["fault" if found else {0: "read", 2: "refused"}[end.code or 0]] += 1
                most[kind] = max(most[kind], end.bytes / 2**20)
                slowest[kind] = max(slowest[kind], end.seconds)
                if found:
                    print(
                        f"FAULT {number} {kind}: {'; '.join(found)}\n  {end.err.strip()[-400:]!a}", flush=True
                    )
                    kept.mkdir(parents=True, exist_ok=True)
                    if path.is_file():
                        (kept / f"{number}-{path.name}").write_bytes(path.read_bytes())
    _print_table(counts, most, slowest)
    with suppress(OSError):
        kept.rmdir()
    return 1 if any(row["fault"] for row in counts.values()) else 0


def _print_table(
    counts: Mapping[str, Counter[str]], most: Mapping[str, float], slowest: Mapping[str, float]
) -> None:
    print("| files | read | refused | faults | most memory | slowest |\n|---|---|---|---|---|---|")
    for kind, row in counts.items():
        print(
            f"| {kind.replace('_', ' ')} | {row['read']} | {row['refused']} | {row['fault']} |"
            f" {most[kind]:.0f} MiB | {slowest[kind]:.1f} s |"
        )
    total = sum(counts.values(), Counter[str]())
    print(
        f"| all | {total['read']} | {total['refused']} | {total['fault']} | {max(most.values()):.0f} MiB |"
        f" {max(slowest.values()):.1f} s |"
    )


if __name__ == "__main__":
    sys.exit(main())
