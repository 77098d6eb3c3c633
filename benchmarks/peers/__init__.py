"""What zoo is measured beside, each in the way its own users write it. A module here has versions() and
make(workload, folder, how), as benchmarks/ours.py; weights come from FOLDER/weights.npz."""
