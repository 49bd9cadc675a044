"""What it meant at any point in time: folds, timelines, effective state, scope, decisions."""
