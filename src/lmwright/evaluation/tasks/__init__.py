"""Every measurement of the card. To add one, write its record in a file and a line here."""

from lmwright.evaluation import speed
from lmwright.evaluation.measurement import Measurement
from lmwright.evaluation.tasks import (
    bits_per_byte,
    gender_gap,
    multiple_choice,
    qa_accuracy,
    refusals,
)

MEASUREMENTS: dict[str, Measurement] = {
    measurement.spec.name: measurement
    for measurement in (
        qa_accuracy.QA_ACCURACY,
        multiple_choice.MULTIPLE_CHOICE,
        bits_per_byte.BITS_PER_BYTE,
        gender_gap.GENDER_GAP,
        refusals.REFUSAL_RATE,
        refusals.OVER_REFUSAL_RATE,
        speed.PREFILL,
        speed.DECODE,
    )
}
