"""Readers of other people's files, one module per format; what a format alone needs, such as h5py, is
imported when it is read.
"""

from typing import Any

from alignmamba.formats.foreign import Reader
from alignmamba.formats.pickles import mag_bert_pickle as mag_bert
from alignmamba.formats.pickles import mmsa_pickle as mmsa
from alignmamba.formats.pickles import mult_pickle as mult
from alignmamba.formats.sequences import csd
from alignmamba.formats.sequences import gcnet_folders as gcnet
from alignmamba.formats.tables import described_arrays as arrays

FORMATS: dict[str, Reader[Any]] = {
    "mmsa": mmsa,
    "mult": mult,
    "mag-bert": mag_bert,
    "csd": csd,
    "gcnet": gcnet,
    "arrays": arrays,
}
"""Reader by the name of its format, in the order in which they are tried."""
