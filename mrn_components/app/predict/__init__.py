"""``mrn predict``: from raw NM and QSM to P(PD), masks and a table."""

from mrn_components.app.predict.run import predict
from mrn_components.app.predict.workflow import inference_workflow
