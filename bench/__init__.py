"""The instrument: fixed-bias layers raced against the standard Dense."""
