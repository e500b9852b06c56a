"""What a SLURM cluster needs to be told: its settings in one file, and where the jobs are."""
