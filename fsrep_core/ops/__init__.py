"""What operators use: configuration, jobs, reports, metrics, progress, the command line."""
