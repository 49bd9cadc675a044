"""The meaning of the events at any point in time: folds, timelines, effective state, scope, decisions."""
