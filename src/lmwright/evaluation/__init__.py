"""Models side by side: the same items, intervals, paired comparisons and verdicts."""
