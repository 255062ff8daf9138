from __future__ import annotations

from router.artifact import Artifact
from router.calibration import CALIBRATORS
from router.classifier import HEADS
from router.training.export import PACKAGED as EXPORTABLE
from router.vocabulary import PARTS


def test_the_names_that_need_no_package_are_those_that_are_there(packaged: Artifact) -> None:
    assert set(PARTS["head"][1]) == set(HEADS)
    assert set(PARTS["calibrator"][1]) == set(CALIBRATORS)
    assert set(PARTS["encoder"][1]) == {stage.encoder for stage in packaged.manifest.stages} | set(EXPORTABLE)
