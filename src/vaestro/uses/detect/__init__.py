"""Strange rows found: scores chosen by a self-test, conformal p-values, alarms at a false-discovery rate, drift, and repairs that explain."""

from vaestro.uses.detect.calibrated import Detector, detector
from vaestro.uses.detect.detecting import Detection, detect, detected
from vaestro.uses.detect.drift import Drift
from vaestro.uses.detect.labels import Labelled
from vaestro.uses.detect.repairing import Change, Repair, repair
from vaestro.uses.detect.stream import Stream

__all__ = ["Change", "Detection", "Detector", "Drift", "Labelled", "Repair", "Stream", "detect", "detected", "detector", "repair"]
