"""Readers of other people's files, one module per format; what a format alone needs, such as h5py, is
imported when it is read.
"""

from alignmamba.data.readers import arrays, csd, gcnet, mag_bert, mmsa, mult
from alignmamba.data.readers.foreign import Reader

FORMATS: dict[str, Reader] = {
    "mmsa": mmsa,
    "mult": mult,
    "mag-bert": mag_bert,
    "csd": csd,
    "gcnet": gcnet,
    "arrays": arrays,
}
"""Reader by the name of its format, in the order in which they are tried."""
