"""The stages that a recipe may hold. A new one is a package with a record, and a line here."""

from lmwright.compression.stage import COMPRESS_STAGE
from lmwright.data.stage import DATA_STAGE
from lmwright.evaluation.stage import EVALUATE_STAGE
from lmwright.finetuning.stage import FINETUNE_STAGE
from lmwright.gate.stage import GATE_STAGE
from lmwright.reporting.stage import REPORT_STAGE

# Independent steps are done in this order.
IN_ORDER = (DATA_STAGE, FINETUNE_STAGE, COMPRESS_STAGE, EVALUATE_STAGE, GATE_STAGE, REPORT_STAGE)
STAGES = {stage.name: stage for stage in IN_ORDER}
