"""What a run tells its reader: `report.html` in the run's folder and `README.md` in its best snapshots, made from files alone."""
