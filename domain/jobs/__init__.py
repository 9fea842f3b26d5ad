"""The declarations of all jobs and schedules, and the operator actions on jobs."""
