"""kill -9 at random moments of whole runs: `python -m tests.kills --kills 1000 --seed 1 --kind cheap`.

A run is started, and started again after each kill, by `lamdatui run --headless`, and by nothing else. Moments and victims are drawn by a seed; a victim is
stopped (SIGSTOP) before it is killed, so that what it was doing is read from its files and locks, not guessed. After its end a run is compared with
what was seen of it: `Campaign.judge` says how.
"""
