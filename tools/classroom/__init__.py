"""Building assignments from their masters and grading submissions, with nbgrader behind and a sandbox around."""
