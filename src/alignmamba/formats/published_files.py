"""Published files that are recognised by their SHA-256, with what is known to be wrong with them."""

from dataclasses import dataclass

_AUDIO = "audio (COVAREP) holds -inf and NaN"
_TEXT = (
    "text holds vectors that are not zero at padded positions: its lengths are those of the attention mask"
)
_ALIGNED = "audio and vision are zero beyond the length of the text"
_OVERFLOW = "audio is float64, with values that float32 does not hold"


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """A published file."""

    dataset: str
    version: str
    faults: tuple[str, ...]
    """Known faults, in sentences."""


KNOWN: dict[str, KnownFile] = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": KnownFile(
        dataset="CMU-MOSI", version="MMSA, unaligned", faults=(_AUDIO, _TEXT)
    ),
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": KnownFile(
        dataset="CMU-MOSI", version="MMSA, aligned to words", faults=(_AUDIO, _TEXT, _ALIGNED)
    ),
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": KnownFile(
        dataset="CMU-MOSEI", version="MMSA, unaligned", faults=(_OVERFLOW, _TEXT)
    ),
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": KnownFile(
        dataset="CMU-MOSEI", version="MMSA, aligned to words", faults=(_OVERFLOW, _TEXT, _ALIGNED)
    ),
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": KnownFile(
        dataset="CH-SIMS", version="MMSA, unaligned_39", faults=(_TEXT,)
    ),
}
"""SHA-256 to the file that has it.

Source: sums from the README of MMSA (https://github.com/thuiar/MMSA), where its feature files are offered;
faults as the data loader of MMSA treats them (it reads -inf as 0), and from CLGSI, issue 9 (float64 of
MOSEI).
"""
