"""What a point keeps of the alignment, beside its accuracy and calibration."""

from merge_calib.retention.record import Retained, retained

__all__ = ["Retained", "retained"]
