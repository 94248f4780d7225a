"""Reports: `report.html` in a run's folder and a model card, `README.md`, in its best snapshots. Both are made from files only."""
