"""Facts of the checkpoint in the repository."""

import json

from handler.model.checkpoint import CARD
from training.checkpoint import SHIPPED

VERSION: str = json.loads((SHIPPED / CARD).read_text())["version"]
