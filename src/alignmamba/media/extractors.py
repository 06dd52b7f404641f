"""Readers of sound and of pictures by name. A newcomer is one file and one line here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from alignmamba.media.egemaps import Egemaps
from alignmamba.media.extractor import SAVED_MODEL, Extractor, NoOptions, Offer, given
from alignmamba.media.face import Face, FaceOptions
from alignmamba.media.image_model import ImageModel, ImageModelOptions
from alignmamba.media.log_mel import LogMel, LogMelOptions
from alignmamba.media.pixels import Pixels, PixelsOptions
from alignmamba.media.speech_model import SpeechModel


def _log_mel(_: Path | None, options: LogMelOptions) -> Extractor:
    return LogMel(options=options)


def _egemaps(_: Path | None, __: NoOptions) -> Extractor:
    return Egemaps()


def _speech_model(folder: Path | None, _: NoOptions) -> Extractor:
    return SpeechModel(folder=given(folder))


def _pixels(_: Path | None, options: PixelsOptions) -> Extractor:
    return Pixels(options=options)


def _face(file: Path | None, options: FaceOptions) -> Extractor:
    return Face(file=given(file), options=options)


def _image_model(folder: Path | None, options: ImageModelOptions) -> Extractor:
    return ImageModel(folder=given(folder), options=options)


AUDIO: Final[Mapping[str, Offer[Extractor]]] = {
    "logmel": Offer(make=_log_mel, summary="log-mel energies, 80 bands at 100 Hz", options=LogMelOptions),
    "egemaps": Offer(
        make=_egemaps,
        summary="voice in 25 measures at 100 Hz, for research alone",
        extra="egemaps",
        licence="audEERING Research License",
    ),
    "hf": Offer(
        make=_speech_model,
        summary="a model of the wav2vec 2.0, HuBERT or WavLM family, about 50 Hz",
        weights="FOLDER",
        extra="text",
        whence=SAVED_MODEL,
    ),
}
"""Extractors of sound by name."""

VIDEO: Final[Mapping[str, Offer[Extractor]]] = {
    "pixels": Offer(
        make=_pixels, summary="small grey or coloured pictures, 16 x 16 at 5 Hz", options=PixelsOptions
    ),
    "face": Offer(
        make=_face,
        summary="movements of a face and pose of the head, 58 numbers at 12.5 Hz",
        options=FaceOptions,
        weights="FILE",
        extra="face",
        whence=(
            "face_landmarker.task of MediaPipe's Face Landmarker, 3.8 MB, Apache-2.0; the SHA-256 of float16"
            " version 1 begins with 64184e229b263107"
        ),
    ),
    "hf": Offer(
        make=_image_model,
        summary="an image encoder of the CLIP, SigLIP, DINO or ViT family, 5 Hz",
        options=ImageModelOptions,
        weights="FOLDER",
        extra="text",
        whence=SAVED_MODEL,
    ),
}
"""Extractors of pictures by name."""
