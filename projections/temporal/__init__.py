"""The law of time: changes, fold, in force, effective state, coordinates. Pure."""
