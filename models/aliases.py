"""What versions may be called beside their numbers."""

import re
from typing import Final

CHAMPION: Final = "champion"  # serves; what moves it are promotions
ALIAS: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")  # of a user's own: a part of topic names
CHALLENGER: Final = "challenger"  # in the champion's shadow, where the pipeline has one
