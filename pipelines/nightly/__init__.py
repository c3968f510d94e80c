"""The nightly catalogue job: plan, run on Ray Data, gate, publish once, report.

What makes a crash harmless, step by step (each file named here is put whole or not at all):

1. `lock.py`: one owner per table at a time. Whoever creates `_lock/epoch-N.json` owns epoch N;
   a stale owner can be overtaken because every commit carries its epoch and is refused when the
   table has seen a newer one (`publish.py`).
2. `scan.py`, `keys.py`: the keys of input files go to packs in `_keys/`, named by fingerprints
   of the content, so scanning again is a no-op and an unchanged file is never opened.
3. `planner.py`: keys joined with the table give the rows to extract. `plan.json` is put last; a
   plan without it does not exist. A plan is remade when the listing has changed.
4. `work/`: chunks stream through decode tasks, model actors and writers (`ray_executor.py`).
   Writers stage Parquet parts under new names and return receipts, which the driver logs; rows
   without a receipt run again, a part without one does not count (`staging.py`).
5. `gate.py`: once, on all that is staged; a failed gate publishes nothing and leaves the run open.
6. `publish.py`: new bucket files are invisible until one Delta commit adds them and removes the
   old ones. The commit records the run id, so a rerun sees that it has happened.
7. `published.json` closes the run. What it leaves behind (staging, plans) is removed afterwards.
"""
