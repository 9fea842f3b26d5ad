"""Every job and schedule, declared once, and what operators do to jobs."""
