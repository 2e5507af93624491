"""Event → prediction; side row → feature; served row + label → live metric; registry → live model."""
