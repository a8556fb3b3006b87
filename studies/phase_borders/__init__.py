"""Where catapults begin, as several control numbers predict it before training, side by side (notebook 02)."""
