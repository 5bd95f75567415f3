"""The measures that a report shows: what each is called and how it is written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from merge_calib.calibration.measurement import Measurement
from merge_calib.report.text import MISSING, decimals, percent
from merge_calib.scoring.questionnaire import NEXT_TOKEN


@dataclass(frozen=True)
class Measure:
    """A column of results.csv with its name for people; shares are shown in %, binned ones with their M.

    needs: `options` where a measure reads the probabilities of all of them, `letters` where it belongs to `choice`
    places: decimals that it is written with; squared errors need more of them
    """

    column: str
    label: str
    is_share: bool = False
    is_binned: bool = False
    needs: Literal["", "options", "letters"] = ""
    places: int = 4

    def of(self, measurement: Measurement | None) -> float | None:
        """The value as measured; None where it is undefined or was not measured."""
        return None if measurement is None else getattr(measurement, self.column)

    def applies(self, confidence: str) -> bool:
        """Whether scores of this confidence method have the measure."""
        if self.needs == "letters":
            return confidence == "choice"
        return self.needs != "options" or confidence != NEXT_TOKEN

    def heading(self, bins: int) -> str:
        """The label with its unit or its number of bins."""
        if self.is_binned:
            return f"{self.label} (M = {bins})"
        return f"{self.label} (%)" if self.is_share else self.label

    def text(self, value: float | None) -> str:
        if value is None:
            return MISSING
        return f"{percent(value, 2)}%" if self.is_share else decimals(value, self.places)

    def difference_text(self, value: float | None) -> str:
        """A difference with its sign; shares differ by points."""
        if value is None:
            return MISSING
        return f"{percent(value, 2, '+')} points" if self.is_share else decimals(value, self.places, "+")

    def size_text(self, value: float) -> str:
        """The size of a difference, without a sign."""
        return f"{percent(value, 2)} points" if self.is_share else decimals(value, self.places)


ACCURACY = Measure("accuracy", "Accuracy", is_share=True)
SCE = Measure("sce", "SCE", is_binned=True, needs="options")
SCE_AGREEMENT = Measure("sce_agreement", "SCE-agreement", is_binned=True, needs="options")
ECE = Measure("ece", "ECE", is_binned=True)
NLL = Measure("nll", "NLL")
BRIER = Measure("brier", "Brier", needs="options")
MEAN_CONFIDENCE = Measure("mean_confidence", "Mean confidence", is_share=True)
AUROC = Measure("auroc", "AUROC")
LETTER_MASS = Measure("letter_mass", "Letter mass", is_share=True, needs="letters")
LETTER_BIAS = Measure("letter_bias", "Letter bias", is_share=True, needs="letters")
ECE2 = Measure("ece2", "ece2", is_binned=True, places=5)
SCE2 = Measure("sce2", "sce2", is_binned=True, needs="options", places=5)
ADAPTIVE_ECE = Measure("adaptive_ece", "Adaptive ECE", is_binned=True)
SMOOTH_ECE = Measure("smooth_ece", "Smooth ECE")
OVERCONFIDENCE = Measure("overconfidence", "Over-confidence", is_share=True)
AURC = Measure("aurc", "AURC")
BRIER_MISCALIBRATION = Measure("brier_miscalibration", "Miscalibration", needs="options")
BRIER_DISCRIMINATION = Measure("brier_discrimination", "Discrimination", needs="options")
BRIER_UNCERTAINTY = Measure("brier_uncertainty", "Uncertainty", needs="options")
ANSWER_ENTROPY = Measure("answer_entropy", "Answer entropy", needs="options")
PREDICTION_ENTROPY = Measure("prediction_entropy", "Prediction entropy", needs="options")
BY_COLUMN = {
    measure.column: measure for measure in (ACCURACY, SCE, SCE_AGREEMENT, ECE, NLL, BRIER, MEAN_CONFIDENCE, ECE2, SCE2)
}


def asked_noun(confidence: str) -> str:
    """What a confidence method asks of a model."""
    return "text" if confidence == NEXT_TOKEN else "question"


def applying(measures: Iterable[Measure], confidence: str) -> tuple[Measure, ...]:
    """Those of `measures` that scores of a confidence method have."""
    return tuple(measure for measure in measures if measure.applies(confidence))
