"""Building assignments from their masters, and grading: one interpreter per submission, a sandbox around it."""
